"""A backend's own kernel for BatchNormalization in training.

Keras spells it out in elementwise operations, which on thin networks cost
more than the convolutions. XLA fuses them on JAX; TensorFlow and PyTorch have
a kernel.
"""

import math

import keras


def fuses(x):
    """Whether the backend has a kernel for `x`, of channels last.

    PyTorch's refuses one value a channel.
    """
    known = keras.backend.backend() in _KERNELS and len(x.shape) == 4
    return known and tuple(x.shape[:-1]) != (1, 1, 1)


def fused_batch_norm(x, gamma, beta, epsilon):
    """Normalises a batch by its own moments.

    Args:
        x: tensor of shape `(batch, height, width, channels)`.
        gamma: float32 tensor of shape `(channels,)`, the scale.
        beta: float32 tensor of shape `(channels,)`, the offset.
        epsilon: float.

    Returns:
        The outputs, in the type of `x`, and the float32 mean and variance of
        each channel, through which no gradient flows.
    """
    outputs, mean, unbiased = _KERNELS[keras.backend.backend()](
        x, gamma, beta, epsilon
    )
    # Keras averages the biased variance, the kernels give the other.
    count = keras.ops.cast(math.prod(keras.ops.shape(x)[:-1]), "float32")
    return outputs, mean, unbiased * (count - 1) / count


def _tensorflow(x, gamma, beta, epsilon):
    import tensorflow as tf

    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=[],
        variance=[],
        epsilon=epsilon,
        is_training=True,
    )
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance)


def _torch(x, gamma, beta, epsilon):
    import torch

    mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
    outputs = torch.nn.functional.batch_norm(
        x.movedim(-1, 1),
        mean,
        variance,
        gamma,
        beta,
        training=True,
        momentum=1.0,  # The moments are this batch's.
        eps=epsilon,
    )
    return outputs.movedim(1, -1), mean, variance


_KERNELS = {"tensorflow": _tensorflow, "torch": _torch}
