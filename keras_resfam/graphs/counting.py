"""How many multiplications a network takes for one image."""

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
    """Counts the multiplications, each with an addition, for one image.

    Those of convolutions and dense layers are counted, as in the papers; zeros
    around the images count as pixels. Normalizations, activations, poolings
    and additions, which take a few operations a number, are not counted.
    Papers that count each addition for itself have twice these figures.

    Args:
        model: functional or sequential `keras.Model` of one input and one
            output. Models among its layers are looked into.
        input_shape: tuple without the batch axis, of the images, where the
            model leaves their size open. Defaults to `None`.

    Returns:
        int.

    Raises:
        ValueError: If the model is another, if the size of its images is open,
            or if it has kernels in layers that are neither.

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
            "`input_shape` should have the sizes of the images, which the "
            f"model leaves open. Received: input_shape={input_shape!r}, model="
            f"{model.name} of input shape {graph.inputs[0].shape[1:]}"
        )
    return sum(map(_multiply_adds, graph.steps))


def _multiply_adds(step):
    """Those of a step: how often each number of its kernels is used."""
    layer = step.operation
    if not graphs.count_kernels(layer):
        return 0
    if not isinstance(layer, (layers.Dense, *_CONVOLUTIONS, *_TRANSPOSED)):
        raise ValueError(
            "`model` should have its kernels in dense layers and convolutions. "
            f"Received: the {type(layer).__name__} '{layer.name}'"
        )
    (given,), (made,) = step.inputs, step.outputs
    kernels = sum(
        math.prod(weight.shape)
        for weight in layer.weights
        if len(weight.shape) > 1
    )
    if isinstance(layer, layers.Dense):
        return math.prod(made.shape[1:-1]) * kernels
    places = given if isinstance(layer, _TRANSPOSED) else made
    return _pixels(places, layer.data_format) * kernels


def _pixels(images, data_format):
    first = data_format == "channels_first"
    return math.prod(images.shape[2:] if first else images.shape[1:-1])
