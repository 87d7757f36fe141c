"""Reads what a network stores about images, such as their moments."""

import keras
import numpy as np

from keras_resfam.graphs.graph import layers_within


def image_moments(model):
    """Returns the moments by which the first layer of a network normalizes.

    In networks of keras_resfam, that layer is a `Rescaling`. In networks saved
    by earlier versions, it is a `keras.layers.Normalization`.

    Args:
        model: functional or sequential `keras.Model`, which may have nested
            models.

    Returns:
        A pair of float64 arrays of shape `(channels,)`, the means and the
        standard deviations, or `None` if the network does not normalize.
    """
    first = _first_layer(model)
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


def data_config(model):
    """Returns what a network stores about the images that it was trained on.

    Args:
        model: functional or sequential `keras.Model`, which may have nested
            models.

    Returns:
        The `data_config` of its `keras_resfam.layers.Rescaling`, a dict. It is
        empty in stock networks, and in those with random weights.
    """
    return dict(getattr(_first_layer(model), "data_config", {}))


def _first_layer(model):
    """Returns the first layer that is not an input, or `None`."""
    passed = keras.layers.InputLayer, keras.Model
    layers = layers_within(model)
    return next((x for x in layers if not isinstance(x, passed)), None)
