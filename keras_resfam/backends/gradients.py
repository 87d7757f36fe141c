"""Gradients of scalar functions, and a gradient of one's own for an identity.

Keras has no function for the former. For the latter its `custom_gradient`
takes one output on torch, and hands several upstream gradients over differently
on TensorFlow and JAX.
"""

import contextlib
import functools
import threading

import keras

_local = threading.local()  # other threads train as ever


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
        backwards = getattr(_local, "recorded", None)
        if backwards is None:
            return torch_identity().apply(backward, *tensors)
        backwards.append(backward)
        return tuple(torch_mark()(tensors, len(backwards) - 1))

    @keras.ops.custom_gradient
    def identity(*tensors):
        def gradient(*upstream):
            # JAX passes one tuple of all, TensorFlow one argument for each.
            return backward(*(upstream[0] if len(upstream) == 1 else upstream))

        return tensors, gradient

    return identity(*tensors)


def gradient(function, x):
    """Returns the gradient of a scalar function, which is not compiled.

    Args:
        function: callable of a tensor. What it assigns to variables is lost.
        x: tensor, where the gradient is taken.
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


@functools.cache  # one class for all calls, or torch.compile gives up
def torch_identity():
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
    """Has `replace_gradient` leave marks in what this thread records.

    A record holds the forward pass alone. Of the marks
    `compiling.passes.put_back_gradients` makes what they stand for.

    Yields:
        The list of the backward passes, in the order of the calls.
    """
    _local.recorded = []
    try:
        yield _local.recorded
    finally:
        del _local.recorded


@functools.cache  # an operation is defined once
def torch_mark():
    import torch

    @torch.library.custom_op("keras_resfam::identity", mutates_args=())
    def mark(tensors: list[torch.Tensor], index: int) -> list[torch.Tensor]:
        return [tensor.clone() for tensor in tensors]

    mark.register_fake(
        lambda tensors, index: list(map(torch.empty_like, tensors))
    )
    return torch.ops.keras_resfam.identity.default
