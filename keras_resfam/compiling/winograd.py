"""3x3 convolutions with a quarter of the multiplications, on PyTorch.

For one channel, a convolution computes 4x4 outputs from 6x6 inputs with 144
multiplications. Winograd's algorithm transforms the rows and then the columns
of the inputs to 36 numbers, and those of the kernel to 36 others. It multiplies
these pairwise, and transforms the rows and columns of the products to the
outputs. For several channels, these are 36 matrix products.

This module imports PyTorch, so it is imported only where a network is compiled.

Reference: Lavin & Gray 2015, [Fast Algorithms for Convolutional Neural
Networks](https://arxiv.org/abs/1509.09308), section 4.3, F(4 x 4, 3 x 3).
"""

import functools

import torch

from keras_resfam.backends.memory import channels_first, channels_last
from keras_resfam.compiling.compiler import compile_for_processor

_TILE = 4  # rows and columns of outputs in a tile
_SPAN = 6  # rows and columns of inputs that they depend on
OF_INPUTS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OF_KERNELS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OF_OUTPUTS = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
# With fewer channels, the transformations take longer than the products save.
# With fewer tiles, that of the kernel does.
_CHANNELS = 64
_TILES = 128
# The number of values that should fit into the cache: 16 MiB.
PART = 2**22


