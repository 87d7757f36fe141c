"""What tells one trained network from another, layer by layer.

Keras loads a `.weights.h5` by position: `layers/conv2d_7/vars/0`. Where two
branches have swapped places, or a layer another name, values load into the
wrong layer without a word. Here files are read by the layers' names, which
Keras notes in them, and so goes a fingerprint: the type and shape of each
variable as it is stored, under `"layer name/variable name"`, and the network's
logits on an image that a formula makes. That the values themselves are those
published is what the SHA-256 of their file says.
"""

import json

import keras
import numpy as np


def stored(values):
    """Values in the type in which `weights/` stores them.

    Kernels are float16, half the size; vectors (biases, and all of
    BatchNormalization's) are float32.

    Args:
        values: array.

    Returns:
        A NumPy array of the same shape.
    """
    return np.asarray(values, "float16" if np.ndim(values) > 1 else "float32")


def describe(model):
    """Returns the part of a fingerprint that goes by layer name.

    Args:
        model: `keras.Model` that holds values as `stored` gives them.

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
    """The arrays that a fingerprint says a file has, as `hdf5` takes them.

    Args:
        entries: dict as `describe` returns it. Of those made by older
            versions the digests are ignored.

    Returns:
        A dict from layer names to lists of `[type, shape]`.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: If it is no
            fingerprint.
    """
    layers = {}
    for name, entry in entries.items():
        layer = name.partition("/")[0]
        shape = [int(size) for size in entry["shape"]]
        layers.setdefault(layer, []).append([entry["dtype"], shape])
    return layers


def text(contents):
    """The text of a fingerprint: JSON with a line for each variable.

    Args:
        contents: dict. One of its entries, `"variables"`, is a dict as
            `describe` returns it.
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
    """Checks that a network has just the layers that there are values for.

    Args:
        found: collection of the names of the network's layers.
        expected: collection of the names that there are values for.

    Raises:
        ValueError: If not; the text names a layer.
    """
    for name in expected:
        if name not in found:
            raise ValueError(
                f"Layer '{name}': there are values for it, and the network "
                "has no such layer."
            )
    for name in found:
        if name not in expected:
            raise ValueError(f"Layer '{name}': there are no values for it.")


def fixed_images(input_shape, batch=2):
    """Returns images made by a formula, the same everywhere and for ever.

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
    """Returns what the classifier gives for the fixed images, before softmax.

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
