"""Gradients of scalar functions, and identities with a custom gradient.

Keras has no function for the former. Its `custom_gradient` is not enough for
the latter: it takes only one output on PyTorch, and passes several upstream
gradients in different ways on TensorFlow and JAX.
"""

import contextlib
import functools
import threading

import keras

_local = threading.local()  # recording must not affect other threads


def replace_gradient(backward, *tensors):
    """Returns `tensors` unchanged, but replaces their backward pass.

    Args:
        backward: callable. Takes the gradients of the outputs, and returns
            those of the inputs.
        tensors: two tensors or more.

    Returns:
        A tuple of tensors equal to `tensors`.
    """
    if keras.backend.backend() == "torch":
        backwards = getattr(_local, "recorded", None)
        if backwards is None:
            return torch_identity().apply(backward, *tensors)
        backwards.append(backward)
        return tuple(torch_mark()(tensors, len(backwards) - 1))

    @keras.ops.custom_gradient
    def identity(*tensors):
        def gradient(*upstream):
            # JAX passes one tuple, TensorFlow one argument per gradient.
            return backward(*(upstream[0] if len(upstream) == 1 else upstream))

        return tensors, gradient

    return identity(*tensors)


def gradient(function, x):
    """Returns the gradient of a scalar function, without compiling it.

    Args:
        function: callable. Takes a tensor and returns a scalar tensor. Its
            assignments to variables are lost.
        x: tensor. The point at which the gradient is computed.

    Returns:
        A tensor of the shape of `x`.
    """

    def value(x):
        with keras.StatelessScope():
            return function(x)

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        x = x.detach().requires_grad_()
        return torch.autograd.grad(value(x), x)[0]
    if backend == "jax":
        import jax

        return jax.grad(value)(x)
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = value(x)
    return tape.gradient(y, x)


@functools.cache  # torch.compile needs the same class in all calls
def torch_identity():
    """Returns the autograd function of `replace_gradient` on PyTorch."""
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


@contextlib.contextmanager
def recorded():
    """Context manager for `replace_gradient` while this thread records a graph.

    A recorded graph has the forward pass only. In this context,
    `replace_gradient` inserts a mark into the graph, which
    `compiling.passes.put_back_gradients` later replaces by the operation with
    the custom gradient.

    Yields:
        The list of the backward functions, in the order of the calls.
    """
    _local.recorded = []
    try:
        yield _local.recorded
    finally:
        del _local.recorded


@functools.cache  # an operation can be defined only once
def torch_mark():
    """Returns the operation that marks a `replace_gradient` in a graph."""
    import torch

    @torch.library.custom_op("keras_resfam::identity", mutates_args=())
    def mark(tensors: list[torch.Tensor], index: int) -> list[torch.Tensor]:
        return [tensor.clone() for tensor in tensors]

    mark.register_fake(
        lambda tensors, index: list(map(torch.empty_like, tensors))
    )
    return torch.ops.keras_resfam.identity.default
