"""Image classification data: TensorFlow Datasets, arrays, or folders.

Data sets whose images have one size are read once, into uint8 arrays.
"""

import contextlib
import itertools
import pathlib
import re
import sys
import zipfile
import zlib

import keras
import numpy as np

from keras_resfam.datasets import DATASETS
from training.images import folders
from training.startup import backend

PART = re.compile(r"(\w+)(?:\[(-?\d+)?:(-?\d+)?\])?")  # of a split


def record_of(name):
    """Returns the `Dataset` of a name, or `None` if it is not in `DATASETS`.

    Args:
        name: str. A name in TensorFlow Datasets, optionally followed by a
            version or a configuration, such as "cifar10:3.0.2".
    """
    return DATASETS.get(re.split("[:/]", name)[0])


def load(name, split, data_dir=None):
    """Reads a split into memory.

    Args:
        name: str. "digits" (scikit-learn's, bundled), or a name in
            TensorFlow Datasets whose images have one size.
        split: str. Parts joined by "+", such as "train+extra". A part may
            have a slice of examples, as in "train[-500:]".
        data_dir: Path or `None`. A TensorFlow Datasets `data_dir`, or an
            `.npz` file of arrays `x_train`, `y_train`, `x_test`, `y_test`
            (in general `x_<split>`), or a folder with `<name>.npz`; or a
            folder of images, `<split>/<class>/<file>`. Arrays and folders do
            not need TensorFlow.

    Returns:
        `(images, labels)`: uint8 array of shape `(examples, height, width,
        channels)` and int32 array of shape `(examples,)`.

    Raises:
        ValueError: If there is no such data or split.
    """
    if name == "digits":
        if data_dir is not None:
            raise ValueError(
                "`data_dir` should be None for the digits, which come with "
                "scikit-learn: other data are named by `--recipe`, or by "
                f"`--set dataset=...`. Received: data_dir={data_dir}"
            )
        return _joined(split, _digits)
    path = npz_path(name, data_dir)
    if path is None and folders.is_root(data_dir):
        path = data_dir
        paths, labels = _files(name, split, data_dir)
        images = folders.load(paths)
    elif path is None:
        return _tfds(name, split, data_dir)
    else:
        with _open_npz(path) as file:
            images, labels = _joined(split, lambda part: _npz(path, file, part))
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            "Images should be uint8 of shape (examples, height, width, "
            f"channels). Received: {path} with {images.dtype} of shape "
            f"{images.shape}"
        )
    record = record_of(name)
    if record and images.shape[1:] != record.image_shape:
        raise ValueError(
            f"The images of {name} should be of the shape "
            f"{record.image_shape}; name other data by "
            f"`--set dataset=...`. Received: {path} with images of shape "
            f"{images.shape[1:]}"
        )
    return np.ascontiguousarray(images), labels.astype("int32")


def photographs(name, split, data_dir, size, **transform):
    """Returns the images of a split in folders, which are cropped to a size.

    Args:
        name, split, data_dir: See `load`.
        size: int. The side of the crops.
        **transform: See `folders.Photographs`.

    Returns:
        `(images, labels)`: `folders.Photographs` and an int32 array of shape
        `(examples,)`.
    """
    paths, labels = _files(name, split, data_dir)
    return folders.Photographs(paths, size, **transform), labels


def _files(name, split, data_dir):
    """Returns the paths and labels of a split in folders."""
    order = _class_folders(name, data_dir)
    return _joined(split, lambda part: folders.files(data_dir, part, order))


def _class_folders(name, data_dir):
    """Returns the names of the class folders, in the order of the labels."""
    found, record = folders.classes(data_dir), record_of(name)
    if record is None:
        return found
    if set(found) == set(record.class_names):
        return record.class_names
    ids = all(re.fullmatch(r"n\d{8}", folder) for folder in found)
    if record is DATASETS["imagenet2012"] and ids and len(found) == 1000:
        return found  # WordNet ids, in the order of the labels
    shown = ", ".join(found[:5]) + ", ..." * (len(found) > 5)
    raise ValueError(
        f"The class folders of {name} should have the names of its classes; "
        "name other data by `--set dataset=...`. Received: "
        f"{data_dir} with {shown}"
    )


def has_split(name, split, data_dir=None):
    """Returns whether a data set has a split."""
    parts = {part.partition("[")[0] for part in split.split("+")}
    if name == "digits":
        return parts <= {"train", "test"}
    path = npz_path(name, data_dir)
    if path is None and folders.is_root(data_dir):
        return all(folders.has_split(data_dir, part) for part in parts)
    if path is None:  # TFDS has every split of the data sets known here
        return bool(record_of(name)) or parts <= set(
            tfds_builder(name, data_dir).info.splits
        )
    with _open_npz(path) as file:
        return all(f"x_{part}" in file for part in parts)


def in_memory(name, data_dir):
    """Returns whether the images are arrays, which have one size."""
    return name == "digits" or npz_path(name, data_dir) is not None


