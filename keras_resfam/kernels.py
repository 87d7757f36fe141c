"""A backend's own kernels, where Keras takes a detour.

Keras spells batch normalization out in elementwise operations, which on thin
networks cost more than the convolutions. XLA fuses them on JAX; TensorFlow
and PyTorch have a kernel.

Before each convolution on PyTorch, Keras copies the images to channels first,
and back to channels last, and PyTorch the kernel into an order of its own.
PyTorch's convolution takes a view of either.

On a CPU, XLA takes several times as long for the gradient of a convolution by
its kernel as for the convolution. As a sum of products of matrices, JAX
computes it in less time than that.

A sum of squares is two operations in Keras, and a copy of the tensor between
them. TensorFlow has a kernel that reads the tensor once, PyTorch one of norms.

Small matrices cost PyTorch more in calls than in arithmetic: how far they are
from orthonormal takes two kernels there, and twice as many operations in Keras.

A step of SGD is ten calls for each weight, and one for all weights in
PyTorch's kernel. A step of moving averages is four, and one for all there.
"""

import math

import keras
from keras import ops

FLOATS = "float16", "bfloat16", "float32"


def fuses_batch_norm(x):
    """Whether the backend has a kernel for `x`, of channels last.

    PyTorch's refuses one value a channel, TensorFlow's double precision, and
    both refuse integers.
    """
    return (
        keras.backend.backend() in _BATCH_NORMS
        and len(x.shape) == 4
        and tuple(x.shape[:-1]) != (1, 1, 1)
        and keras.backend.standardize_dtype(x.dtype) in FLOATS
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


def channels_first(x):
    """Views images of channels last, on PyTorch, as its kernels take them."""
    return x.permute(0, 3, 1, 2)  # ONNX has no negative axes


def channels_last(x):
    return x.permute(0, 2, 3, 1)


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


def lay_out(kernel):
    """Stores a kernel in the order in which PyTorch's convolution reads it.

    Otherwise PyTorch copies it into that order at every call, which for one
    image takes as long as the convolution.

    Args:
        kernel: `keras.Variable` of shape `(height, width, channels, filters)`.
    """
    if keras.backend.backend() != "torch":
        return
    import torch

    value = kernel.value
    filters_first = value.data.permute(3, 2, 0, 1)
    channels_last = filters_first.contiguous(memory_format=torch.channels_last)
    value.data = channels_last.permute(2, 3, 1, 0)


def lay_out_alike(variables, kernels):
    """Stores what is added to kernels, step by step, in the order of those.

    Additions of tensors in different orders take PyTorch several times as
    long.

    Args:
        variables: list of `keras.Variable`, such as an optimizer's. Those of
            the shapes of kernels that `lay_out` has stored are meant.
        kernels: list of `keras.Variable`, kernels among them.
    """
    if keras.backend.backend() != "torch":
        return
    shapes = {
        tuple(kernel.shape)
        for kernel in kernels
        if len(kernel.shape) == 4 and not kernel.value.is_contiguous()
    }
    for variable in variables:
        if tuple(variable.shape) in shapes:
            lay_out(variable)


def fuses_sgd(weight, gradient, velocity):
    """Whether PyTorch's kernel takes a weight, its gradient and its velocity.

    It goes through the memory of all of them at once.
    """
    return keras.backend.backend() == "torch" and all(
        x.stride() == weight.stride()
        and x.dtype == weight.dtype
        and x.device == weight.device
        for x in (gradient, velocity)
    )


def fused_sgd(
    weights, gradients, velocities, *, rate, momentum, nesterov, decay, restart
):
    """Changes weights and their velocities as `torch.optim.SGD` does.

    Args:
        weights, gradients, velocities: lists of tensors.
        rate: scalar tensor. The learning rate.
        momentum: float.
        nesterov: bool.
        decay: float. Times the weights, it is added to the gradients.
        restart: bool. Whether the velocities are zeroed before.
    """
    import torch
    from torch.optim import sgd

    weights, gradients, velocities = map(list, (weights, gradients, velocities))
    with torch.no_grad():
        if restart:
            torch._foreach_zero_(velocities)
        sgd.sgd(
            weights,
            gradients,
            velocities,
            fused=True,
            lr=rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=decay,
            dampening=0.0,
            maximize=False,
        )


def move_averages(averages, weights, rate):
    """Moves averages towards the weights: by `rate * (weight - average)`.

    Args:
        averages, weights: lists of variables.
        rate: float within 0 and 1.
    """
    alike = {v.dtype for v in (*averages, *weights)} == {"float32"}
    if keras.backend.backend() == "torch" and alike:
        import torch

        with torch.no_grad():
            torch._foreach_lerp_(
                [v.value for v in averages], [v.value for v in weights], rate
            )
        return
    for average, weight in zip(averages, weights, strict=True):
        weight = ops.stop_gradient(weight)
        average.assign(average + rate * (weight - average))


def convolves_views(strides, padding):
    """Whether `convolution` does what Keras does, with less copying.

    Where the strides are not 1, Keras's `"same"` pads one side more.
    """
    return keras.backend.backend() == "torch" and (
        padding == "valid" or set(strides) == {1}
    )


def convolution(x, kernel, bias, strides, padding, dilation, groups):
    """Convolves images of channels last, on PyTorch.

    Args:
        x: tensor of shape `(batch, height, width, channels)`.
        kernel: tensor of shape `(height, width, channels / groups, filters)`.
        bias: tensor of shape `(filters,)`, or `None`.
        strides: pair of ints.
        padding: `"valid"`, `"same"` with strides of 1, or an int, as many
            zeros on each side.
        dilation: pair of ints.
        groups: int.
    """
    import torch

    pointwise = tuple(kernel.shape[:2]) == (1, 1) and padding in ("valid", 0)
    if pointwise and kernel.shape[2] < 8:
        # With strides oneDNN's gradient of so thin a kernel is wrong on
        # processors with AVX2 and no more, and writes outside of its memory.
        x, strides = x[:, :: strides[0], :: strides[1]], 1
    outputs = torch.nn.functional.conv2d(
        channels_first(x),
        kernel.permute(3, 2, 0, 1),
        bias,
        strides,
        padding,
        dilation,
        groups,
    )
    return channels_last(outputs)


def multiplies_gradients(x, kernel):
    """Whether `convolution_of_products` is the faster, on JAX.

    It goes through the batch in turns, which one device does best, and whose
    size it has to know: that of a model that is exported is open.
    """
    if keras.backend.backend() != "jax":
        return False
    import jax

    return (
        jax.default_backend() == "cpu"
        and jax.device_count() == 1
        and x.dtype == kernel.dtype
        and all(isinstance(size, int) for size in x.shape)
    )


def convolution_of_products(convolve, x, kernel, strides, padding, dilation):
    """Convolves images of channels last, on JAX.

    Args:
        convolve: callable that convolves `x` by `kernel`.
        x: tensor of shape `(batch, height, width, channels)`.
        kernel: tensor of shape `(height, width, channels, filters)`.
        strides: pair of ints.
        padding: `"valid"` or `"same"`.
        dilation: pair of ints.
    """
    import jax

    @jax.custom_vjp
    def operation(x, kernel):
        return convolve(x, kernel)

    def forward(x, kernel):
        return convolve(x, kernel), (x, kernel)

    def backward(inputs, error):
        x, kernel = inputs
        by_images = jax.linear_transpose(lambda x: convolve(x, kernel), x)
        by_kernel = _kernel_gradient(
            x, error, kernel.shape, strides, padding, dilation
        )
        return *by_images(error), by_kernel.astype(kernel.dtype)

    operation.defvjp(forward, backward)
    return operation(x, kernel)


# What a part of the batch may take of a processor's cache: 2 MiB of float32.
PART = 2**19


def _kernel_gradient(x, error, shape, strides, padding, dilation):
    """The sum over the images of `error^T patches`, in float32 at least.

    A part of the images after the other, whose patches stay in the cache.
    """
    import jax
    from jax import lax

    spans = [d * (k - 1) + 1 for k, d in zip(shape, dilation, strict=False)]
    margins = lax.padtype_to_pads(x.shape[1:3], spans, strides, padding.upper())
    batch, *sizes, filters = error.shape
    row = math.prod(sizes) * shape[1] * shape[2]  # of an image's patches
    most = max(1, PART // row)
    counts = range(1, min(batch, most) + 1)
    part = max((n for n in counts if batch % n == 0), default=1)
    wide = jax.numpy.promote_types(x.dtype, "float32")

    def along(axis, images, tap):
        """The rows or columns that a tap of the kernel meets."""
        first, step = tap * dilation[axis], strides[axis]
        last = first + (sizes[axis] - 1) * step + 1
        return lax.slice_in_dim(images, first, last, step, axis + 1)

    def add(total, images_and_error):
        images, error = (v.astype(wide) for v in images_and_error)
        images = jax.numpy.pad(images, [(0, 0), *margins, (0, 0)])
        error = error.reshape(-1, filters)
        taps = [along(1, images, tap) for tap in range(shape[1])]
        rows = jax.numpy.concatenate(taps, axis=-1)
        products = [
            error.T @ along(0, rows, tap).reshape(len(error), -1)
            for tap in range(shape[0])
        ]
        return total + jax.numpy.stack(products), None

    parts = [v.reshape(batch // part, part, *v.shape[1:]) for v in (x, error)]
    none = jax.numpy.zeros((shape[0], filters, shape[1] * shape[2]), wide)
    total, _ = lax.scan(add, none, parts)
    return jax.numpy.swapaxes(total, 1, 2).reshape(shape)


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
