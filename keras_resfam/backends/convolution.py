"""Faster convolutions on PyTorch and JAX.

On PyTorch, Keras copies images to the channels first format before each
convolution, and back after it. PyTorch's convolution can take a view instead.

On CPUs, XLA takes several times as long for the gradient of a convolution by
its kernel as for the convolution. JAX computes it faster as a sum of matrix
products.
"""

import math

import keras

from keras_resfam.backends.memory import channels_first, channels_last

# Number of channels in a block of oneDNN with AVX-512. It is 8 with AVX2.
_BLOCK = 16


def takes_pixels_first(kernel, strides):
    """Returns whether to apply strides before a convolution, not within it.

    The results are the same. oneDNN, which TensorFlow and PyTorch use, writes
    to memory out of bounds in the gradient of a strided 1x1 kernel, if the
    kernel has fewer input channels than a block of oneDNN.

    Args:
        kernel: tensor of shape `(height, width, channels / groups, filters)`.
        strides: pair of ints.
    """
    height, width, channels, _ = kernel.shape
    return height == width == 1 and channels < _BLOCK and max(strides) > 1


def strided(strides, images, data_format="channels_last"):
    """Returns the pixels of images that a strided 1x1 kernel is applied to."""
    rows, columns = (slice(None, None, stride) for stride in strides)
    if data_format == "channels_first":
        return images[:, :, rows, columns]
    return images[:, rows, columns]


def convolves_views():
    """Returns whether the backend can use `convolution`, on views of images."""
    return keras.backend.backend() == "torch"


def convolution(
    x, kernel, bias, strides, padding, dilation, groups, data_format
):
    """Convolves images on PyTorch.

    Args:
        x: tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` with channels first.
        kernel: tensor of shape `(height, width, channels / groups, filters)`.
        bias: tensor of shape `(filters,)`, or `None`.
        strides: pair of ints.
        padding: `"valid"`, `"same"`, or an int, the zeros on each side.
        dilation: pair of ints.
        groups: int.
        data_format: `"channels_last"` or `"channels_first"`.
    """
    import torch

    last = data_format == "channels_last"
    images = channels_first(x) if last else x
    before, after = _margins(
        images.shape[2:], kernel.shape[:2], strides, padding, dilation
    )
    thin = takes_pixels_first(kernel, strides)
    if before != after or (thin and max(before) > 0):
        sides = before[1], after[1], before[0], after[0]
        images, before = torch.nn.functional.pad(images, sides), (0, 0)
    if thin:
        images, strides = strided(strides, images, "channels_first"), (1, 1)
    dtype = images.dtype
    if max(dilation) > 1 and dtype.itemsize == 2 and images.is_cpu:
        # PyTorch's gradient of the kernel is wrong in this case.
        images, kernel = images.float(), kernel.float()
        bias = None if bias is None else bias.float()
    filters_first = kernel.permute(3, 2, 0, 1)
    if kernel.shape[3] == 1:
        # PyTorch mistakes a single filter with channels last for one with
        # channels first, and fails to compute its gradient.
        filters_first = filters_first.contiguous()
    outputs = torch.nn.functional.conv2d(
        images, filters_first, bias, strides, before, dilation, groups
    ).to(dtype)
    return channels_last(outputs) if last else outputs


def _margins(sizes, kernel_size, strides, padding, dilation):
    """Returns the zeros before and after the rows and columns of images."""
    if padding != "same":
        margins = (0 if padding == "valid" else padding,) * 2
        return margins, margins
    geometry = zip(sizes, strides, _spans(kernel_size, dilation), strict=True)
    zeros = [
        max(0, (-(-size // stride) - 1) * stride + span - size)
        for size, stride, span in geometry
    ]
    # As in Keras, the larger half of an odd number comes after the images.
    before = tuple(n // 2 for n in zeros)
    return before, tuple(n - n // 2 for n in zeros)


def _spans(kernel_size, dilation):
    """Returns the numbers of rows and columns that a dilated kernel spans."""
    return [
        rate * (size - 1) + 1
        for size, rate in zip(kernel_size, dilation, strict=True)
    ]


def multiplies_gradients(x, kernel):
    """Returns whether `convolution_of_products` is faster, on JAX.

    It processes parts of the batch in turn, which suits a single device. The
    batch size has to be known, which it is not while a model is exported.
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
    """Convolves images with channels last, on JAX.

    The gradient by the kernel is computed as a sum of matrix products.

    Args:
        convolve: callable that convolves `x` by `kernel`.
        x: tensor of shape `(batch, height, width, channels)`.
        kernel: tensor of shape `(height, width, channels, filters)`.
        strides: pair of ints.
        padding: `"valid"` or `"same"`.
        dilation: pair of ints.
    """
    import jax

    @jax.custom_jvp
    def operation(x, kernel):
        return convolve(x, kernel)

    @operation.defjvp
    def derivative(primals, tangents):
        (x, kernel), (by_x, by_kernel) = primals, tangents
        products = _products(x, by_kernel, strides, padding, dilation)
        return operation(x, kernel), convolve(by_x, kernel) + products

    return operation(x, kernel)


# The largest number of values in a part of the batch: 2 MiB of float32, so that
# they stay in the cache of a CPU.
PART = 2**19


def _products(x, kernel, strides, padding, dilation):
    """Computes a convolution as matrix products, in float32 at least.

    JAX transposes it for the gradient by the kernel, which becomes the sum of
    `error^T patches` over the images. It processes one part of the images
    after another, so that their patches stay in the cache. Patches are
    computed again for the backward pass.
    """
    import jax
    from jax import lax

    height, width, channels, filters = kernel.shape
    spans = _spans((height, width), dilation)
    margins = lax.padtype_to_pads(x.shape[1:3], spans, strides, padding.upper())
    sizes = [
        (size + sum(margin) - span) // stride + 1
        for size, margin, span, stride in zip(
            x.shape[1:3], margins, spans, strides, strict=True
        )
    ]
    batch = len(x)
    values = math.prod(sizes) * width * channels  # in an image's patches
    most = max(1, PART // values)
    counts = range(1, min(batch, most) + 1)
    part = max((n for n in counts if batch % n == 0), default=1)
    wide = jax.numpy.promote_types(x.dtype, "float32")
    matrices = kernel.astype(wide).reshape(height, width * channels, filters)
    matrices = jax.numpy.swapaxes(matrices, 1, 2)

    def along(axis, images, tap):
        """Returns the rows or columns that a tap of the kernel multiplies."""
        first, step = tap * dilation[axis], strides[axis]
        last = first + (sizes[axis] - 1) * step + 1
        return lax.slice_in_dim(images, first, last, step, axis + 1)

    @jax.checkpoint
    def multiply(images, matrices):
        images = jax.numpy.pad(images, [(0, 0), *margins, (0, 0)])
        taps = [along(1, images, tap) for tap in range(width)]
        rows = jax.numpy.concatenate(taps, axis=-1).astype(wide)
        return sum(
            along(0, rows, tap).reshape(-1, width * channels) @ matrices[tap].T
            for tap in range(height)
        )

    parts = x.reshape(batch // part, part, *x.shape[1:])
    outputs = lax.map(lambda images: multiply(images, matrices), parts)
    return outputs.reshape(batch, *sizes, filters).astype(x.dtype)