def npz_path(name, data_dir):
    """Returns the file of arrays in `data_dir`, or `None` if it has none.

    Raises:
        ValueError: If `data_dir` does not exist. (An address, such as
            `gs://...`, is left to TensorFlow Datasets.)
    """
    if data_dir is None or "://" in str(data_dir):
        return None
    path = pathlib.Path(data_dir)
    if not path.exists():
        raise ValueError(
            "`data_dir` should be a folder or an .npz file that exists. "
            f"Received: data_dir={data_dir}, which does not exist"
        )
    if path.suffix != ".npz":
        path = path / f"{name}.npz"
    return path if path.is_file() else None


def _joined(split, read):
    """Returns the arrays of a split's parts, one part after another.

    Args:
        split: str.
        read: callable from the name of a part to its images and labels.
    """
    chosen = []
    for part in split.split("+"):
        found = PART.fullmatch(part)
        if found is None:
            raise ValueError(
                "A part of a split should be a name, with a slice of examples "
                f"or without, such as train[-500:]. Received: split={split}"
            )
        name, *edges = found.groups()
        rows = slice(*(edge and int(edge) for edge in edges))
        chosen.append([array[rows] for array in read(name)])
    images, labels = map(np.concatenate, zip(*chosen, strict=True))
    return images, labels


