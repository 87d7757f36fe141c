"""Merges batch normalization into the layers before it, for inference."""

import collections

import keras
import numpy as np
from keras import layers

from keras_resfam import graph as graphs
from keras_resfam.layers import BatchNormalization, GradientModulation

# Depthwise kernels end in (inputs, multiplier), transposed ones in
# (outputs, inputs), all others in (inputs, outputs).
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
LINEAR = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    *DEPTHWISE,
    *TRANSPOSED,
)
NORMS = layers.BatchNormalization, BatchNormalization
KERNELS = {"kernel", "depthwise_kernel", "pointwise_kernel", "bias"}


def fold_batch_norm(model):
    """Returns a copy of a model with its batch normalizations merged.

    At inference a `BatchNormalization` is an affine map of each channel. Where
    it directly follows a linear layer, scaling that layer's kernel and
    shifting its bias does the same work for nothing. The copy computes what
    `model(x, training=False)` computes, up to rounding, with fewer layers. It
    is meant for inference: trained further, it is another network than
    `model`.

    Merged: a `BatchNormalization` along the channel axis whose input is the
    output of a `Dense`, `Conv`, `DepthwiseConv`, `SeparableConv` or
    `Conv…Transpose` layer of 1, 2 or 3 dimensions with linear activation,
    where nothing else reads that output, both layers are called once, and both
    have one dtype policy. The linear layer keeps its name and gains a bias.

    Left as it is: a `BatchNormalization` that follows anything else (as in
    pre-activation networks, where it precedes the convolution and a ReLU lies
    between), one called with `training=True`, a shared layer, a subclass of
    the layers above, and a quantized or LoRA layer. Models inside `model` are
    merged in the same way, if they are functional or sequential and not
    called with `training=True`.

    Left out, because they act in training only: `GradientModulation`, and the
    initializers, regularizers and constraints of the layers above. So where
    no `BatchNormalization` of keras_resfam is left, the copy can be saved and
    loaded without keras_resfam.

    Args:
        model: `keras.Model`. A functional or sequential model. Its weights
            and its graph stay as they are.

    Returns:
        A functional `keras.Model` with the inputs, outputs and name of
        `model`, and weights of its own. It is not compiled.

    Raises:
        ValueError: If `model` is neither functional nor sequential (or has
            a `call` of its own), or not built.
        Exception: What Keras raises for a layer that its own config cannot
            rebuild, such as a `Lambda` of a Python function.

    Example:

    ```python
    model = keras_resfam.DMRNet(depth=56, weights="cifar10")
    fast = keras_resfam.fold_batch_norm(model)
    fast.predict(images)
    fast.save("dmrnet56_folded.keras")
    ```
    """
    if not graphs.is_graph(model) or not model.built:
        raise ValueError(
            "`model` should be a functional or sequential `keras.Model` that "
            f"is built. Received: model={model}"
        )
    model = graphs.shell(model)
    graph = graphs.read(model)
    norm_after = _foldable(graph)
    gone = {norm: _identity for norm in norm_after.values()}
    gone |= {layer: _unlinked for layer in _modulations(graph)}
    in_training = {s.operation for s in graph.steps if s.kwargs.get("training")}

    def is_folded(layer):
        return graphs.is_graph(layer) and layer not in in_training

    def clone(layer):
        if layer in gone:
            return gone[layer]
        if is_folded(layer):
            return fold_batch_norm(layer)
        config = layer.get_config()
        if type(layer) in LINEAR:
            config = _for_inference(config)
        if layer in norm_after:
            config["use_bias"] = True
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, _clone_inputs(model), clone)
    for layer in copy.layers:
        original = model.get_layer(layer.name)
        if not is_folded(original):
            _set_weights(layer, _weights(original, norm_after.get(original)))
    return copy


def _identity(inputs, **kwargs):
    return inputs


def _unlinked(x, link=None):
    return x, None


def _modulations(graph):
    """The layers of modulation whose link nothing else reads."""
    chain = [s for s in graph.steps if type(s.operation) is GradientModulation]
    others = [x for s in graph.steps if s not in chain for x in s.inputs]
    read = {id(x) for x in [*graph.outputs, *others]}
    exposed = {s.operation for s in chain if id(s.outputs[1]) in read}
    return {s.operation for s in chain} - exposed


def _foldable(graph):
    """Maps each linear layer to the `BatchNormalization` it can absorb."""
    calls = collections.Counter(step.operation for step in graph.steps)
    read = [x for step in graph.steps for x in step.inputs]
    readers = collections.Counter(id(x) for x in [*graph.outputs, *read])
    maker = {id(x): s.operation for s in graph.steps for x in s.outputs}
    pairs = {}
    for step in graph.steps:
        norm = step.operation
        if type(norm) not in NORMS or calls[norm] > 1:
            continue
        x = step.inputs[0]
        layer = maker.get(id(x))
        if (
            calls[layer] == 1
            and readers[id(x)] == 1
            and not step.kwargs.get("training")
            and _is_linear(layer)
            and layer.dtype_policy == norm.dtype_policy
            and norm.axis % x.ndim == _channel_axis(layer, x.ndim)
        ):
            pairs[layer] = norm
    return pairs


def _is_linear(layer):
    """Whether a layer is y = kernel * x + bias, and no more than that."""
    return (
        type(layer) in LINEAR
        and layer.activation is keras.activations.linear
        and KERNELS.issuperset(w.name for w in layer.weights)
    )


def _channel_axis(layer, ndim):
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first and ndim > 2 else ndim - 1


def _for_inference(config):
    """Leaves out what acts on weights before they have their last values.

    Stock layers then have nothing of keras_resfam, and load without it.
    """
    unused = {key: "zeros" for key in config if key.endswith("_initializer")}
    judges = {
        key: None
        for key in config
        if key.endswith(("_regularizer", "_constraint"))
    }
    return {**config, **unused, **judges}


def _clone_inputs(model):
    """New inputs in the structure of the model's, by the same names."""
    clones = {
        id(layer.output): type(layer).from_config(layer.get_config()).output
        for layer in model.layers
        if isinstance(layer, layers.InputLayer)
    }
    return keras.tree.map_structure(lambda x: clones[id(x)], model.input)


def _weights(layer, norm):
    """The weights to do the work of a layer, and of what it absorbs."""
    if norm is None:
        return layer.get_weights()
    weights = [_float64(w) for w in layer.weights]
    bias = weights.pop() if layer.use_bias else 0.0
    scale = 1.0 / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale = scale * _float64(norm.gamma)
    shift = _float64(norm.beta) if norm.center else 0.0
    bias = shift + (bias - _float64(norm.moving_mean)) * scale

    kernel = weights.pop()
    if isinstance(layer, DEPTHWISE):
        kernel = kernel * scale.reshape(kernel.shape[-2:])
    elif isinstance(layer, TRANSPOSED):
        kernel = kernel * scale[:, None]
    else:
        kernel = kernel * scale
    return [*weights, kernel, bias]


def _float64(weight):
    return keras.ops.convert_to_numpy(weight).astype("float64")


def _set_weights(layer, weights):
    layer.set_weights(weights)
    if isinstance(layer, layers.Normalization):
        layer.finalize_state()
