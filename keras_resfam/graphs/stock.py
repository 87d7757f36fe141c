"""Copies of models that are made of Keras's own layers."""

import keras

from keras_resfam import graphs
from keras_resfam.backends.convolution import takes_pixels_first
from keras_resfam.graphs.copies import checked, copy, for_inference
from keras_resfam.layers import BatchNormalization, Conv2D, Rescaling

_STOCK = {
    BatchNormalization: keras.layers.BatchNormalization,
    Conv2D: keras.layers.Conv2D,
    Rescaling: keras.layers.Rescaling,
}


def to_stock_layers(model):
    """Returns a copy of a model that is made of Keras's own layers.

    The copy computes what `model` computes, up to rounding, and can be saved,
    and loaded where keras_resfam is not installed. `BatchNormalization`,
    `Conv2D` and `Rescaling` of keras_resfam become those of Keras, a `Conv2D`
    behind a layer that adds zeros or takes pixels where Keras's needs one.
    Left out, because they act in training only: `GradientModulation`, and the
    layers' initializers, regularizers and constraints. Models inside `model`
    are copied alike, if they are functional or sequential. Layers that are
    neither Keras's nor keras_resfam's stay what they are, and so do layers
    inside of other layers, such as `TimeDistributed`.

    Args:
        model: `keras.Model`. A functional or sequential model. Its weights
            and its graph stay as they are.

    Returns:
        A functional `keras.Model` with the inputs, outputs and name of
        `model`, and weights of its own. It is not compiled.

    Raises:
        ValueError: If `model` is neither functional nor sequential (or has
            a `call` of its own), or not built; or if it has layers of
            keras_resfam without a like in Keras, such as those that
            `analysis.drop_blocks` puts in.
        Exception: What Keras raises for a layer that its own config cannot
            rebuild, such as a `Lambda` of a Python function.

    Example:

    ```python
    model = keras_resfam.WideResNet(depth=16, width=4)
    keras_resfam.to_stock_layers(model).save("wrn_16_4.keras")
    ```
    """
    graph = graphs.read(checked(model))

    def stock(layer):
        kind = _STOCK.get(type(layer), type(layer))
        if kind.__module__.startswith("keras_resfam."):
            raise ValueError(
                "`model` should have no layers that Keras has no like of. "
                f"Received: the {kind.__name__} '{layer.name}'"
            )
        config = layer.get_config()
        if kind.__module__.startswith("keras."):
            config = for_inference(config)
        if type(layer) is Conv2D:
            del config["zeros"]
            if _takes_pixels_first(layer):
                config["strides"] = 1
        return kind.from_config(config)

    def weights(layer):
        return layer.get_weights()

    return copy(model, graph, stock, weights, to_stock_layers, before=_before)


def _takes_pixels_first(layer):
    return takes_pixels_first(layer.kernel, layer.strides)


def _before(layer):
    """Layers that do what a `Conv2D` does before it convolves."""
    if type(layer) is not Conv2D:
        return []
    options = {
        "data_format": layer.data_format,
        "dtype": layer.get_config()["dtype"],  # a policy of its own
    }
    made = []
    if layer.zeros:
        name = f"{layer.name}_pad"
        pad = keras.layers.ZeroPadding2D(layer.zeros, name=name, **options)
        made.append(pad)
    if _takes_pixels_first(layer):
        name = f"{layer.name}_pixels"  # averages of one
        pool = keras.layers.AveragePooling2D(
            1, layer.strides, name=name, **options
        )
        made.append(pool)
    return made
