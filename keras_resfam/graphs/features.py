"""The maps inside a network, and nested models made flat."""

import collections
import re

import keras

from keras_resfam import graphs
from keras_resfam._checks import is_iterable
from keras_resfam.graphs.copies import checked, finalize, in_order
from keras_resfam.graphs.graph import check_names, flat

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_.*")

_HEAD = re.compile("head_(bn|relu|concat)")
"""What comes behind the last block, and is of its resolution."""


def flatten_model(model):
    """Returns a model of the layers within the models among a model's layers.

    A network that was fine-tuned holds its backbone as one layer, whose own
    are in another graph. Here all are in one, so that the map of any layer
    can be reached from the input, and gradients from the output reach it.

    Args:
        model: functional or sequential `keras.Model`. It stays as it is.

    Returns:
        A functional `keras.Model` of copies of the layers, by the same names
        and with weights of their own. It is not compiled.

    Raises:
        ValueError: If `model` is no such model, or if layers of one name come
            together.
        Exception: What Keras raises for a layer that its own config cannot
            rebuild.

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
    """Returns a model that gives maps inside a network, by name.

    By default the last map of each resolution: `"P2"` of the stride 4 to
    `"P5"` of 32 in the ImageNet forms, which start at a quarter of the image's
    size; `"P0"` of the stride 1 to `"P2"` of 4 in most forms for small
    images. The number is the exponent of the stride. A stage's map is what
    its last block puts out; the last one is what the classifier pools. Where
    a block of a merge-and-run network puts out one map for each branch, it is
    their average, as such networks merge them.

    Args:
        model: `keras.Model` of one input and one output. A network of
            keras_resfam, with or without its classifier, or one that holds
            it, such as a fine-tuned one. It stays as it is.
        layers: sequence of str. Names of layers whose outputs to return
            instead. Defaults to `None`.

    Returns:
        A functional `keras.Model` that takes what `model` takes and returns
        a dict of maps by name. Its layers and weights are those of `model`.

    Raises:
        ValueError: If `model` has no such layers, or is of another kind.

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
    """The names of layers, in a list."""
    names = [] if isinstance(layers, str) or not is_iterable(layers) else layers
    names = list(names)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            "`layers` should be a list of names of layers, or None. "
            f"Received: layers={layers!r}"
        )
    return names


def _output(graph, name):
    """What a layer puts out; of several tensors, the first."""
    found = [step for step in graph.steps if step.name == name]
    if len(found) != 1:
        raise ValueError(
            "`layers` should be names of layers of the model, and each called "
            f"once. Received: '{name}', of a layer called {len(found)} times"
        )
    return found[0].outputs[0]


def _pyramid(model, graph):
    """The maps that each stage puts out, by the name of their resolution."""
    stages = _stages(graph)
    if None in graph.inputs[0].shape[1:]:
        # The strides are those of any size.
        sizes = (256,) * (len(graph.inputs[0].shape) - 1)
        known = graphs.read_single(model, sizes)
    else:
        known = graph
    levels = [_level(known, maps[0]) for maps in _stages(known)]
    return {
        f"P{level}": maps for level, maps in zip(levels, stages, strict=True)
    }


def _stages(graph):
    """Lists of the maps that stages put out, from the first to the last."""
    blocks = collections.defaultdict(list)
    for step in graph.steps:
        found = _BLOCK.fullmatch(step.name)
        if found:
            blocks[tuple(map(int, found.groups()))].append(step)
        elif _HEAD.fullmatch(step.name) and blocks:
            blocks[max(blocks)].append(step)
    if not blocks or not any(x.name == "stem_conv" for x in graph.steps):
        raise ValueError(
            "`model` should be a network of keras_resfam, or hold one; of "
            "another, name the layers in `layers`. Received: model="
            f"{graph.name}, which has no layers such as 'stage1_block1_conv1'"
        )
    last = {stage: (stage, block) for stage, block in sorted(blocks)}
    return [_put_out(graph, blocks[key]) for key in last.values()]


def _put_out(graph, steps):
    """The maps that steps make for others."""
    inside = {id(step) for step in steps}
    read = {id(x) for s in graph.steps if id(s) not in inside for x in s.inputs}
    read |= {id(x) for x in graph.outputs}
    made = [x for step in steps for x in step.outputs]
    return [x for x in made if len(x.shape) == 4 and id(x) in read]


def _level(graph, tensor):
    """How often the image was halved, rounding up, to a map's size."""
    (stem,) = (step for step in graph.steps if step.name == "stem_conv")
    axis = 1 if stem.operation.data_format == "channels_last" else 2
    size, level = stem.inputs[0].shape[axis], 0
    while size > tensor.shape[axis]:
        size, level = -(-size // 2), level + 1
    return level
