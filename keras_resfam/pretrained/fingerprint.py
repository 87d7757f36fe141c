"""What tells one trained network from another, layer by layer.

Keras loads a `.weights.h5` by position: `layers/conv2d_7/vars/0`. Where two
branches have swapped places, or a layer another name, values load into the
wrong layer without a word. Here files are read by the layers' names, which
Keras notes in them, and so goes a fingerprint: the SHA-256 of each
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


def named(layers, values):
    """Names values as a fingerprint does.

    Args:
        layers: iterable of Keras layers.
        values: dict of lists by layer name, in the order of the weights.

    Returns:
        A dict from `"layer name/variable name"` to values.
    """
    return {
        f"{layer.name}/{variable.name}": value
        for layer in layers
        for variable, value in zip(
            layer.weights, values[layer.name], strict=True
        )
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
    values = {layer.name: layer.get_weights() for layer in model.layers}
    for name, value in named(model.layers, values).items():
        value = stored(value)
        entries[name] = {
            "dtype": value.dtype.name,
            "shape": list(value.shape),
            "sha256": _digest(value),
        }
    return entries


def _digest(values):
    little_endian = values.astype(values.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian.tobytes()).hexdigest()


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


def _layer(name):
    return name.split("/")[0]


def check(found, expected):
    """Checks that values are those published under their names.

    Args:
        found: dict of arrays, of the types that they are stored in, as
            `named` returns.
        expected: dict as `describe` returns.

    Raises:
        ValueError: If some are not; the text names their layer.
    """
    owners = {entry["sha256"]: name for name, entry in expected.items()}
    for name, values in found.items():
        digest = _digest(values)
        if name in expected and expected[name]["sha256"] == digest:
            continue
        owner = owners.get(digest)
        instead = f", but those of '{owner}'" if owner else ""
        raise ValueError(
            f"Layer '{_layer(name)}' does not hold the values published for "
            f"'{name}'{instead}."
        )


def read_file(path):
    """Reads a `.weights.h5` file by the layer names that Keras notes in it.

    Args:
        path: str, or a file object of bytes.

    Returns:
        A dict from layer names to lists of arrays.

    Raises:
        ValueError: If the file has no names, or arrays that lie elsewhere.
    """
    with h5py.File(path, "r") as file:
        layers = _own(file, "layers")
        groups = [_own(_own(layers, name), "vars") for name in layers]
        named = {
            group.attrs.get("name"): [
                _array(_own(group, key)) for key in sorted(group, key=int)
            ]
            for group in groups
            if len(group)
        }
    if None in named:
        raise ValueError(
            "The file does not tell its layers' names. Save it again with "
            "Keras 3.15 or newer."
        )
    return named


def _own(group, name):
    """A part of a file which is not a link to elsewhere."""
    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError(
            f"'{name}' is not in '{group.name}': the file is no '.weights.h5' "
            "of Keras."
        )
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"'{name}' in '{group.name}' is a link.")
    return group[name]


def _array(entry):
    """An array that lies in the file, whole.

    HDF5 knows no bfloat16: Keras notes the name.
    """
    if (
        entry.external
        or entry.is_virtual
        or entry.id.get_storage_size() < entry.nbytes  # or memory runs out
    ):
        raise ValueError(f"The values of '{entry.name}' are not in the file.")
    values = entry[()]
    if entry.attrs.get("dtype") == "bfloat16":
        return values.view("bfloat16").astype("float32")
    return values


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