def _digits(part):
    """Returns a part of scikit-learn's digits, 1,437 train and 360 test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "The digits come with scikit-learn, which is not installed: "
            'pip install -e ".[digits]". Received: dataset=digits'
        ) from error

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    parts = {"train": order[360:], "test": order[:360]}
    if part not in parts:
        raise ValueError(
            f"The digits have the splits train and test. Received: split={part}"
        )
    images = np.round(digits.images[parts[part], :, :, None] * (255 / 16))
    return images.astype("uint8"), digits.target[parts[part]].astype("int32")


def _open_npz(path):
    with _reading(path):
        file = np.load(path)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
    return file


@contextlib.contextmanager
def _reading(path):
    """Context manager that adds the name of the file to errors."""
    try:
        yield
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"`data_dir` should name an .npz file of arrays that can be read. "
            f"Received: {path}: {error}"
        ) from error


def _npz(path, file, part):
    if f"x_{part}" not in file or f"y_{part}" not in file:
        raise ValueError(
            f"{path} should hold the arrays x_{part} and y_{part}; it holds "
            f"{', '.join(file.files)}. Received: split={part}"
        )
    with _reading(path):
        images, labels = file[f"x_{part}"], file[f"y_{part}"]
    if labels.dtype.kind not in "iu" or labels.shape[1:] not in ((), (1,)):
        raise ValueError(
            f"{path} should hold labels that are integers, one for each image. "
            f"Received: y_{part} with {labels.dtype} of shape {labels.shape}"
        )
    labels = labels.reshape(-1)
    low, high = (labels.min(), labels.max()) if len(labels) else (0, 0)
    if low < 0 or high > np.iinfo("int32").max:
        raise ValueError(
            f"{path} should hold labels that count the classes from 0. "
            f"Received: y_{part} with labels from {low} to {high}"
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{path} should hold as many labels as images. Received: "
            f"{len(images)} in x_{part}, {len(labels)} in y_{part}"
        )
    return images, labels


def _tfds(name, split, data_dir):
    builder = tfds_builder(name, data_dir)
    if None in builder.info.features["image"].shape:
        raise ValueError(
            f"The images of {name} differ in size: networks for them are "
            "trained by recipes with the side to cut them to, as train.py's "
            f"`--set image_size=224`. Received: dataset={name}, image_size=None"
        )
    import tensorflow_datasets as tfds

    with naming_split(name, split):
        dataset = builder.as_dataset(split=split, batch_size=4096)
    with naming_files(name, split):
        batches = list(tfds.as_numpy(dataset))
    images = np.concatenate([batch["image"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    return images, labels.astype("int32")


@contextlib.contextmanager
def naming_split(name, split):
    """Context manager that adds the name of the split to errors of TFDS."""
    try:
        yield
    except (ValueError, AssertionError) as error:
        raise ValueError(
            f"{name} should have the split. Received: split={split}: {error}"
        ) from error


@contextlib.contextmanager
def naming_files(name, split):
    """Context manager that names the data set and split of a damaged file.

    Raises:
        OSError: If TensorFlow raises an error for a damaged or missing file.
    """
    try:
        yield
    except Exception as error:
        tf = sys.modules.get("tensorflow")  # if it was imported
        damage = tf and (tf.errors.DataLossError, tf.errors.NotFoundError)
        if not isinstance(error, damage or ()):
            raise
        reason = re.sub(r"\{\{.*?\}\}|\[.*", "", error.message).strip()
        raise OSError(
            f"{name} should have files that can be read, of the split {split}. "
            f"Received: {reason.splitlines()[-1]}"
        ) from error


def tfds_builder(name, data_dir=None):
    """Returns the TFDS builder of a data set, downloaded and prepared.

    Raises:
        ValueError: If TensorFlow Datasets is not installed, has no such name,
            or cannot prepare it; or if the data are not images with a label.
    """
    try:
        with backend.quiet():
            import tensorflow as tf
            import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"{name} is read with tensorflow and tensorflow-datasets, and "
            f"{error.name} is not installed. Install them, or give "
            "`--data-dir` an .npz file of arrays x_train, y_train, x_test, "
            "y_test, or a folder of images, <split>/<class>/<image>. "
            f"Received: dataset={name}, data_dir={data_dir}"
        ) from error
    if keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ValueError(
            "TensorFlow Datasets has no such data set, and `--data-dir` has "
            "neither arrays of it nor folders train/<class>/ and "
            f"test/<class>/ of images. Received: dataset={name}"
        ) from error
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise ValueError(
            "A data set to classify should have the features image and label; "
            f"{name} has {', '.join(features)}. Received: dataset={name}"
        )
    check_features(name, features)
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS has no class of errors of its own
        raise ValueError(
            f"TensorFlow Datasets cannot prepare {name}: {error} "
            f"Received: dataset={name}"
        ) from error
    return builder


def check_features(name, features):
    """Checks that images and labels are like those of an .npz file.

    Args:
        name: str. The name of the data set.
        features: dict. TFDS's description of images and labels.
    """
    import tensorflow_datasets as tfds

    image, label = features["image"], features["label"]
    if image.np_dtype != np.uint8 or len(image.shape) != 3:
        raise ValueError(
            f"The images of {name} should be uint8, 0 to 255, of shape "
            "(height, width, channels). Received: images of "
            f"{np.dtype(image.np_dtype)} of shape {image.shape}"
        )
    if not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"The labels of {name} should be a ClassLabel, which counts the "
            f"classes. Received: a {type(label).__name__}"
        )


def classes_of(name, labels, data_dir=None):
    """Returns the number of classes of a data set in memory.

    The classes of arrays are counted by their labels.

    Args:
        name: str.
        labels: int array, the training labels.
        data_dir: See `load`.

    Raises:
        ValueError: If there are labels of more classes than the data set has,
            or if arrays or folders have less than two classes or a class
            without images.
    """
    if record_of(name):
        classes = record_of(name).classes
    elif npz_path(name, data_dir):
        classes = int(labels.max()) + 1
        check_every_class(name, labels, classes)
    elif folders.is_root(data_dir):
        classes = len(folders.classes(data_dir))
        check_every_class(name, labels, classes)
    else:
        label = tfds_builder(name, data_dir).info.features["label"]
        classes = label.num_classes
    check_labels(name, labels, classes)
    return classes


def check_every_class(name, labels, classes):
    """Checks that labels number at least two classes from 0 on."""
    there = set(labels.tolist())
    missing = (str(k) for k in range(classes) if k not in there)
    missing = list(itertools.islice(missing, 6))  # there may be billions
    if missing or classes < 2:
        few = ", ".join(missing[:5]) + ", ..." * (len(missing) > 5)
        raise ValueError(
            f"The labels of {name} should be 0, 1 and so on, with images of "
            f"each to train on. Received: labels up to {classes - 1}"
            + (f", but none of {few}" if missing else "")
        )


def checksum(images, labels):
    """Returns a text that identifies the data, whatever their order."""
    if isinstance(images, folders.Photographs):
        return images.checksum(labels)
    pairs = zip(images, labels.tolist(), strict=True)
    return f"{sum(zlib.crc32(image, label) for image, label in pairs):x}"


def tfds_checksum(builder):
    """Returns the same for a TFDS data set, by its own description."""
    splits = sorted(builder.info.splits.items())
    sizes = [f"{name} of {split.num_bytes} bytes" for name, split in splits]
    return ", ".join([builder.info.full_name, *sizes])


def check_not_empty(name, split, examples):
    """Checks that a split has images."""
    if examples < 1:
        raise ValueError(
            f"A split should have images. Received: {split} of {name}, with "
            "none"
        )


def check_labels(name, labels, classes):
    """Checks that labels are those of the classes."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"The labels of {name} should be 0 to {classes - 1}. "
            f"Received: labels from {low} to {high}"
        )


def split_in_two(split, count):
    """Returns the names of a split without its last examples, and of these.

    Args:
        split: str. Parts joined by "+".
        count: int. The number of examples to hold out. With 0, the second name
            is `None`.
    """
    if not count:
        return split, None
    *others, last = split.split("+")
    if "[" in last:
        raise ValueError(
            "`train_split` should end in a whole split, of which `validation` "
            f"holds out the last images. Received: train_split={split}, "
            f"validation={count}"
        )
    return "+".join([*others, f"{last}[:-{count}]"]), f"{last}[-{count}:]"


def class_names(name, data_dir=None):
    """Returns the names of a data set's classes, in the order of the labels.

    Returns:
        A sequence of str, or `None` for arrays of an unknown data set.
    """
    if record_of(name):
        return record_of(name).class_names
    if npz_path(name, data_dir):
        return None
    if folders.is_root(data_dir):
        return folders.classes(data_dir)
    return tfds_builder(name, data_dir).info.features["label"].names
