"""What tells one trained network from another, layer by layer.

Keras's `.weights.h5` goes by position: `layers/conv2d_7/vars/0`. Where two
branches have swapped places, or a layer another name, values load into the
wrong layer without a word. So a fingerprint goes by name: the SHA-256 of each
variable's values as they are stored, under `"layer name/variable name"`, and
the network's logits on an image that a formula makes.
"""

import hashlib

import h5py
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


def variables(model):
    """Returns the model's variables by `"layer name/variable name"`."""
    return {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }


def describe(model):
    """Returns the part of a fingerprint that goes by layer name.

    Args:
        model: `keras.Model` that holds values as `stored` gives them.

    Returns:
        A dict from `"layer name/variable name"` to a dict of `"dtype"`,
        `"shape"` and `"sha256"`.
    """
    entries = {}
    for name, variable in variables(model).items():
        values = stored(keras.ops.convert_to_numpy(variable))
        entries[name] = {
            "dtype": values.dtype.name,
            "shape": list(values.shape),
            "sha256": _digest(values),
        }
    return entries


def _digest(values):
    little_endian = values.astype(values.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian.tobytes()).hexdigest()


def check_names(found, expected):
    """Checks that a network has just the layers that there are values for.

    Args:
        found: iterable of names of layers or variables of the network.
        expected: iterable of names that there are values for.

    Raises:
        ValueError: if not; the text names a layer.
    """
    for name in expected:
        if name not in found:
            raise ValueError(
                f"Layer '{_layer(name)}': there are values for '{name}', and "
                "the network has no such part."
            )
    for name in found:
        if name not in expected:
            raise ValueError(
                f"Layer '{_layer(name)}': there are no values for '{name}'."
            )


def _layer(name):
    return name.split("/")[0]


def check(model, expected):
    """Checks that each layer holds the values published under its name.

    Args:
        model: `keras.Model` of float32 variables.
        expected: dict as `describe` returns.

    Raises:
        ValueError: if a layer is missing or holds other values; the text
            names it.
    """
    found = variables(model)
    check_names(list(found), list(expected))
    owners = {entry["sha256"]: name for name, entry in expected.items()}
    for name, entry in expected.items():
        values = keras.ops.convert_to_numpy(found[name])
        rounded = values.astype(entry["dtype"])
        digest = _digest(rounded)
        if digest == entry["sha256"] and np.array_equal(rounded, values):
            continue
        owner = owners.get(digest)
        instead = f", but those of '{owner}'" if owner else ""
        raise ValueError(
            f"Layer '{_layer(name)}' does not hold the values published for "
            f"'{name}'{instead}."
        )


def read_file(path):
    """Reads a `.weights.h5` file by the layer names that Keras notes in it.

    Keras itself loads by position, and does not look at them.

    Args:
        path: str, or a file object of bytes.

    Returns:
        A dict from layer names to lists of arrays.

    Raises:
        ValueError: if the file has no names.
    """
    with h5py.File(path, "r") as file:
        groups = [group["vars"] for group in file["layers"].values()]
        named = {
            group.attrs.get("name"): [_array(group[k]) for k in _order(group)]
            for group in groups
            if len(group)
        }
    if None in named:
        raise ValueError(
            "The file does not tell its layers' names. Save it again with "
            "Keras 3.15 or newer."
        )
    return named


def _order(group):
    return sorted(group, key=int)


def _array(entry):
    """An array of a file; HDF5 has no bfloat16, and Keras notes the name."""
    values = entry[()]
    if entry.attrs.get("dtype") == "bfloat16":
        return values.view("bfloat16").astype("float32")
    return values


def check_layers(model, expected):
    """Checks that each layer holds what a file stores under its name.

    For files that come without a fingerprint.

    Args:
        model: `keras.Model` of float32 variables.
        expected: dict as `read_file` returns.

    Raises:
        ValueError: if a layer is missing or holds other values; the text
            names it.
    """
    found = {layer.name: layer for layer in model.layers if layer.weights}
    check_names(list(found), list(expected))
    for name, values in expected.items():
        held = found[name].get_weights()
        if len(held) != len(values) or not all(
            map(np.array_equal, held, values)
        ):
            raise ValueError(
                f"Layer '{name}' does not hold the values that the file "
                "stores under its name."
            )


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
