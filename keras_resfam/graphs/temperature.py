"""Probabilities that are as high as the share of right answers."""

import keras

from keras_resfam import graphs
from keras_resfam._checks import check_number
from keras_resfam.graphs import copies


def with_temperature(model, temperature):
    """Returns a copy of a classifier whose logits are divided by a number.

    Temperature scaling ([Guo et al. 2017](https://arxiv.org/abs/1706.04599))
    makes the probabilities of a network lower (above 1) or higher (below 1).
    It leaves the order of the classes as it is, and so the accuracy. The model
    cards in `weights/` give a temperature where one has been measured.

    The kernel and the bias of the last layer are divided, so the copy has the
    layers of `model` and can be saved, folded and exported like it.
    `GradientModulation`, which acts in training only, is left out.

    Args:
        model: `keras.Model`. A functional or sequential model whose last layer
            is a `keras.layers.Dense` with softmax or without activation. Its
            weights stay as they are.
        temperature: Positive float.

    Returns:
        A functional `keras.Model` with the inputs, outputs and name of
        `model`, and weights of its own. It is not compiled.

    Raises:
        ValueError: If `model` is not such a model or not built, or
            `temperature` is not a positive finite number.
        Exception: What Keras raises for a layer that its own config cannot
            rebuild, such as a `Lambda` of a Python function.

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
    """The layer that gives the logits, if it is one that can be scaled."""
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
            "`model` should end in one `keras.layers.Dense` that has softmax "
            "or no activation and is neither shared nor quantized. "
            f"Received: model={graph.name}, which ends in "
            f"{', '.join(s.name for s in steps) or 'no layer'}"
        )
    return layer
