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

# The channels of oneDNN's blocks with AVX-512; with AVX2 they have 8.
_BLOCK = 16


def takes_pixels_first(kernel, strides):
    """Whether to skip pixels before the convolution, and not in it.

    The results are the same. But oneDNN, which convolves for TensorFlow and
    PyTorch, writes past its memory in the gradient of a 1 x 1 kernel with
    strides, if the kernel takes fewer channels than a block has.

    Args:
        kernel: tensor of shape `(height, width, channels / groups, filters)`.
        strides: pair of ints.
    """
    height, width, channels, _ = kernel.shape
    return height == width == 1 and channels < _BLOCK and max(strides) > 1


def every(strides, images, data_format="channels_last"):
    """The pixels that a 1 x 1 kernel meets on its way through images."""
    rows, columns = (slice(None, None, stride) for stride in strides)
    if data_format == "channels_first":
        return images[:, :, rows, columns]
    return images[:, rows, columns]


def convolves_views():
    """Whether `convolution` does what Keras does, with less copying."""
    return keras.backend.backend() == "torch"


def convolution(
    x, kernel, bias, strides, padding, dilation, groups, data_format
):
    """Convolves images on PyTorch.

    Args:
        x: tensor of shape `(batch, height, width, channels)`, or what
            `data_format` says.
        kernel: tensor of shape `(height, width, channels / groups, filters)`.
        bias: tensor of shape `(filters,)`, or `None`.
        strides: pair of ints.
        padding: `"valid"`, `"same"`, or an int, as many zeros on each side.
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
        images, strides = every(strides, images, "channels_first"), (1, 1)
    dtype = images.dtype
    if max(dilation) > 1 and dtype.itemsize == 2 and images.is_cpu:
        # PyTorch's gradient of the kernel is noise there.
        images, kernel = images.float(), kernel.float()
        bias = None if bias is None else bias.float()
    filters_first = kernel.permute(3, 2, 0, 1)
    if kernel.shape[3] == 1:
        # PyTorch takes one filter of channels last for one of channels first,
        # and fails at its gradient.
        filters_first = filters_first.contiguous()
    outputs = torch.nn.functional.conv2d(
        images, filters_first, bias, strides, before, dilation, groups
    ).to(dtype)
    return channels_last(outputs) if last else outputs


def _margins(sizes, kernel_size, strides, padding, dilation):
    """The zeros before and behind the rows, and the columns, of images."""
    if padding != "same":
        margins = (0 if padding == "valid" else padding,) * 2
        return margins, margins
    geometry = zip(sizes, strides, _spans(kernel_size, dilation), strict=True)
    zeros = [
        max(0, (-(-size // stride) - 1) * stride + span - size)
        for size, stride, span in geometry
    ]
    # As Keras has it: an odd zero is behind the images.
    before = tuple(n // 2 for n in zeros)
    return before, tuple(n - n // 2 for n in zeros)


def _spans(kernel_size, dilation):
    """The rows, and columns, that a dilated kernel reaches over."""
    return [
        rate * (size - 1) + 1
        for size, rate in zip(kernel_size, dilation, strict=True)
    ]


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

    @jax.custom_jvp
    def operation(x, kernel):
        return convolve(x, kernel)

    @operation.defjvp
    def derivative(primals, tangents):
        (x, kernel), (by_x, by_kernel) = primals, tangents
        products = _products(x, by_kernel, strides, padding, dilation)
        return operation(x, kernel), convolve(by_x, kernel) + products

    return operation(x, kernel)


# What a part of the batch may take of a processor's cache: 2 MiB of float32.
PART = 2**19


def _products(x, kernel, strides, padding, dilation):
    """A convolution as products of matrices, in float32 at least.

    JAX turns it round for the gradient by the kernel: the sum over the images
    of `error^T patches`. It is a part of the images after the other, whose
    patches stay in the cache, and are made again where they are wanted again.
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
    row = math.prod(sizes) * width * channels  # of an image's patches
    most = max(1, PART // row)
    counts = range(1, min(batch, most) + 1)
    part = max((n for n in counts if batch % n == 0), default=1)
    wide = jax.numpy.promote_types(x.dtype, "float32")
    matrices = kernel.astype(wide).reshape(height, width * channels, filters)
    matrices = jax.numpy.swapaxes(matrices, 1, 2)

    def along(axis, images, tap):
        """The rows or columns that a tap of the kernel meets."""
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
