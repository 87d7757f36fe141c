"""Finds the softmax at the end of a classifier."""

import keras

# Functions and layers hold either of the two.
_SOFTMAX = keras.activations.softmax, keras.ops.softmax


def softmax_step(steps):
    """Finds the step by which a classifier turns logits into probabilities.

    Args:
        steps: list of `Step`, without nested models. The last one computes the
            output of the classifier.

    Returns:
        The index of the step, or `None` if the classifier ends in logits.

    Raises:
        ValueError: If it ends in another activation than softmax.
    """
    last = len(steps) - 1
    # In mixed precision an identity behind the softmax may change the type.
    while last > 0 and _is_identity(steps[last].operation):
        last -= 1
    operation = steps[last].operation
    activation = getattr(operation, "activation", None)
    # What is behind `keras.ops.sigmoid` and `softmax` has no public name.
    if type(operation).__name__ in ("Sigmoid", "HardSigmoid"):
        activation = keras.activations.sigmoid
    if activation not in (None, keras.activations.linear, *_SOFTMAX):
        raise ValueError(
            "`model` should end in a softmax layer, or in logits. Received: "
            f"model with {steps[last].name}, of the activation {activation}"
        )
    found = activation in _SOFTMAX or is_softmax(operation)
    return last if found else None


def is_softmax(operation):
    """Whether an operation is a softmax and nothing else."""
    activation = getattr(operation, "activation", None)
    return type(operation).__name__ == "Softmax" or (
        activation in _SOFTMAX
        and isinstance(operation, keras.layers.Activation)
    )


def _is_identity(operation):
    """Whether an operation does nothing, such as changing the type."""
    linear = getattr(operation, "activation", None) is keras.activations.linear
    return isinstance(operation, keras.layers.Identity) or (
        linear and isinstance(operation, keras.layers.Activation)
    )
