"""Images and labels for the instruments, whatever form they come in."""

import hashlib

import numpy as np

from keras_resfam import graphs
from keras_resfam._checks import as_array, as_numbers, check_images, is_iterable


def check_fit(name, images, model):
    """Checks that images are such as a model of one input takes."""
    shape = model.inputs[0].shape[1:]
    check_images(name, images, shape, graphs.image_moments(model))


def images_and_labels(x, y, model, chain):
    """The arguments `x` and `y` as an array and integers that fit a model."""
    images, labels = as_array("x", x), np.atleast_1d(as_array("y", y))
    check_fit("x", images, model)
    _check_counts("`x` and `y`", images, labels)
    return images, class_numbers("y", labels, chain)


def class_numbers(name, labels, chain):
    """Labels as integers, which may be one-hot rows.

    Args:
        name: str. The argument that holds them.
        labels: array of numbers.
        chain: `Chain` of the network whose classes they are.

    Raises:
        ValueError: If they are something else, or not of the classes.
    """
    classes = chain.graph.outputs[0].shape[-1]
    numbers = labels.reshape(-1)
    if labels.ndim == 2 and labels.shape[1] == classes:
        numbers = labels.argmax(-1)
        # To `argmax` NaN is the largest, and of equals the first.
        valid = (labels == labels.max(-1, keepdims=True)).sum(-1) == 1
    else:
        valid = (0 <= numbers) & (numbers < classes)
        valid &= numbers == np.floor(numbers)
    if len(numbers) != len(labels) or not np.all(valid):
        raise ValueError(
            f"The labels of `{name}` should be integers within 0 and "
            f"{classes - 1}, the classes of `model`, or one-hot rows of as "
            f"many. Received: labels of shape {labels.shape} from "
            f"{labels.min()} to {labels.max()}"
        )
    return numbers.astype("int64")


def read_data(data):
    """Images and labels as two arrays."""
    if _is_pair(data):
        images, labels = _read_batch(data)
    else:
        if not is_iterable(data):
            raise _refusal(f"data={data!r}")
        batches = [_read_batch(batch) for batch in data]
        shapes = {(x.shape[1:], y.shape[1:]) for x, y in batches}
        if len(shapes) > 1:
            raise _refusal(f"batches of the shapes {sorted(shapes)}")
        images, labels = (
            np.concatenate([batch[k] for batch in batches] or [[]])
            for k in range(2)
        )
    _check_counts("`data`", images, labels)
    return images, labels


def _check_counts(where, images, labels):
    """Refuses other than one label for each image."""
    if not len(images) or len(images) != len(labels):
        raise ValueError(
            f"There should be as many images as labels in {where}, at least "
            f"one. Received: {len(images)} images, {len(labels)} labels"
        )


def _read_batch(batch):
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise _refusal(f"batches, of which one is a {type(batch).__name__}")
    arrays = images, labels = [as_numbers(part) for part in batch[:2]]
    for array, part in zip(arrays, batch, strict=False):
        if array is None:
            raise _refusal(f"a {type(part).__name__} that holds no numbers")
    if not images.ndim or not labels.ndim:
        raise _refusal(f"arrays of the shapes {images.shape}, {labels.shape}")
    return images, labels


def _refusal(received):
    return ValueError(
        "`data` should be a pair (images, labels), or batches of such. "
        f"Received: {received}"
    )


def _is_pair(data):
    """Whether data are images and labels, rather than batches of both."""
    if not isinstance(data, tuple | list):
        return False
    arrays = len(data) > 0 and all(hasattr(part, "shape") for part in data)
    if arrays and len(data) != 2:
        raise _refusal(f"a {type(data).__name__} of {len(data)} arrays")
    batches = any(isinstance(part, tuple) for part in data)
    return arrays or (
        isinstance(data, tuple) and len(data) == 2 and not batches
    )


def check_columns(name, columns, wanted):
    """Refuses other than a dict with arrays as long as each other.

    Args:
        name: str. The argument's name.
        columns: what an instrument should have returned.
        wanted: tuple of str. The keys that are needed.
    """
    found = columns if isinstance(columns, dict) else {}
    arrays = [as_numbers(found.get(key)) for key in wanted]
    shapes = {array is not None and array.shape for array in arrays}
    if len(shapes) > 1 or not all(shape and shape[0] for shape in shapes):
        raise ValueError(
            f"`{name}` should be a dict with arrays of one length as "
            f"{', '.join(map(repr, wanted))}. Received: {name}={columns!r}"
        )


def check_classifier(chain):
    shape = chain.graph.outputs[0].shape
    if len(shape) != 2 or shape[-1] == 1:
        raise ValueError(
            "`model` should have an output of shape (batch, classes), of two "
            f"classes at least. Received: output shape={shape}"
        )


def digest(arrays):
    """The start of the SHA-256 of some arrays, in their order."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def digest_data(images, labels, chain):
    """The digest of data as the network takes them, whatever their type."""
    dtype = chain.graph.inputs[0].dtype
    if dtype == "bfloat16":  # which NumPy does not know
        dtype = "float32"
    return digest([*(image.astype(dtype) for image in images), labels])
