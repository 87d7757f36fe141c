"""Batch normalization with the fused kernels of TensorFlow and PyTorch.

Keras composes batch normalization of elementwise operations, which take longer
than the convolutions in networks with few channels. On JAX, XLA fuses them.
"""

import math

import keras
from keras import ops

from keras_resfam.backends.memory import channels_first, channels_last

_FLOATS = "float16", "bfloat16", "float32"


def fuses_batch_norm(x):
    """Returns whether the backend has a fused kernel for `x`.

    PyTorch's does not take a single value per channel, TensorFlow's does not
    take double precision, and neither takes integers.

    Args:
        x: tensor, with the channels last.
    """
    return (
        keras.backend.backend() in _BATCH_NORMS
        and len(x.shape) == 4
        and tuple(x.shape[:-1]) != (1, 1, 1)
        and keras.backend.standardize_dtype(x.dtype) in _FLOATS
    )


def fused_batch_norm(x, gamma, beta, epsilon, moments=None):
    """Normalizes each channel by the moments of the batch or by given ones.

    Args:
        x: tensor of shape `(batch, height, width, channels)`.
        gamma: tensor of shape `(channels,)`. The scale.
        beta: tensor of shape `(channels,)`. The offset.
        epsilon: float. It is added to the variance.
        moments: pair of tensors of shape `(channels,)`, the mean and the
            variance. Defaults to `None`, the moments of the batch.

    Returns:
        A tuple: the outputs, in the type of `x`, and the mean and the variance
        of each channel, in float32 and without gradients.
    """
    gamma, beta = (ops.cast(v, "float32") for v in (gamma, beta))
    if moments is not None:
        moments = [ops.cast(v, "float32") for v in moments]
    kernel = _BATCH_NORMS[keras.backend.backend()]
    outputs, mean, variance = kernel(x, gamma, beta, epsilon, moments)
    if moments is None:
        # The kernels return the unbiased variance, but Keras averages the
        # biased one.
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
