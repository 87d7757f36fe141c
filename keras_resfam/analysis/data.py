"""Converts and checks the images and labels that users pass."""

import hashlib

import numpy as np

from keras_resfam import graphs
from keras_resfam._checks import as_array, as_numbers, check_images, is_iterable


def check_fit(name, images, model):
    """Checks that images fit the input of a model."""
    shape = model.inputs[0].shape[1:]
    check_images(name, images, shape, graphs.image_moments(model))


def images_and_labels(x, y, model, chain):
    """Converts the arguments `x` and `y` to images and integer labels.

    Args:
        x: array of images.
        y: array of labels.
        model: `keras.Model` with one input.
        chain: `Chain` of the model.

    Returns:
        A pair of arrays.

    Raises:
        ValueError: If they do not fit the model.
    """
    images, labels = as_array("x", x), np.atleast_1d(as_array("y", y))
    check_fit("x", images, model)
    _check_counts("`x` and `y`", images, labels)
    return images, class_numbers("y", labels, chain)


def class_numbers(name, labels, chain):
    """Converts labels, which may be one-hot rows, to integers.

    Args:
        name: str. The argument's name.
        labels: array of numbers.
        chain: `Chain` of the classifier.

    Returns:
        An int64 array of shape `(examples,)`.

    Raises:
        ValueError: If they are not labels of the classifier's classes.
    """
    classes = chain.graph.outputs[0].shape[-1]
    numbers = labels.reshape(-1)
    if labels.ndim == 2 and labels.shape[1] == classes:
        numbers = labels.argmax(-1)
        # `argmax` would choose NaN, or the first of several equal values.
        valid = (labels == labels.max(-1, keepdims=True)).sum(-1) == 1
    else:
        valid = (0 <= numbers) & (numbers < classes)
        valid &= numbers == np.floor(numbers)
    if len(numbers) != len(labels) or not np.all(valid):
        raise ValueError(
            f"The labels of `{name}` should be integers from 0 to "
            f"{classes - 1}, the classes of `model`, or one-hot rows of "
            f"{classes} values. Received: labels of shape {labels.shape} from "
            f"{labels.min()} to {labels.max()}"
        )
    return numbers.astype("int64")


def read_data(data):
    """Converts the argument `data` to two arrays, images and labels.

    Args:
        data: pair of arrays, or iterable of such pairs.
    """
    if _is_pair(data):
        images, labels = _read_batch(data)
    else:
        if not is_iterable(data):
            raise _data_error(f"data={data!r}")
        batches = [_read_batch(batch) for batch in data]
        shapes = {(x.shape[1:], y.shape[1:]) for x, y in batches}
        if len(shapes) > 1:
            raise _data_error(f"batches of the shapes {sorted(shapes)}")
        images, labels = (
            np.concatenate([batch[k] for batch in batches] or [[]])
            for k in range(2)
        )
    _check_counts("`data`", images, labels)
    return images, labels


def _check_counts(where, images, labels):
    """Checks that there is one label for each image."""
    if not len(images) or len(images) != len(labels):
        raise ValueError(
            f"There should be as many images as labels in {where}, at least "
            f"one. Received: {len(images)} images, {len(labels)} labels"
        )


def _read_batch(batch):
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise _data_error(f"batches, of which one is a {type(batch).__name__}")
    arrays = images, labels = [as_numbers(part) for part in batch[:2]]
    for array, part in zip(arrays, batch, strict=False):
        if array is None:
            raise _data_error(f"a {type(part).__name__} without numbers")
    if not images.ndim or not labels.ndim:
        raise _data_error(
            f"arrays of the shapes {images.shape} and {labels.shape}"
        )
    return images, labels


def _data_error(received):
    return ValueError(
        "`data` should be a pair (images, labels), or batches of such pairs. "
        f"Received: {received}"
    )


def _is_pair(data):
    """Returns whether data are images and labels, and not batches of them."""
    if not isinstance(data, tuple | list):
        return False
    arrays = len(data) > 0 and all(hasattr(part, "shape") for part in data)
    if arrays and len(data) != 2:
        raise _data_error(f"a {type(data).__name__} of {len(data)} arrays")
    batches = any(isinstance(part, tuple) for part in data)
    return arrays or (
        isinstance(data, tuple) and len(data) == 2 and not batches
    )


def check_columns(name, columns, wanted):
    """Checks that an argument is a dict with arrays of equal lengths.

    Args:
        name: str. The argument's name.
        columns: The argument.
        wanted: tuple of str. The keys that are needed.
    """
    found = columns if isinstance(columns, dict) else {}
    arrays = [as_numbers(found.get(key)) for key in wanted]
    shapes = {array is not None and array.shape for array in arrays}
    if len(shapes) > 1 or not all(shape and shape[0] for shape in shapes):
        raise ValueError(
            f"`{name}` should be a dict with arrays of one length for "
            f"{', '.join(map(repr, wanted))}. Received: {name}={columns!r}"
        )


def check_classifier(chain):
    """Checks that the output of a model has one value for each class."""
    shape = chain.graph.outputs[0].shape
    if len(shape) != 2 or shape[-1] == 1:
        raise ValueError(
            "`model` should have an output of shape (batch, classes), with at "
            f"least two classes. Received: output shape={shape}"
        )


def digest(arrays):
    """Returns the first 16 digits of the SHA-256 of arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def digest_data(images, labels, chain):
    """Returns the digest of data in the type that the network takes."""
    dtype = chain.graph.inputs[0].dtype
    if dtype == "bfloat16":  # which NumPy does not know
        dtype = "float32"
    return digest([*(image.astype(dtype) for image in images), labels])
