"""Images and labels for the instruments, whatever form they come in."""

import hashlib

import keras
import numpy as np

from keras_resfam import graphs
from keras_resfam._checks import check_images


def arrays(data, model, chain):
    """Images, and labels as the numbers of the classes of a model's chain."""
    images, labels = read_data(data)
    check_fit(images, model)
    return images, class_numbers(labels, chain)


def check_fit(images, model):
    """Checks that images are such as a model of one input takes."""
    shape = model.inputs[0].shape[1:]
    check_images(images, shape, graphs.image_moments(model))


def class_numbers(labels, chain):
    """Labels as integers, which may be one-hot rows.

    Raises:
        ValueError: If they are something else, or not of the classes.
    """
    classes = chain.graph.outputs[0].shape[-1]
    if labels.ndim == 2 and labels.shape[1] == classes:
        labels = labels.argmax(-1)
    numbers = labels.reshape(-1)
    if numbers.dtype.kind not in "biuf":
        raise ValueError(
            f"Labels should be integers within 0 and {classes - 1}. Received: "
            f"labels of type {labels.dtype}"
        )
    if len(numbers) != len(labels) or not np.all(
        (0 <= numbers) & (numbers < classes) & (numbers == np.floor(numbers))
    ):
        raise ValueError(
            f"Labels should be integers within 0 and {classes - 1}, the "
            "classes of `model`, or one-hot rows of as many. Received: labels "
            f"of shape {labels.shape} from {labels.min()} to {labels.max()}"
        )
    return numbers.astype("int64")


def read_data(data):
    """Images and labels as two arrays."""
    if _is_pair(data):
        images, labels = _read_batch(data)
    else:
        if not np.iterable(data):
            raise _refusal(f"data={data!r}")
        batches = [_read_batch(batch) for batch in data]
        images, labels = (
            np.concatenate([batch[k] for batch in batches] or [[]])
            for k in range(2)
        )
    if not len(images) or len(images) != len(labels):
        raise ValueError(
            "There should be as many images as labels, at least one. "
            f"Received: {len(images)} images, {len(labels)} labels"
        )
    return images, labels


def _read_batch(batch):
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise _refusal(f"batches, of which one is a {type(batch).__name__}")
    images, labels = (keras.ops.convert_to_numpy(part) for part in batch[:2])
    if not np.ndim(labels):
        raise _refusal(f"an array of shape {images.shape} and one label")
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
