"""The images on which a trained network is measured."""

import pathlib

import numpy as np

import keras_resfam
from keras_resfam.datasets import DATASETS
from training.images import folders, reading


def test_split(dataset):
    """Returns the split of a data set on which no network is trained."""
    imagenet = reading.record_of(dataset) is DATASETS["imagenet2012"]
    return "validation" if imagenet else "test"


def own_split(description, dataset, data_dir):
    """Returns the split on which a network is measured.

    It is the test split of its recipe. If the data set has none, it is the
    images that the run has held out.

    Args:
        description: dict. The network's, as `loading.load_network` returns it.
        dataset: str. The network's own data set, or another.
        data_dir: See `reading.load`.
    """
    if dataset != description["dataset"]:
        return test_split(dataset)
    split, count = description["test_split"], description.get("validation")
    if not count or reading.has_split(dataset, split, data_dir):
        return split
    return reading.split_in_two(description["train_split"], count)[1]


def load_data(dataset, split, description, data_dir):
    """Returns the batches of a data set, and the names of its classes."""
    names = reading.class_names(dataset, data_dir)
    if dataset == description.get("dataset"):
        _check_same_classes(names, description.get("class_names"), dataset)
    size = description.get("image_size")
    transform = description.get("transform", {})
    if size and reading.in_memory(dataset, data_dir):
        size = None
    if size and folders.is_root(data_dir):
        images, labels = reading.photographs(
            dataset, split, data_dir, size, **transform
        )
        return in_batches(images, labels), names
    if size:
        builder = reading.tfds_builder(dataset, data_dir)
        from training.images import streams

        batches = streams.in_order(builder, split, size, transform=transform)
        return _named(batches.as_numpy_iterator(), dataset, split), names
    images, labels = reading.load(dataset, split, data_dir)
    reading.check_not_empty(dataset, split, len(labels))
    return in_batches(images, labels), names


def _check_same_classes(names, trained, dataset):
    """Checks that data have the classes of the training data."""
    if names and trained and list(names) != list(trained):
        raise ValueError(
            f"{dataset} should have the classes that the network was trained "
            f"on: {', '.join(trained)}. Received: {', '.join(names)}"
        )


def _named(batches, dataset, split):
    """Yields the batches of a split. An error names a damaged split."""
    with reading.naming_files(dataset, split):
        yield from batches


def check_classes(model, dataset, names):
    """Checks that a data set has as many classes as a model, if known.

    Args:
        model: `keras.Model`.
        dataset: str.
        names: sequence of the classes' names, or `None`.
    """
    classes = model.output_shape[-1]
    if names and len(names) != classes:
        raise ValueError(
            f"`dataset` should have the {classes} classes of the network. "
            f"Received: {dataset}, which has {len(names)}"
        )


def in_batches(images, labels, size=100):
    """Yields arrays in batches `(images, labels)`.

    They are small, because eager torch keeps the outputs of all layers until
    the last one has run: 3.6 GB for 100 images in WRN-28-10.
    """
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        yield images[rows], labels[rows]


def all_in_folder(option, folder, model, size=100):
    """Yields all images of a folder in batches, cropped for a network.

    Args:
        option: str. The option that names the folder.
        folder: Path.
        model: `keras.Model` from raw images.
        size: int. Images in a batch. Defaults to `100`.

    Yields:
        Pairs `(images, labels)`, where all labels are 0.
    """
    transform = keras_resfam.image_transform(model)
    paths = folders.files_in(option, pathlib.Path(folder))
    for start in range(0, len(paths), size):
        images = keras_resfam.load_images(
            paths[start : start + size], **transform
        )
        yield images, np.zeros(len(images), "int32")


def first_examples(batches, examples=None):
    """Returns the arrays of the first examples, or of all."""
    chosen, count = [], 0
    for batch in batches:
        chosen.append(batch)
        count += len(batch[1])
        if examples is not None and count >= examples:
            break
    images, labels = map(np.concatenate, zip(*chosen, strict=True))
    return images[:examples], labels[:examples]
