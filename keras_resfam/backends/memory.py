"""The order in which images lie in PyTorch's memory.

Before each convolution on PyTorch, Keras copies the images to channels first,
and back to channels last. PyTorch's convolution takes a view of them.
"""


def channels_first(x):
    """Views images of channels last, on PyTorch, as its kernels take them."""
    return x.permute(0, 3, 1, 2)  # ONNX has no negative axes


def channels_last(x):
    return x.permute(0, 2, 3, 1)
