"""Counts the multiplications that a network needs for one image."""

import math

from keras import layers

from keras_resfam import graphs
from keras_resfam._checks import is_integer

_CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
_TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)


def count_multiply_adds(model, input_shape=None):
    """Counts the multiply-adds of a network for one image.

    As in the papers, the operations of convolutions and dense layers are
    counted, including those on zeros around the images. Normalizations,
    activations, poolings and additions are not counted, because they need only
    a few operations per value. Papers that count multiplications and additions
    separately have twice these numbers.

    Args:
        model: functional or sequential `keras.Model` with one input and one
            output. Nested models are included.
        input_shape: tuple. The shape of an image, without the batch axis. It
            is needed if the size of the model's input is `None`. Defaults to
            `None`.

    Returns:
        An int, the number of multiply-adds.

    Raises:
        ValueError: If the model is of another kind, if the size of the images
            is unknown, or if other layers than convolutions and dense layers
            have kernels.

    Example:

    ```python
    keras_resfam.count_multiply_adds(keras_resfam.WideResNet(16, 4))
    # 392612352
    ```
    """
    if input_shape is not None and not (
        isinstance(input_shape, (tuple, list))
        and all(is_integer(size, 1) for size in input_shape)
    ):
        raise ValueError(
            "`input_shape` should be a tuple of sizes, without the batch axis, "
            f"or None. Received: input_shape={input_shape!r}"
        )
    graph = graphs.read_single(model, input_shape)
    if None in graph.inputs[0].shape[1:]:
        raise ValueError(
            "`input_shape` should be the shape of the images, because the "
            f"input of the model has a size of None. Received: input_shape="
            f"{input_shape!r}, model={model.name} with the input shape "
            f"{graph.inputs[0].shape[1:]}"
        )
    return sum(map(_multiply_adds, graph.steps))


def _multiply_adds(step):
    """Returns the multiply-adds of a step.

    They are the size of its kernels times how often each value is used.
    """
    layer = step.operation
    if not graphs.count_kernels(layer):
        return 0
    if not isinstance(layer, (layers.Dense, *_CONVOLUTIONS, *_TRANSPOSED)):
        raise ValueError(
            "`model` should have kernels in convolutions and dense layers "
            f"only. Received: the {type(layer).__name__} '{layer.name}'"
        )
    (inputs,), (outputs,) = step.inputs, step.outputs
    kernels = sum(
        math.prod(weight.shape)
        for weight in layer.weights
        if len(weight.shape) > 1
    )
    if isinstance(layer, layers.Dense):
        return math.prod(outputs.shape[1:-1]) * kernels
    places = inputs if isinstance(layer, _TRANSPOSED) else outputs
    return _pixels(places, layer.data_format) * kernels


def _pixels(images, data_format):
    first = data_format == "channels_first"
    return math.prod(images.shape[2:] if first else images.shape[1:-1])
