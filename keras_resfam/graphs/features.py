"""Feature maps inside a network, and models without nested models."""

import collections
import re

import keras

from keras_resfam import graphs
from keras_resfam._checks import is_iterable
from keras_resfam.graphs.copies import checked, finalize, in_order
from keras_resfam.graphs.graph import check_names, flat

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_.*")

_HEAD = re.compile("head_(bn|relu|concat)")
"""The layers after the last block that have its resolution."""


def flatten_model(model):
    """Returns a copy of a model with nested models replaced by their layers.

    A fine-tuned network often has its backbone as a single layer. The layers
    of the backbone are then in another graph than the input and output. In the
    copy, all layers are in one graph, which connects the feature map of each
    layer to the input and to the output.

    Args:
        model: functional or sequential `keras.Model`. It is not changed.

    Returns:
        A functional `keras.Model` of copies of the layers, with the same names
        and new weights. It is not compiled.

    Raises:
        ValueError: If `model` is neither functional nor sequential, or not
            built, or if two layers have the same name.
        Exception: If Keras cannot rebuild a layer from its config. The type
            depends on the layer.

    Example:

    ```python
    backbone = keras_resfam.ResNet50(include_top=False, pooling="avg")
    model = keras.Sequential([backbone, keras.layers.Dense(5)])
    flat = keras_resfam.flatten_model(model)
    maps = keras.Model(
        flat.input, [flat.get_layer("stage4_block3_relu").output, flat.output]
    )
    ```
    """
    graph = flat(graphs.read(checked(model)))
    check_names(graph)
    values = {
        id(x): keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name)
        for x in graph.inputs
    }
    inputs, clones = list(values.values()), {}
    for step in graph.steps:
        layer = step.operation
        if isinstance(layer, keras.Layer) and layer not in clones:
            clones[layer] = type(layer).from_config(layer.get_config())
        step.operation = clones.get(layer, layer)
    graphs.run(graph.steps, values)
    for layer, clone in clones.items():
        clone.set_weights(in_order(layer.get_weights(), layer, clone))
        finalize(clone)
    outputs = [values[id(x)] for x in graph.outputs]
    like = graphs.shell(model)
    return keras.Model(
        keras.tree.pack_sequence_as(like.input, inputs),
        keras.tree.pack_sequence_as(like.output, outputs),
        name=model.name,
    )


def feature_extractor(model, layers=None):
    """Returns a model that returns feature maps of a network, by name.

    By default, these are the last feature maps of each resolution. `"Pn"` is
    the map with stride `2**n`: `"P2"` to `"P5"` in networks for ImageNet, and
    `"P0"` to `"P2"` in most networks for small images. The feature map of a
    stage is the output of its last block. That of the last stage is the one
    that the classifier pools. If a block of a merge-and-run network has one
    output for each branch, their average is used, as in the merge of such
    networks.

    Args:
        model: `keras.Model` with one input and one output. A network of
            keras_resfam, with or without its classifier, or a model that
            contains one, such as a fine-tuned network. It is not changed.
        layers: sequence of str. The names of layers whose outputs to return
            instead. Defaults to `None`.

    Returns:
        A functional `keras.Model` that takes the inputs of `model` and returns
        a dict from names to feature maps. It shares the layers and weights of
        `model`.

    Raises:
        ValueError: If `model` does not have these layers, or is of another
            kind.

    Example:

    ```python
    model = keras_resfam.WideResNet50_2(weights="imagenet")
    extractor = keras_resfam.feature_extractor(model)
    maps = extractor(images)  # maps["P3"]: (batch, 28, 28, 512)
    ```
    """
    graph = graphs.read_single(model)
    if layers is None:
        chosen = _pyramid(model, graph)
    else:
        names = _checked_names(layers)
        chosen = {name: [_output(graph, name)] for name in names}
    image, values = graphs.fresh_input(graph)
    graphs.run(graph.steps, values)
    features = {}
    for name, tensors in chosen.items():
        maps = [values[id(x)] for x in tensors]
        features[name] = (
            keras.layers.Average(name=f"{name}_merge")(maps)
            if len(maps) > 1
            else maps[0]
        )
    return keras.Model(image, features, name=f"{model.name}_features")


def _checked_names(layers):
    """Returns a list of the names of layers, after checking them."""
    names = [] if isinstance(layers, str) or not is_iterable(layers) else layers
    names = list(names)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            "`layers` should be a list of names of layers, or None. "
            f"Received: layers={layers!r}"
        )
    return names


def _output(graph, name):
    """Returns the first output of a layer."""
    found = [step for step in graph.steps if step.name == name]
    if len(found) != 1:
        raise ValueError(
            "`layers` should be names of layers that the model calls once. "
            f"Received: '{name}', which is called {len(found)} times"
        )
    return found[0].outputs[0]


def _pyramid(model, graph):
    """Returns a dict from names, such as P3, to the outputs of stages."""
    stages = _stages(graph)
    if None in graph.inputs[0].shape[1:]:
        # The strides do not depend on the size.
        sizes = (256,) * (len(graph.inputs[0].shape) - 1)
        known = graphs.read_single(model, sizes)
    else:
        known = graph
    levels = [_level(known, maps[0]) for maps in _stages(known)]
    return {
        f"P{level}": maps for level, maps in zip(levels, stages, strict=True)
    }


def _stages(graph):
    """Returns a list of the outputs of each stage, in order."""
    blocks = collections.defaultdict(list)
    for step in graph.steps:
        found = _BLOCK.fullmatch(step.name)
        if found:
            blocks[tuple(map(int, found.groups()))].append(step)
        elif _HEAD.fullmatch(step.name) and blocks:
            blocks[max(blocks)].append(step)
    if not blocks or not any(x.name == "stem_conv" for x in graph.steps):
        raise ValueError(
            "`model` should be a network of keras_resfam or contain one. For "
            "other models, pass the names of layers as `layers`. Received: "
            f"model={graph.name}, which has no layers such as "
            "'stage1_block1_conv1'"
        )
    last = {stage: (stage, block) for stage, block in sorted(blocks)}
    return [_block_outputs(graph, blocks[key]) for key in last.values()]


def _block_outputs(graph, steps):
    """Returns the feature maps of a block's steps that other steps read."""
    inside = {id(step) for step in steps}
    read = {id(x) for s in graph.steps if id(s) not in inside for x in s.inputs}
    read |= {id(x) for x in graph.outputs}
    outputs = [x for step in steps for x in step.outputs]
    return [x for x in outputs if len(x.shape) == 4 and id(x) in read]


def _level(graph, tensor):
    """Returns how often the image was halved, rounded up, to a map's size."""
    (stem,) = (step for step in graph.steps if step.name == "stem_conv")
    axis = 1 if stem.operation.data_format == "channels_last" else 2
    size, level = stem.inputs[0].shape[axis], 0
    while size > tensor.shape[axis]:
        size, level = -(-size // 2), level + 1
    return level
