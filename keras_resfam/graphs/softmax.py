"""Finds the softmax at the end of a classifier."""

import keras

# Functions and layers hold either of the two.
_SOFTMAX = keras.activations.softmax, keras.ops.softmax


def softmax_step(steps):
    """Finds the step that turns the logits of a classifier into probabilities.

    Args:
        steps: list of `Step`, without nested models. The last one computes the
            output of the classifier.

    Returns:
        The index of the step, or `None` if the classifier returns logits.

    Raises:
        ValueError: If the last activation is neither softmax nor linear.
    """
    last = len(steps) - 1
    # In mixed precision, an identity after the softmax may change the type.
    while last > 0 and _is_identity(steps[last].operation):
        last -= 1
    operation = steps[last].operation
    activation = getattr(operation, "activation", None)
    # The operations of `keras.ops.sigmoid` and `softmax` have no public names.
    if type(operation).__name__ in ("Sigmoid", "HardSigmoid"):
        activation = keras.activations.sigmoid
    if activation not in (None, keras.activations.linear, *_SOFTMAX):
        raise ValueError(
            "`model` should end in a softmax layer or return logits. Received: "
            f"model with {steps[last].name}, with the activation {activation}"
        )
    found = activation in _SOFTMAX or is_softmax(operation)
    return last if found else None


def is_softmax(operation):
    """Returns whether an operation is a softmax and nothing else."""
    activation = getattr(operation, "activation", None)
    return type(operation).__name__ == "Softmax" or (
        activation in _SOFTMAX
        and isinstance(operation, keras.layers.Activation)
    )


def _is_identity(operation):
    """Returns whether an operation changes the type at most."""
    linear = getattr(operation, "activation", None) is keras.activations.linear
    return isinstance(operation, keras.layers.Identity) or (
        linear and isinstance(operation, keras.layers.Activation)
    )
