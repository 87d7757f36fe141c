"""Sums of squares, in fewer passes over memory than Keras needs.

A sum of squares is two operations in Keras, and a copy of the tensor between
them. TensorFlow has a kernel that reads the tensor once, PyTorch one of norms.

Small matrices cost PyTorch more in calls than in arithmetic: how far they are
from orthonormal takes two kernels there, and twice as many operations in Keras.
"""

import math

import keras
from keras import ops


def second_moment(x):
    """Returns the mean square of the values of `x`, in float32."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        size = tf.cast(tf.size(x), tf.float32)
        return 2.0 * tf.nn.l2_loss(tf.cast(x, tf.float32)) / size
    if keras.backend.standardize_dtype(x.dtype) == "float16":
        x = ops.cast(x, "float32")  # float16 does not hold every norm
    # The rows' norms are as precise as `x`, and taken side by side.
    size = math.prod(x.shape[1:])
    if keras.backend.backend() == "torch":
        import torch

        norms = torch.linalg.vector_norm(x.reshape(-1, size), dim=-1).float()
        return norms.square().mean() / size
    norms = ops.cast(ops.norm(ops.reshape(x, (-1, size)), axis=-1), "float32")
    return ops.mean(ops.square(norms)) / size


def gram_error(w):
    """Returns the sum of the squares of `W^T W - I`, for a matrix `w`."""
    columns = w.shape[1]
    if keras.backend.backend() == "torch":
        import torch

        identity = torch.eye(columns, dtype=w.dtype, device=w.device)
        error = torch.addmm(identity, w.T, w, beta=-1).flatten()
        return torch.dot(error, error)
    gram = ops.matmul(ops.transpose(w), w)
    return ops.sum(ops.square(gram - ops.eye(columns, dtype=gram.dtype)))


def scaled(x, factor):
    """Returns `x` times a float32 scalar, in the type of `x`."""
    if keras.backend.backend() == "torch" and x.device.type == "cpu":
        return x * factor  # the kernel for CPUs widens it, without a copy
    dtype = keras.backend.standardize_dtype(x.dtype)
    # A float16 would not hold every factor; bfloat16 has float32's range.
    wide = "float32" if dtype == "float16" else dtype
    return ops.cast(ops.cast(x, wide) * ops.cast(factor, wide), dtype)
