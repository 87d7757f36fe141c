"""The order in which images and kernels lie in PyTorch's memory.

Before each convolution on PyTorch, Keras copies the images to channels first,
and back to channels last, and PyTorch the kernel into an order of its own.
PyTorch's kernels take a view of either.
"""

import keras


def channels_first(x):
    """Views images of channels last, on PyTorch, as its kernels take them."""
    return x.permute(0, 3, 1, 2)  # ONNX has no negative axes


def channels_last(x):
    return x.permute(0, 2, 3, 1)


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
