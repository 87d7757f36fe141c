"""Models that run under a condition, in training."""

import keras
from keras import ops

from keras_resfam.backends.gradients import replace_gradient
from keras_resfam.backends.losses import split_losses


def run_if(condition, model, inputs):
    """Runs a model in training if a condition holds, and else gives zeros.

    Without it nothing is learned, which to an optimizer are gradients of
    zero, and the model's state, such as moving statistics, stays. Where
    `_branching_is_faster`, nothing is computed then either.

    Args:
        condition: scalar tensor of bools.
        model: `keras.Model` of one output, whose layers add no losses.
        inputs: tensor or list of tensors, as the model takes them.
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
                "A branch that is switched should add no losses but those of "
                f"its weights. Received: {model.name} with {len(others)} other "
                "losses"
            )
        return [outputs, *changed]

    def spare():
        shape = ops.shape(first)[0], *output.shape[1:]
        zeros = ops.zeros(shape, output.dtype)
        return [_zeros_for(trainable, zeros), *state]

    if None not in output.shape[1:] and _branching_is_faster():
        outputs, *changed = ops.cond(condition, run, spare)
    else:
        outputs, *changed = run()
        outputs = ops.where(condition, outputs, ops.zeros_like(outputs))
        changed = [
            old if new is old else ops.where(condition, new, old)
            for new, old in zip(changed, state, strict=True)
        ]
    pairs = zip(state, changed, strict=True)
    for v, (old, new) in zip(model.non_trainable_variables, pairs, strict=True):
        if new is not old:  # PyTorch's gradients want frozen weights untouched
            v.assign(new)
    return outputs


def _branching_is_faster():
    """Whether layers may be under a condition, and take less time so.

    XLA's convolutions on processors are 18 times slower under one, so on JAX
    they do not. TensorFlow refuses one around what its replicas do together,
    such as batch normalization.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync == 1
    return keras.backend.backend() != "jax"


def _zeros_for(weights, zeros):
    """Zeros in place of what depends on weights.

    The gradients of those are zero: what has none, Keras's optimizers pass
    over, with its momentum and decay.
    """
    if not weights:
        return zeros
    return replace_gradient(lambda *upstream: upstream, zeros, *weights)[0]
