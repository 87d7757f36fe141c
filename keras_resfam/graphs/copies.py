"""Copies of models for inference, without what acts in training only."""

import keras

from keras_resfam import graphs
from keras_resfam.layers import GradientModulation


def for_inference(config, initializer=None):
    """A layer's config without what acts before weights have their last values.

    Args:
        config: dict.
        initializer: str. Takes the place of all initializers. Defaults to
            `None`, those that Keras has by default.
    """
    found = {}
    for key, value in config.items():
        if not key.endswith("_initializer"):
            judges = key.endswith(("_regularizer", "_constraint"))
            found[key] = None if judges else value
        elif initializer is not None:
            found[key] = initializer
    return found


def checked(model):
    """The model, if it can be copied; a `ValueError` otherwise."""
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

    Args:
        model: functional or sequential `keras.Model`.
        graph: `Graph` of it.
        copy_layer: callable that returns a layer's place-taker.
        weights: callable that returns the arrays for it.
        copy_model: callable that copies the models among the layers.
        gone: layers of one input that are left out, besides
            `GradientModulation`.
        whole: models that are copied as layers are.
        before: callable that returns the layers to stand before a layer's
            place-taker.
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
    def call(x):
        for layer in layers:
            x = layer(x)
        return x

    return call


def finalize(layer):
    """Lets normalizations use the moments that they have been given.

    Args:
        layer: `keras.Layer`. It is one, or a model or a wrapper of some.
    """
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    for inner in (*getattr(layer, "layers", ()), getattr(layer, "layer", None)):
        if isinstance(inner, keras.Layer):
            finalize(inner)


def in_order(values, original, layer):
    """The values of a layer's weights in the order of its copy's.

    Of a layer that was quantized to float8 Keras makes the scales last, and
    where it makes it anew, first.
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
    """The layers of modulation whose link nothing else reads."""
    chain = [s for s in graph.steps if type(s.operation) is GradientModulation]
    others = [x for s in graph.steps if s not in chain for x in s.inputs]
    read = {id(x) for x in [*graph.outputs, *others]}
    exposed = {s.operation for s in chain if id(s.outputs[1]) in read}
    return {s.operation for s in chain} - exposed


def _clone_inputs(model):
    """New inputs in the structure of the model's, by the same names."""
    clones = {
        id(layer.output): type(layer).from_config(layer.get_config()).output
        for layer in model.layers
        if isinstance(layer, keras.layers.InputLayer)
    }
    return keras.tree.map_structure(lambda x: clones[id(x)], model.input)
