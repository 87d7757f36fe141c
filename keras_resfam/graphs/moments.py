"""Reads what a network stores about images, such as their moments."""

import functools
import itertools

import keras
import numpy as np

from keras_resfam.graphs.graph import is_graph, layers_within

# Augmentations, `Resizing` and others that take images and return images of
# the same range of values. The class that they share has no public name.
_FROM_IMAGES_TO_IMAGES = keras.layers.RandomFlip.__base__


def image_moments(model):
    """Returns the moments by which the first layers normalize images.

    In networks of keras_resfam, one `Rescaling` normalizes them. In networks
    saved by earlier versions, it is a `keras.layers.Normalization`. If several
    such layers follow each other, the moments are those of all together. The
    layers of Keras that augment, resize or crop images may come before them.

    Args:
        model: functional or sequential `keras.Model`, which may have nested
            models.

    Returns:
        A pair of float64 arrays of shape `(channels,)`, the means and the
        standard deviations, or `None` if the network does not normalize.
    """
    maps = list(map(_affine, _normalizations(model)))
    if not maps:
        return None
    scale, offset = np.broadcast_arrays(*functools.reduce(_in_turn, maps))
    if not np.all(scale):
        return None
    moments = -offset / scale, 1 / scale
    return tuple(x.astype("float64").reshape(-1) for x in moments)


def _affine(layer):
    """Returns the scale and the offset of a layer that normalizes."""
    if isinstance(layer, keras.layers.Rescaling):
        return np.asarray(layer.scale), np.asarray(layer.offset)
    mean, variance = (
        keras.ops.convert_to_numpy(x).astype("float64")
        for x in (layer.mean, layer.variance)
    )
    scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
    return scale, -mean * scale


def _in_turn(first, second):
    """Returns the scale and the offset of two layers, one after the other."""
    return first[0] * second[0], first[1] * second[0] + second[1]


def data_config(model):
    """Returns what a network stores about the images that it was trained on.

    Args:
        model: functional or sequential `keras.Model`, which may have nested
            models.

    Returns:
        The `data_config` of its `keras_resfam.layers.Rescaling`, a dict. It is
        empty in stock networks, and in those with random weights.
    """
    return {
        key: value
        for layer in _normalizations(model)
        for key, value in getattr(layer, "data_config", {}).items()
    }


def _normalizations(model):
    """Returns the layers that normalize images, which all others follow."""
    passed = keras.layers.InputLayer, _FROM_IMAGES_TO_IMAGES
    layers = (
        layer
        for layer in layers_within(model)
        if not isinstance(layer, passed) and not is_graph(layer)
    )
    return list(itertools.takewhile(_normalizes, layers))


def _normalizes(layer):
    if isinstance(layer, keras.layers.Normalization):
        return not layer.invert
    return isinstance(layer, keras.layers.Rescaling)
