"""Convolutions without the detours of Keras, PyTorch and XLA.

On PyTorch, Keras copies the images to channels first before each convolution,
and back behind it. PyTorch's convolution takes a view of them.

On a CPU, XLA takes several times as long for the gradient of a convolution by
its kernel as for the convolution. As a sum of products of matrices, JAX
computes it in less time than that.
"""

import math

import keras

from keras_resfam.backends.memory import channels_first, channels_last


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
