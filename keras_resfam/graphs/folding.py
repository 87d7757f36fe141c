"""Merges batch normalization into the layers before it, for inference."""

import collections

import keras
import numpy as np
from keras import layers

from keras_resfam import graphs
from keras_resfam.graphs import copies
from keras_resfam.layers import BatchNormalization, Conv2D

# Depthwise kernels end in (inputs, multiplier), transposed ones in
# (outputs, inputs), all others in (inputs, outputs).
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
_LINEAR = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    Conv2D,
    layers.Conv3D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    *_DEPTHWISE,
    *_TRANSPOSED,
)
_NORMS = layers.BatchNormalization, BatchNormalization
_WEIGHTS = {"kernel", "depthwise_kernel", "pointwise_kernel", "bias"}


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
    have one dtype policy. The linear layer keeps its name and gains a bias. So
    does a `Conv2D` whose output is only added to another, of zeros: TensorFlow
    then convolves and adds in one step.

    Left as it is: a `BatchNormalization` that follows anything else (as in
    pre-activation networks, where it precedes the convolution and a ReLU lies
    between), one called with `training=True`, a shared layer, a subclass of
    the layers above, and a quantized or LoRA layer. Models inside `model` are
    merged in the same way, if they are functional or sequential and not
    called with `training=True`.

    Under mixed precision, the layers above store their weights in the type
    that they compute in, to which each call would cast them otherwise.

    Left out, because they act in training only: `GradientModulation`, and the
    initializers, regularizers and constraints of the layers above.

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
    graph = graphs.read(copies.checked(model))
    norm_after, added = _foldable(graph), _added(graph)

    def fold(layer):
        config = layer.get_config()
        if type(layer) in _LINEAR:
            # Nothing is drawn that `weights` replaces at once.
            config = copies.for_inference(config, "zeros")
            config["dtype"] = _inference_dtype(layer)
        if layer in norm_after or layer in added:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def weights(layer):
        values = _weights(layer, norm_after.get(layer))
        return [*values, np.zeros(layer.filters)] if layer in added else values

    return copies.copy(
        model,
        graph,
        fold,
        weights,
        fold_batch_norm,
        gone=norm_after.values(),
        whole={s.operation for s in graph.steps if s.kwargs.get("training")},
    )


def _foldable(graph):
    """Maps each linear layer to the `BatchNormalization` it can absorb."""
    calls = collections.Counter(step.operation for step in graph.steps)
    readers = graphs.readers(graph)
    maker = {id(x): s.operation for s in graph.steps for x in s.outputs}
    pairs = {}
    for step in graph.steps:
        norm = step.operation
        if type(norm) not in _NORMS or calls[norm] > 1:
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


def _added(graph):
    """The convolutions without bias whose outputs are only added to others.

    With a bias, of zeros, TensorFlow makes the addition a part of them.
    """
    readers = graphs.readers(graph)
    additions = [s for s in graph.steps if type(s.operation) is layers.Add]
    terms = {id(x) for s in additions for x in s.inputs if readers[id(x)] == 1}
    return {
        step.operation
        for step in graph.steps
        if type(step.operation) in (layers.Conv2D, Conv2D)
        and _is_linear(step.operation)
        and not step.operation.use_bias
        and not terms.isdisjoint(map(id, step.outputs))
    }


def _inference_dtype(layer):
    """The layer's policy; of a mixed one, what its calls cast weights to."""
    mixed = layer.dtype_policy.name.startswith("mixed_")
    return layer.compute_dtype if mixed else layer.dtype_policy


def _is_linear(layer):
    """Whether a layer is y = kernel * x + bias, and no more than that."""
    return (
        type(layer) in _LINEAR
        and layer.activation is keras.activations.linear
        and _WEIGHTS.issuperset(w.name for w in layer.weights)
    )


def _channel_axis(layer, ndim):
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first and ndim > 2 else ndim - 1


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
    if isinstance(layer, _DEPTHWISE):
        kernel = kernel * scale.reshape(kernel.shape[-2:])
    elif isinstance(layer, _TRANSPOSED):
        kernel = kernel * scale[:, None]
    else:
        kernel = kernel * scale
    return [*weights, kernel, bias]


def _float64(weight):
    return keras.ops.convert_to_numpy(weight).astype("float64")
