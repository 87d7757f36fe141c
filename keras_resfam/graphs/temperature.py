"""Calibrates classifiers by a temperature."""

import keras

from keras_resfam import graphs
from keras_resfam._checks import check_number
from keras_resfam.graphs import copies


def with_temperature(model, temperature):
    """Returns a copy of a classifier with its logits divided by a temperature.

    A temperature above 1 makes the largest probabilities lower, and one below 1
    makes them higher. The order of the classes, and therefore the accuracy, do
    not change. The model cards in `weights/` state the temperatures that have
    been measured.

    The kernel and the bias of the last layer are divided, so the copy has the
    layers of `model`, and can be saved, folded and exported like it.
    `GradientModulation` is left out because it affects training only.

    Reference: Guo et al. 2017, [On Calibration of Modern Neural Networks](
    https://arxiv.org/abs/1706.04599).

    Args:
        model: functional or sequential `keras.Model`. Its last layer is a
            `keras.layers.Dense` with softmax or without activation. It is not
            changed.
        temperature: float, above 0.

    Returns:
        A functional `keras.Model` with the inputs, outputs and name of
        `model`, and new weights. It is not compiled.

    Raises:
        ValueError: If `model` is of another kind or not built, or if
            `temperature` is not a finite number above 0.
        Exception: If Keras cannot rebuild a layer from its config, such as a
            `Lambda` of a Python function. The type depends on the layer.

    Example:

    ```python
    model = keras_resfam.DMRNet(depth=14, weights="cifar10")
    calibrated = keras_resfam.with_temperature(model, 0.9)
    ```
    """
    check_number("temperature", temperature, above=0)
    last = _last_dense(graphs.read(copies.checked(model)))

    def clone(layer):
        return type(layer).from_config(layer.get_config())

    def weights(layer):
        values = layer.get_weights()
        return [x / temperature for x in values] if layer is last else values

    def copy(part):
        return copies.copy(part, graphs.read(part), clone, weights, copy)

    return copy(model)


def _last_dense(graph):
    """Returns the layer that computes the logits, after checking it."""
    outputs = {id(x) for x in graph.outputs}
    steps = [
        s for s in graph.steps if not outputs.isdisjoint(map(id, s.outputs))
    ]
    layer = steps[0].operation if len(steps) == 1 else None
    calls = sum(step.operation is layer for step in graph.steps)
    activations = keras.activations.softmax, keras.activations.linear
    if (
        type(layer) is not keras.layers.Dense
        or calls > 1
        or layer.activation not in activations
        or not {"kernel", "bias"}.issuperset(w.name for w in layer.weights)
    ):
        raise ValueError(
            "`model` should end in a single `keras.layers.Dense` with softmax "
            "or without activation, neither shared nor quantized. "
            f"Received: model={graph.name}, which ends in "
            f"{', '.join(s.name for s in steps) or 'no layer'}"
        )
    return layer
