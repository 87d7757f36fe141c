"""Weights for RGB images, adapted to images with other channels as in timm."""

import numpy as np

RGB = 3


def adapt_kernel(kernel, channels):
    """Adapts the kernel of a network's first convolution.

    For one channel, the kernel is the sum over RGB: a normalized gray image
    gives the same outputs as three equal channels would. For more channels,
    the kernel is repeated, and scaled so that the outputs stay of the same
    size.

    Args:
        kernel: array of shape `(height, width, 3, filters)`.
        channels: int.

    Returns:
        An array of shape `(height, width, channels, filters)` and of the same
        type.
    """
    if channels == 1:
        adapted = kernel.astype("float32").sum(axis=2, keepdims=True)
    else:
        repeated = kernel[:, :, np.arange(channels) % RGB].astype("float32")
        adapted = repeated * (RGB / channels)
    return adapted.astype(kernel.dtype)


def adapt_moments(values, channels):
    """Adapts the channels' means, or their standard deviations.

    Args:
        values: sequence of three floats.
        channels: int.

    Returns:
        A tuple of floats: the mean of the three for one channel, else the
        three repeated.
    """
    if channels == 1:
        return (float(np.mean(values)),)
    return tuple(float(values[k % RGB]) for k in range(channels))
