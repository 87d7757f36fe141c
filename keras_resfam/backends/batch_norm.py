"""Batch normalization by the backend's own kernel.

Keras spells batch normalization out in elementwise operations, which on thin
networks cost more than the convolutions. XLA fuses them on JAX; TensorFlow
and PyTorch have a kernel.
"""

import math

import keras
from keras import ops

from keras_resfam.backends.memory import channels_first, channels_last

_FLOATS = "float16", "bfloat16", "float32"


def fuses_batch_norm(x):
    """Whether the backend has a kernel for `x`, of channels last.

    PyTorch's refuses one value a channel, TensorFlow's double precision, and
    both refuse integers.
    """
    return (
        keras.backend.backend() in _BATCH_NORMS
        and len(x.shape) == 4
        and tuple(x.shape[:-1]) != (1, 1, 1)
        and keras.backend.standardize_dtype(x.dtype) in _FLOATS
    )


def fused_batch_norm(x, gamma, beta, epsilon, moments=None):
    """Normalises each channel, by the batch's moments or by those given.

    Args:
        x: tensor of shape `(batch, height, width, channels)`.
        gamma: tensor of shape `(channels,)`, the scale.
        beta: tensor of shape `(channels,)`, the offset.
        epsilon: float.
        moments: mean and variance, tensors of shape `(channels,)`. Defaults
            to the batch's own.

    Returns:
        The outputs, in the type of `x`, and the mean and the variance of each
        channel in float32, through which no gradient flows.
    """
    gamma, beta = (ops.cast(v, "float32") for v in (gamma, beta))
    if moments is not None:
        moments = [ops.cast(v, "float32") for v in moments]
    kernel = _BATCH_NORMS[keras.backend.backend()]
    outputs, mean, variance = kernel(x, gamma, beta, epsilon, moments)
    if moments is None:
        # Keras averages the biased variance, the kernels give the other.
        count = ops.cast(math.prod(ops.shape(x)[:-1]), "float32")
        variance = variance * (count - 1) / count
    return outputs, mean, variance


def _tensorflow_batch_norm(x, gamma, beta, epsilon, moments):
    import tensorflow as tf

    mean, variance = moments or ([], [])
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=moments is None,
    )
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance)


def _torch_batch_norm(x, gamma, beta, epsilon, moments):
    import torch

    # The batch's moments are written into these.
    mean, variance = moments or (torch.zeros_like(gamma) for _ in range(2))
    outputs = torch.nn.functional.batch_norm(
        channels_first(x),
        mean,
        variance,
        gamma,
        beta,
        training=moments is None,
        momentum=1.0,
        eps=epsilon,
    )
    return channels_last(outputs), mean, variance


_BATCH_NORMS = {
    "tensorflow": _tensorflow_batch_norm,
    "torch": _torch_batch_norm,
}
