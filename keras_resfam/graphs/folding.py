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

    In inference, a `BatchNormalization` is an affine map of each channel. If it
    directly follows a linear layer, it can be merged into the kernel and the
    bias of that layer at no cost. The copy has fewer layers and returns the
    outputs of `model(x, training=False)`, up to rounding. It is meant for
    inference. In training, it would differ from `model`.

    A `BatchNormalization` is merged if

    - its input is the output of a `Dense`, `Conv`, `DepthwiseConv`,
      `SeparableConv` or `Conv…Transpose` layer of 1, 2 or 3 dimensions with
      linear activation, and no other layer reads that output,
    - it normalizes the channel axis,
    - both layers are called once and have the same dtype policy.

    The linear layer keeps its name and gets a bias. A `Conv2D` whose output is
    only added to another tensor also gets a bias, of zeros, because TensorFlow
    then fuses the convolution and the addition.

    A `BatchNormalization` is not merged if it follows another layer (as in
    pre-activation networks, where it precedes a ReLU and a convolution), if it
    is called with `training=True`, or if one of both layers is shared, a
    subclass of the classes above, quantized or has LoRA weights. Nested models
    are folded too, if they are functional or sequential and not called with
    `training=True`.

    With mixed precision, the linear layers store their weights in the compute
    dtype, so that calls do not have to cast them.

    `GradientModulation`, and the initializers, regularizers and constraints of
    the linear layers, are left out because they affect training only.

    Args:
        model: functional or sequential `keras.Model`. It is not changed.

    Returns:
        A functional `keras.Model` with the inputs, outputs and name of
        `model`, and new weights. It is not compiled.

    Raises:
        ValueError: If `model` is neither functional nor sequential, overrides
            `call`, or is not built.
        Exception: If Keras cannot rebuild a layer from its config, such as a
            `Lambda` of a Python function. The type depends on the layer.

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
            # The weights are replaced, so they need no random values.
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
    """Maps linear layers to the `BatchNormalization` to merge into them."""
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
    """Returns the convolutions without bias whose outputs are only added.

    With a bias of zeros, TensorFlow fuses them with the addition.
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
    """Returns the layer's dtype policy, or its compute dtype if it is mixed."""
    mixed = layer.dtype_policy.name.startswith("mixed_")
    return layer.compute_dtype if mixed else layer.dtype_policy


def _is_linear(layer):
    """Returns whether a layer only computes kernel * x + bias."""
    return (
        type(layer) in _LINEAR
        and layer.activation is keras.activations.linear
        and _WEIGHTS.issuperset(w.name for w in layer.weights)
    )


def _channel_axis(layer, ndim):
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first and ndim > 2 else ndim - 1


def _weights(layer, norm):
    """Returns the weights of a layer with a normalization merged into them."""
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
