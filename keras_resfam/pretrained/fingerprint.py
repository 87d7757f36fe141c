"""The fingerprint of a trained network, by layer name.

Keras loads a `.weights.h5` file by position: `layers/conv2d_7/vars/0`. If two
branches have swapped places, or a layer was renamed, values are loaded into
the wrong layer without an error. This package therefore reads such files by
the names of the layers, which Keras stores in them. A fingerprint lists, under
`"layer name/variable name"`, the type and shape of each variable as it is
stored. It also has the logits of the network for fixed images that a formula
makes. The values of the variables are verified by the SHA-256 of their file.
"""

import json

import keras
import numpy as np


def stored(values):
    """Converts values to the type in which `weights/` stores them.

    Kernels are stored as float16, to halve the size of the files. Vectors
    (biases and the variables of BatchNormalization) are stored as float32.

    Args:
        values: array. The values of one variable.

    Returns:
        A NumPy array of the same shape.
    """
    return np.asarray(values, "float16" if np.ndim(values) > 1 else "float32")


def describe(model):
    """Returns the types and shapes of a model's variables, by name.

    Args:
        model: `keras.Model`.

    Returns:
        A dict from `"layer name/variable name"` to a dict of `"dtype"` and
        `"shape"`.
    """
    entries = {}
    for layer in model.layers:
        for variable, value in zip(
            layer.weights, layer.get_weights(), strict=True
        ):
            value = stored(value)
            entries[f"{layer.name}/{variable.name}"] = {
                "dtype": value.dtype.name,
                "shape": list(value.shape),
            }
    return entries


def layout(entries):
    """Returns the arrays that a file should have according to a fingerprint.

    Args:
        entries: dict as `describe` returns it. Older versions also stored a
            digest of each variable, which is ignored.

    Returns:
        A dict from layer names to lists of `[type, shape]`, the `expected`
        argument of `hdf5.read`.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: If `entries` is not
            from a fingerprint.
    """
    layers = {}
    for name, entry in entries.items():
        layer = name.partition("/")[0]
        shape = [int(size) for size in entry["shape"]]
        layers.setdefault(layer, []).append([entry["dtype"], shape])
    return layers


def text(contents):
    """Formats a fingerprint as JSON, with one line for each variable.

    Args:
        contents: dict. Its entry `"variables"` is a dict as `describe` returns
            it.

    Returns:
        A str.
    """
    lines = {
        key: json.dumps(value, indent=1).replace("\n", "\n ")
        for key, value in contents.items()
    }
    variables = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(entry)}"
        for name, entry in contents["variables"].items()
    )
    lines["variables"] = f"{{\n{variables}\n }}"
    body = ",\n".join(f' "{key}": {value}' for key, value in lines.items())
    return f"{{\n{body}\n}}\n"


def check_names(found, expected):
    """Checks that the layers of a network are those that values exist for.

    Args:
        found: collection of str. The names of the network's layers.
        expected: collection of str. The names of the layers that values exist
            for.

    Raises:
        ValueError: If the names differ. The message names one of the layers.
    """
    for name in expected:
        if name not in found:
            raise ValueError(
                f"Layer '{name}': there are values for it, but the network "
                "has no such layer."
            )
    for name in found:
        if name not in expected:
            raise ValueError(f"Layer '{name}': there are no values for it.")


def fixed_images(input_shape, batch=2):
    """Returns images made by a formula, which are the same on every machine.

    Args:
        input_shape: tuple. `(height, width, channels)`.
        batch: int. Number of images. Defaults to `2`.

    Returns:
        A uint8 array of shape `(batch, height, width, channels)`.
    """
    count = batch * int(np.prod(input_shape))
    k = np.arange(count, dtype="uint64")
    # Knuth's multiplicative hash; its upper bits look like noise.
    noise = (k * 2654435761 % 2**32) >> 24
    return noise.astype("uint8").reshape(batch, *input_shape)


def logits(model, input_shape):
    """Returns the logits of a classifier for the fixed images.

    Args:
        model: `keras.Model` built with `classifier_activation=None`.
        input_shape: tuple. `(height, width, channels)`, whatever the model's
            data format is.

    Returns:
        A float32 array of shape `(2, classes)`.
    """
    images = fixed_images(input_shape)
    if keras.config.image_data_format() == "channels_first":
        images = np.moveaxis(images, -1, 1)
    outputs = model(images.astype("float32"), training=False)
    return keras.ops.convert_to_numpy(outputs).astype("float32")
