"""Runs a model under a condition in training."""

import keras
from keras import ops

from keras_resfam.backends.gradients import replace_gradient
from keras_resfam.backends.losses import split_losses


def run_if(condition, model, inputs):
    """Runs a model in training mode if a condition holds, else returns zeros.

    If it does not hold, the gradients are zero, and the state of the model,
    such as moving statistics, does not change. If `_branching_is_faster`,
    nothing is computed in this case.

    Args:
        condition: scalar bool tensor.
        model: `keras.Model` with one output, whose layers add no losses.
        inputs: tensor or list of tensors. The inputs of the model.

    Returns:
        A tensor of the shape of the model's output.

    Raises:
        ValueError: If a layer of the model adds a loss.
    """
    trainable = [v.value for v in model.trainable_variables]
    state = [v.value for v in model.non_trainable_variables]
    (output,), first = model.outputs, keras.tree.flatten(inputs)[0]

    def run():
        outputs, changed, losses = model.stateless_call(
            trainable, state, inputs, training=True, return_losses=True
        )
        others, _ = split_losses(model, losses)
        if others:
            raise ValueError(
                "A branch that is switched should have no other losses than "
                f"those of its weights. Received: {model.name} with "
                f"{len(others)} other losses"
            )
        return [outputs, *changed]

    def skip():
        shape = ops.shape(first)[0], *output.shape[1:]
        zeros = ops.zeros(shape, output.dtype)
        return [_zeros_for(trainable, zeros), *state]

    if None not in output.shape[1:] and _branching_is_faster():
        outputs, *changed = ops.cond(condition, run, skip)
    else:
        outputs, *changed = run()
        outputs = ops.where(condition, outputs, ops.zeros_like(outputs))
        changed = [
            old if new is old else ops.where(condition, new, old)
            for new, old in zip(changed, state, strict=True)
        ]
    pairs = zip(state, changed, strict=True)
    for v, (old, new) in zip(model.non_trainable_variables, pairs, strict=True):
        if new is not old:  # PyTorch's gradients need unchanged frozen weights
            v.assign(new)
    return outputs


def _branching_is_faster():
    """Returns whether a condition on layers is possible, and saves time.

    On JAX it does not: convolutions of XLA on CPUs are 18 times slower inside a
    condition. TensorFlow does not allow a condition around operations that
    synchronize replicas, such as batch normalization.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync == 1
    return keras.backend.backend() != "jax"


def _zeros_for(weights, zeros):
    """Returns zeros that depend on weights, with gradients of zero.

    Keras's optimizers skip weights without gradients. Their momentum and decay
    would not be applied.
    """
    if not weights:
        return zeros
    return replace_gradient(lambda *upstream: upstream, zeros, *weights)[0]
