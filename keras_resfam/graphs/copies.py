"""Copies of models for inference, without what affects training only."""

import keras

from keras_resfam import graphs
from keras_resfam.layers import GradientModulation


def for_inference(config, initializer=None):
    """Removes initializers, regularizers and constraints from a config.

    Args:
        config: dict. The config of a layer.
        initializer: str. Replaces all initializers. Defaults to `None`, which
            leaves Keras's default initializers.

    Returns:
        A dict.
    """
    result = {}
    for key, value in config.items():
        if not key.endswith("_initializer"):
            training_only = key.endswith(("_regularizer", "_constraint"))
            result[key] = None if training_only else value
        elif initializer is not None:
            result[key] = initializer
    return result


def checked(model):
    """Returns the model, or raises a `ValueError` if it cannot be copied."""
    if not graphs.is_graph(model) or not model.built:
        raise ValueError(
            "`model` should be a functional or sequential `keras.Model` that "
            f"is built. Received: model={model}"
        )
    return model


def copy(
    model,
    graph,
    copy_layer,
    weights,
    copy_model,
    gone=(),
    whole=(),
    before=lambda layer: (),
):
    """Returns a copy of a model, made layer by layer.

    `GradientModulation` is left out.

    Args:
        model: functional or sequential `keras.Model`.
        graph: `Graph`. The graph of the model.
        copy_layer: callable. Takes a layer and returns its replacement.
        weights: callable. Takes a layer and returns the list of arrays of its
            replacement.
        copy_model: callable. Takes a nested model and returns its copy.
        gone: collection of layers with one input to leave out. Defaults to
            `()`.
        whole: collection of nested models that `copy_layer` copies. Defaults
            to `()`.
        before: callable. Takes a layer and returns a list of layers to insert
            before its replacement. Defaults to one that returns none.

    Returns:
        A functional `keras.Model`.
    """
    model = graphs.shell(model)
    passed = {layer: _identity for layer in gone}
    passed |= {layer: _unlinked for layer in _modulations(graph)}
    copies = []

    def is_copied_model(layer):
        return graphs.is_graph(layer) and layer not in whole

    def clone(layer):
        if layer in passed:
            return passed[layer]
        if is_copied_model(layer):
            return copy_model(layer)
        made = copy_layer(layer)
        copies.append((layer, made))
        first = before(layer)
        return _in_turn(*first, made) if first else made

    result = keras.models.clone_model(model, _clone_inputs(model), clone)
    for original, layer in copies:
        if not isinstance(layer, keras.Layer):  # an operation of keras.ops
            continue
        layer.set_weights(in_order(weights(original), original, layer))
        finalize(layer)
    return result


def _in_turn(*layers):
    """Returns a function that calls several layers in turn."""

    def call(x):
        for layer in layers:
            x = layer(x)
        return x

    return call


def finalize(layer):
    """Makes `keras.layers.Normalization` use the moments in its weights.

    Args:
        layer: `keras.Layer`. The layer, or a model or wrapper that contains
            it.
    """
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    for inner in (*getattr(layer, "layers", ()), getattr(layer, "layer", None)):
        if isinstance(inner, keras.Layer):
            finalize(inner)


def in_order(values, original, layer):
    """Returns the values of a layer in the order of the weights of its copy.

    The order differs for a layer that was quantized to float8. Keras creates
    its scales last, but in a new layer it creates them first.

    Args:
        values: list of arrays, in the order of `original.weights`.
        original: `keras.Layer`.
        layer: `keras.Layer`. The copy.
    """
    names, wanted = ([w.name for w in x.weights] for x in (original, layer))
    if len({*names}) < len(names) or sorted(names) != sorted(wanted):
        return values
    by_name = dict(zip(names, values, strict=True))
    return [by_name[name] for name in wanted]


def _identity(inputs, **kwargs):
    return inputs


def _unlinked(x, link=None, training=None):
    return x, None


def _modulations(graph):
    """Returns the modulation layers whose link no other layer reads."""
    chain = [s for s in graph.steps if type(s.operation) is GradientModulation]
    others = [x for s in graph.steps if s not in chain for x in s.inputs]
    read = {id(x) for x in [*graph.outputs, *others]}
    exposed = {s.operation for s in chain if id(s.outputs[1]) in read}
    return {s.operation for s in chain} - exposed


def _clone_inputs(model):
    """Returns copies of the model's inputs, in the same structure."""
    clones = {
        id(layer.output): type(layer).from_config(layer.get_config()).output
        for layer in model.layers
        if isinstance(layer, keras.layers.InputLayer)
    }
    return keras.tree.map_structure(lambda x: clones[id(x)], model.input)
