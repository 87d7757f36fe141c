"""Gradients on whatever backend the tests run under.

Keras has no function for it: each backend's own is called here.
"""

import keras
import numpy as np


def gradients(function, arrays, jit=False):
    """Returns the gradients of a scalar function as NumPy arrays.

    Args:
        function: callable of as many tensors as there are arrays. What it
            assigns to variables is lost.
        arrays: sequence of NumPy arrays.
        jit: bool. Whether to compile. On torch, which Keras runs eagerly, it
            changes nothing.
    """

    def stateless(*tensors):
        with keras.StatelessScope():
            return function(*tensors)

    backends = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    found = backends[keras.backend.backend()](stateless, arrays, jit)
    return [np.asarray(keras.ops.convert_to_numpy(g)) for g in found]


def _tensorflow(function, arrays, jit):
    import tensorflow as tf

    @tf.function(jit_compile=jit)
    def differentiate(tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return tape.gradient(value, tensors)

    return differentiate([tf.convert_to_tensor(a) for a in arrays])


def _jax(function, arrays, jit):
    import jax

    differentiate = jax.grad(function, argnums=tuple(range(len(arrays))))
    return (jax.jit(differentiate) if jit else differentiate)(
        *[keras.ops.convert_to_tensor(a) for a in arrays]
    )


def _torch(function, arrays, jit):
    import torch

    device = keras.ops.zeros(()).device  # where Keras computes
    tensors = [
        torch.tensor(a, requires_grad=True, device=device) for a in arrays
    ]
    return [
        g.detach() for g in torch.autograd.grad(function(*tensors), tensors)
    ]
