"""A gradient of one's own for an identity with several tensors.

`keras.ops.custom_gradient` takes one output on torch, and hands several
upstream gradients over differently on TensorFlow and JAX.
"""

import functools

import keras


def replace_gradient(backward, *tensors):
    """Returns `tensors` as they are, with another backward pass.

    Args:
        backward: callable. Takes the gradients that arrive at the outputs,
            and returns as many for the inputs.
        tensors: two tensors or more.

    Returns:
        A tuple of tensors equal to `tensors`.
    """
    if keras.backend.backend() == "torch":
        return _torch_identity().apply(backward, *tensors)

    @keras.ops.custom_gradient
    def identity(*tensors):
        def gradient(*upstream):
            # JAX passes one tuple of all, TensorFlow one argument for each.
            return backward(*(upstream[0] if len(upstream) == 1 else upstream))

        return tensors, gradient

    return identity(*tensors)


@functools.cache  # one class for all calls, or torch.compile gives up
def _torch_identity():
    import torch

    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(context, backward, *tensors):
            context.replacement = backward
            return tuple(tensor.view_as(tensor) for tensor in tensors)

        @staticmethod
        def backward(context, *upstream):
            return None, *context.replacement(*upstream)

    return Identity
