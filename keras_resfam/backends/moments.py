"""Sums of squares with fewer passes over memory than in Keras.

In Keras, a sum of squares takes two operations, with a copy of the tensor in
between. TensorFlow has a kernel that reads the tensor once, and PyTorch has one
for norms.

For small matrices on PyTorch, the calls take longer than the arithmetic.
`gram_error` uses two kernels there, half as many as with Keras's operations.
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
        x = ops.cast(x, "float32")  # a norm may exceed the range of float16
    # The norms of rows have the precision of `x`, and are computed in parallel.
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
        return x * factor  # the CPU kernel computes in float32, without a copy
    dtype = keras.backend.standardize_dtype(x.dtype)
    # A factor may exceed the range of float16. bfloat16 has float32's range.
    wide = "float32" if dtype == "float16" else dtype
    return ops.cast(ops.cast(x, wide) * ops.cast(factor, wide), dtype)
