"""Copies of models that only have layers of Keras."""

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
    """Returns a copy of a model with Keras's layers instead of keras_resfam's.

    The copy returns the outputs of `model`, up to rounding. It can be saved,
    and loaded where keras_resfam is not installed. `BatchNormalization`,
    `Conv2D` and `Rescaling` of keras_resfam are replaced by those of Keras. If
    needed, a layer that adds zeros or subsamples is inserted before a `Conv2D`.
    `GradientModulation`, and the initializers, regularizers and constraints of
    layers, are left out because they affect training only. Nested models are
    converted too, if they are functional or sequential. The `data_config` of
    `Rescaling`, which `predict_images` needs, is lost. Layers of other packages
    are copied unchanged, and so are layers inside other layers, such as
    `TimeDistributed`.

    Args:
        model: functional or sequential `keras.Model`. It is not changed.

    Returns:
        A functional `keras.Model` with the inputs, outputs and name of
        `model`, and new weights. It is not compiled.

    Raises:
        ValueError: If `model` is neither functional nor sequential, overrides
            `call`, or is not built; or if it has layers of keras_resfam
            without an equivalent in Keras, such as those that
            `analysis.drop_blocks` inserts.
        Exception: If Keras cannot rebuild a layer from its config, such as a
            `Lambda` of a Python function. The type depends on the layer.

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
                "`model` should have no layers without an equivalent in Keras. "
                f"Received: the {kind.__name__} '{layer.name}'"
            )
        config = layer.get_config()
        if type(layer) is Rescaling:
            del config["data_config"]
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
    """Returns layers that pad or subsample as a `Conv2D` does first."""
    if type(layer) is not Conv2D:
        return []
    options = {
        "data_format": layer.data_format,
        "dtype": layer.get_config()["dtype"],  # may be a policy
    }
    made = []
    if layer.zeros:
        name = f"{layer.name}_pad"
        pad = keras.layers.ZeroPadding2D(layer.zeros, name=name, **options)
        made.append(pad)
    if _takes_pixels_first(layer):
        name = f"{layer.name}_pixels"  # averages of one pixel
        pool = keras.layers.AveragePooling2D(
            1, layer.strides, name=name, **options
        )
        made.append(pool)
    return made
