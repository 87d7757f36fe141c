"""A layer of ours beside Keras's, whose results it should give."""

import numpy as np
from keras import ops


def built_alike(ours, theirs, shape, draw):
    """Builds both layers, and gives them the same weights.

    Args:
        ours, theirs: layers.
        shape: tuple. Of their inputs.
        draw: callable that returns an array of a shape.
    """
    for layer in (ours, theirs):
        layer.build(shape)
    for mine, its in zip(ours.weights, theirs.weights, strict=True):
        value = draw(mine.shape)
        mine.assign(value)
        its.assign(value)
    return ours, theirs


def assert_close(ours, theirs, tolerance=1e-5):
    ours, theirs = (
        ops.convert_to_numpy(ops.cast(x, "float32")) for x in (ours, theirs)
    )
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
