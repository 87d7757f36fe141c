"""Views of images with other orders of their axes, on PyTorch.

Before each convolution on PyTorch, Keras copies the images to channels first,
and back to channels last. PyTorch's kernels can take a view instead.
"""


def channels_first(x):
    """Returns a view, with channels first, of images with channels last."""
    return x.permute(0, 3, 1, 2)  # ONNX has no negative axes


def channels_last(x):
    """Returns a view, with channels last, of images with channels first."""
    return x.permute(0, 2, 3, 1)
