"""Compiled inference, shared by several models, and gradients by an input.

Keras has no public function for either.
"""

import functools

import keras


def shared_inference(template):
    """Compiles the inference of a model, with its weights as arguments.

    It is compiled once for all models of the same architecture. On PyTorch,
    models run eagerly.

    Args:
        template: `keras.Model`.

    Returns:
        A callable that takes a model of the same architecture and returns the
        function that runs it, from a list of tensors to a list of tensors.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return lambda model: functools.partial(_run_in_torch, model)

    # With a partial object, TensorFlow does not warn of repeated tracing: it
    # counts the traces of functions with the same code.
    call = _compile(functools.partial(_infer, template), backend)

    def bind(model):
        # These properties walk through all layers, so they are read once.
        trainable = model.trainable_variables
        non_trainable = model.non_trainable_variables

        def run(inputs):
            return call(
                [v.value for v in trainable],
                [v.value for v in non_trainable],
                inputs,
            )

        return run

    return bind


def compiled_inference(model):
    """Compiles the inference of a model on TensorFlow and JAX.

    Args:
        model: `keras.Model`. Its variables must not be replaced afterward.

    Returns:
        A callable that takes the inputs of the model and returns a list of
        tensors.
    """
    if keras.backend.backend() == "tensorflow":
        # The function captures the weights, which is faster than arguments.
        return _compile(
            lambda x: keras.tree.flatten(model(x, training=False)), "tensorflow"
        )
    return shared_inference(model)(model)


def _infer(template, trainable, non_trainable, inputs):
    outputs, _ = template.stateless_call(
        trainable, non_trainable, inputs, training=False
    )
    return keras.tree.flatten(outputs)


def _compile(function, backend):
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if backend == "jax":
        import jax

        return jax.jit(function)
    raise ValueError(
        "The backend should be tensorflow, jax or torch. "
        f"Received: backend={backend}"
    )


def _run_in_torch(model, inputs):
    import torch

    with torch.no_grad():
        return keras.tree.flatten(model(inputs, training=False))


def input_gradient(model, loss):
    """Compiles the gradient of a loss by the first input of a model.

    The model runs in inference mode. On PyTorch, it is not compiled.

    Args:
        model: `keras.Model` that takes a list of inputs.
        loss: callable. Takes `(outputs, labels)` and returns a scalar.

    Returns:
        A callable that takes `(inputs, labels)`, where `inputs` is a list of
        tensors, and returns a tensor of the shape of the first input.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return _torch_gradient(model, loss)
    if backend == "jax":
        return _jax_gradient(model, loss)
    return _tensorflow_gradient(model, loss)


def _tensorflow_gradient(model, loss):
    import tensorflow as tf

    @tf.function
    def gradient(inputs, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs[0])
            value = loss(model(inputs, training=False), labels)
        return tape.gradient(value, inputs[0])

    return gradient


def _jax_gradient(model, loss):
    import jax

    def value(x, others, trainable, non_trainable, labels):
        outputs, _ = model.stateless_call(
            trainable, non_trainable, [x, *others], training=False
        )
        return loss(outputs, labels)

    compiled_gradient = jax.jit(jax.grad(value))

    def gradient(inputs, labels):
        return compiled_gradient(
            inputs[0],
            inputs[1:],
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            labels,
        )

    return gradient


def _torch_gradient(model, loss):
    import torch

    def gradient(inputs, labels):
        x = inputs[0].detach().requires_grad_()
        value = loss(model([x, *inputs[1:]], training=False), labels)
        return torch.autograd.grad(value, x)[0]

    return gradient
