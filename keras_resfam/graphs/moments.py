"""By which channel moments a network normalises its images."""

import keras
import numpy as np

from keras_resfam.graphs.graph import layers_within


def image_moments(model):
    """The moments that a network's first layer normalises images by.

    Ours have a `Rescaling`; those that were saved by earlier versions, a
    `keras.layers.Normalization`.

    Args:
        model: functional or sequential `keras.Model`. Models among its layers
            are looked into.

    Returns:
        The means and the standard deviations, float64 arrays with one value a
        channel; `None` of a network that takes images as they are.
    """
    passed = keras.layers.InputLayer, keras.Model
    layers = layers_within(model)
    first = next((x for x in layers if not isinstance(x, passed)), None)
    if isinstance(first, keras.layers.Rescaling):
        scale, offset = np.broadcast_arrays(first.scale, first.offset)
        if not np.all(scale):
            return None
        moments = -offset / scale, 1 / scale
    elif isinstance(first, keras.layers.Normalization) and not first.invert:
        mean, variance = map(
            keras.ops.convert_to_numpy, (first.mean, first.variance)
        )
        moments = mean, np.sqrt(variance)
    else:
        return None
    return tuple(x.astype("float64").reshape(-1) for x in moments)