def is_faster(x, kernel):
    """Returns whether `convolution` is faster than PyTorch's.

    This was measured on processors with AVX2 but not AVX-512. Those with
    AVX-512 multiply faster, so fewer multiplications save less time.
    """
    filters, channels, *size = kernel.shape
    images, _, height, width = x.shape
    return (
        size == [3, 3]
        and {x.dtype, kernel.dtype} == {torch.float32}
        and x.device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
        and height % _TILE == width % _TILE == 0
        and min(channels, filters) >= _CHANNELS
        and images * (height // _TILE) * (width // _TILE) >= _TILES
    )


# PyTorch stores compiled programs on disk by the names of their operations. If
# the gradient of this operation changes, its name has to change.
@torch.library.custom_op("keras_resfam::winograd", mutates_args=())
def convolution(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Convolves images, padded by one row and column of zeros on each side.

    Args:
        x: float32 tensor of shape `(batch, channels, height, width)`, whose
            sides are multiples of 4.
        kernel: float32 tensor of shape `(filters, channels, 3, 3)`.

    Returns:
        A tensor of shape `(batch, filters, height, width)`. In memory, its
        channels are last. This order is also the fastest for `x`.
    """
    matrices = _compiled(_from_kernel)(kernel)
    outputs = _outputs(x, kernel)
    for images, part in _parts(x, outputs):
        _compiled(_convolve)(images, matrices, part)
    return outputs


@torch.library.custom_op("keras_resfam::winograd_kernel", mutates_args=())
def gradient(x: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """Returns the gradient of `convolution` by the kernel.

    Args:
        x: tensor. The images.
        error: tensor. The gradient by the outputs.
    """
    matrices = x.new_zeros(_SPAN**2, x.shape[1], error.shape[1])
    for images, part in _parts(x, error):
        _compiled(_accumulate)(images, part, matrices)
    return _compiled(_to_kernel)(matrices)


def _outputs(x, kernel):
    batch, _, height, width = x.shape
    return channels_first(x.new_empty(batch, height, width, len(kernel)))


convolution.register_fake(_outputs)


@gradient.register_fake
def _(x, error):
    return channels_first(x.new_empty(error.shape[1], 3, 3, x.shape[1]))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, error):
    x, kernel = ctx.saved_tensors
    by_x = by_kernel = None
    if ctx.needs_input_grad[0]:
        by_x = convolution(error, kernel.flip(2, 3).transpose(0, 1))
    if ctx.needs_input_grad[1]:
        by_kernel = gradient(x, error)
    return by_x, by_kernel


convolution.register_autograd(_backward, setup_context=_save)


def put_in(graph):
    """Replaces the convolutions of a graph if `is_faster`.

    Args:
        graph: `torch.fx.Graph`. It is changed.
    """
    aten = torch.ops.aten
    for target in aten.conv2d.default, aten.conv2d.padding:
        for node in graph.find_nodes(op="call_function", target=target):
            x, kernel, *rest = node.args
            bias, *geometry = rest or [None]
            plain = geometry in ([[1, 1], [1, 1]], [[1, 1], "same"])
            if not plain or not is_faster(x.meta["val"], kernel.meta["val"]):
                continue
            with graph.inserting_before(node):
                outputs = graph.call_function(
                    torch.ops.keras_resfam.winograd.default, (x, kernel)
                )
                if bias is not None:
                    bias = graph.call_function(
                        aten.view.default, (bias, [-1, 1, 1])
                    )
                    outputs = graph.call_function(
                        aten.add.Tensor, (outputs, bias)
                    )
            node.replace_all_uses_with(outputs)
            graph.erase_node(node)


def _parts(x, outputs):
    """Yields padded images with channels last, and their outputs.

    The number of images is that whose products fit into the cache.
    """
    batch, channels, height, width = x.shape
    values = max(channels, outputs.shape[1]) * height * width
    part = max(1, PART * _TILE**2 // _SPAN**2 // values)
    for first in range(0, batch, part):
        of_part = slice(first, first + part)
        images = channels_last(x[of_part])
        # The last part is not a slice of the buffer, because PyTorch would
        # compile the programs again for it.
        if first == 0 or len(images) < part:
            padded = x.new_zeros(len(images), height + 2, width + 2, channels)
        padded[:, 1:-1, 1:-1].copy_(images)
        yield padded, channels_last(outputs[of_part])


# Each of these two functions is one program, because a call of a program takes
# a fifth of a millisecond.
def _convolve(images, matrices, outputs):
    """Writes the outputs, of shape `(batch, height, width, filters)`."""
    _to_outputs(torch.bmm(_from_images(images), matrices), outputs)


def _accumulate(images, errors, matrices):
    """Adds to the gradient by matrices of shape `(36, channels, filters)`."""
    tiles = _from_images(images)
    matrices.baddbmm_(tiles.mT, _from_errors(errors))


def _from_kernel(kernel):
    """Transforms a kernel to shape `(36, channels, filters)`."""
    rows = _combined(OF_KERNELS, kernel.unbind(2), 0)
    matrices = _combined(OF_KERNELS, rows.unbind(-1), 1)
    return matrices.flatten(0, 1).mT


def _to_kernel(matrices):
    """Transforms the gradient by matrices to that by the kernel."""
    matrices = matrices.mT.unflatten(0, (_SPAN, _SPAN))
    rows = _combined(_transposed(OF_KERNELS), matrices.unbind(0), 2)
    kernel = _combined(_transposed(OF_KERNELS), rows.unbind(0), 2)
    return channels_first(kernel)


def _from_images(images):
    """Transforms images to shape `(36, tiles, channels)`."""
    rows = [_strided(images, 1, row) for row in range(_SPAN)]
    rows = _combined(OF_INPUTS, rows, 0)
    columns = [_strided(rows, 3, column) for column in range(_SPAN)]
    tiles = _combined(OF_INPUTS, columns, 1)
    return tiles.reshape(_SPAN**2, -1, images.shape[-1])


def _to_outputs(products, outputs):
    """Transforms products, and writes the outputs to `outputs`."""
    batch, height, width, filters = outputs.shape
    shape = _SPAN, _SPAN, batch, height // _TILE, width // _TILE, filters
    rows = _combined(OF_OUTPUTS, products.reshape(shape).unbind(0), 3)
    tiles = _combined(OF_OUTPUTS, rows.unbind(0), 4)
    outputs.copy_(tiles.reshape(outputs.shape))


def _from_errors(errors):
    """Transforms the gradient by outputs to shape `(36, tiles, filters)`."""
    tiles = errors.unflatten(2, (-1, _TILE)).unflatten(1, (-1, _TILE))
    rows = _combined(_transposed(OF_OUTPUTS), tiles.unbind(2), 0)
    products = _combined(_transposed(OF_OUTPUTS), rows.unbind(4), 1)
    return products.reshape(_SPAN**2, -1, errors.shape[-1])


def _strided(padded, axis, first):
    """Returns every fourth row or column of padded images."""
    last = padded.shape[axis] - _SPAN + first
    index = [slice(None)] * axis
    return padded[(*index, slice(first, last + 1, _TILE))]


def _combined(matrix, tensors, axis):
    """Returns a linear combination of tensors for each row of a matrix."""
    return torch.stack(
        [
            sum(f * x for f, x in zip(row, tensors, strict=True) if f)
            for row in matrix
        ],
        axis,
    )


def _transposed(matrix):
    return tuple(zip(*matrix, strict=True))


@functools.cache
def _compiled(function):
    return compile_for_processor(function, dynamic=True)
