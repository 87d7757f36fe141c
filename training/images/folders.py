"""Photographs in folders: `<root>/<split>/<class>/<image>`.

They are read with Pillow and do not need TensorFlow. They are decoded and
cropped to one size when they are needed. The order and the crops are functions
of the seed, the epoch and the position, as in `batches`.
"""

import concurrent.futures
import math
import pathlib
import zlib

import numpy as np

from keras_resfam.photographs import load_images, read_file
from training.images import batches

SPLITS = {
    "train": ("train",),
    "test": ("test",),
    "validation": ("validation", "val"),
}
"""The folders that may hold a split."""

ASPECTS = (3 / 4, 4 / 3)
ATTEMPTS = 10  # random crops to try before the central one


def is_root(path):
    """Returns whether a path is a folder of photographs by split and class."""
    names = (name for folders in SPLITS.values() for name in folders)
    return path is not None and any(
        _subfolders(pathlib.Path(path, name)) for name in names
    )


def has_split(root, split):
    """Returns whether a folder of photographs has a split."""
    return _split_folder(root, split) is not None


def classes(root):
    """Returns the names of the class folders, sorted.

    Raises:
        ValueError: If two splits do not have the same classes.
    """
    found = {
        folder.name: tuple(_subfolders(folder))
        for split in SPLITS
        if (folder := _split_folder(root, split)) is not None
    }
    (first, names), *others = found.items()
    for split, there in others:
        differing = sorted(set(names) ^ set(there))
        if differing:
            raise ValueError(
                "`data_dir` should have a folder for each class in every "
                f"split. Received: {root} with {', '.join(differing[:5])} "
                f"not in both {first} and {split}"
            )
    return names


def files(root, split, names):
    """Lists the images of a split, in a fixed random order.

    The order is random so that slices of a split, such as the images that a
    recipe holds out, have images of all classes.

    Args:
        root: Path.
        split: str.
        names: The class folders' names, in the order of the labels.

    Returns:
        `(paths, labels)`: object array and int32 array of shape `(images,)`.

    Raises:
        ValueError: If there is no such split, if a class has no images, or if
            a file cannot be decoded.
    """
    folder = _split_folder(root, split)
    if folder is None:
        raise ValueError(
            f"`data_dir` should have a folder for the split {split}. "
            f"Received: {root} with {', '.join(_subfolders(root))}"
        )
    stray = [x for x in _visible(folder) if not x.is_dir()]
    if stray:
        raise ValueError(
            "Images should be in the folder of their class. Received: "
            f"{stray[0]}"
        )
    paths, labels = [], []
    for label, name in enumerate(names):
        inside = _visible(folder / name)
        if not inside:
            raise ValueError(
                "Every class should have images in every split. Received: "
                f"{folder / name}, which is empty"
            )
        paths += inside
        labels += [label] * len(inside)
    # A damaged image is an error now, and not in the middle of an epoch.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda path: read_file(path, draft=True), paths))
    order = np.random.default_rng(0).permutation(len(paths))
    return np.array(paths, object)[order], np.array(labels, "int32")[order]


def classes_in(option, folder):
    """Returns the names of the class folders in a folder, sorted.

    Args:
        option: str. The option that names the folder.
        folder: Path.

    Raises:
        ValueError: If there are none.
    """
    names = _subfolders(folder)
    if not names:
        raise ValueError(
            f"`{option}` should be a folder with images in <class>/. "
            f"Received: {option} {folder}"
        )
    return names


def files_in(option, folder):
    """Returns all files in a folder and its subfolders, sorted.

    Hidden files, and those in hidden folders, are left out.

    Args:
        option: str. The option that names the folder.
        folder: Path.

    Raises:
        ValueError: If there are none.
    """
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(
            part.startswith(".") for part in path.relative_to(folder).parts
        )
    ]
    if not files:
        raise ValueError(
            f"`{option}` should be a folder of images. Received: "
            f"{option} {folder}, which has no files"
        )
    return sorted(files)


class Photographs:
    """Images in files, which can be indexed like an array.

    Indexing decodes images, and returns their central crops as a uint8 array of
    shape `(rows, size, size, 3)`.

    Args:
        paths: Object array of paths.
        size: int. The side of the crops.
        **transform: `crop` and `interpolation` of central crops, as in
            `keras_resfam.load_images`.
    """

    def __init__(self, paths, size, **transform):
        self.paths = paths
        self.shape = (len(paths), size, size, 3)
        self.transform = transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, rows):
        return load_images(self.paths[rows], self.shape[1], **self.transform)

    def random_crops(self, rows, area, seeds):
        """Takes random crops of images.

        Args:
            rows: int array.
            area: `(least, largest)` share of an image that a crop takes.
            seeds: sequence of seeds for `numpy.random.default_rng`, one for
                each row.

        Returns:
            A uint8 array, as indexing does.
        """

        def crop(path, seed):
            return random_crop(path, self.shape[1], area, seed)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(crop, self.paths[rows], seeds)))

    def checksum(self, labels):
        """Returns a text that identifies the contents of files and labels."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            parts = pool.map(
                lambda path, label: zlib.crc32(path.read_bytes(), label),
                self.paths,
                labels.tolist(),
            )
            return f"{sum(parts):x}"


class Epochs(batches.Epochs):
    """Random crops of photographs in batches, one epoch after another.

    Args:
        photographs: `Photographs`.
        labels: int32 array of shape `(examples,)`.
        recipe: `Recipe`, with `crop_area`.
        seed: int.
        shard: See `batches.Epochs`.
    """

    def __init__(self, photographs, labels, recipe, seed, shard=(0, 1)):
        super().__init__(
            photographs, labels, recipe.batch_size, seed, recipe.mixup, shard
        )
        self.area = recipe.crop_area

    def take(self, epoch, rows):
        order, _ = self.order_and_draws(epoch)
        positions = range(len(order))[rows]
        seeds = [[self.seed, epoch, position] for position in positions]
        return self.images.random_crops(order[rows], self.area, seeds)


def load(paths):
    """Reads images of one size into memory.

    Args:
        paths: sequence of paths.

    Returns:
        uint8 array of shape `(images, height, width, channels)`, with one
        channel if all are gray, else with three.

    Raises:
        ValueError: If an image has another size than the first one.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = list(pool.map(read_file, paths))
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    for path, image in zip(paths, images, strict=True):
        if image.size != images[0].size:
            raise ValueError(
                "Images of different sizes are cut to one size by "
                "`--set image_size=...`. Received: images of "
                f"{_size(images[0])} pixels, and {path} of {_size(image)}"
            )
    arrays = np.stack([np.asarray(image.convert(mode)) for image in images])
    return arrays[..., None] if mode == "L" else arrays


def random_crop(path, size, area, seed):
    """Scales a random rectangle of an image to a square.

    Its area and the logarithm of its aspect are drawn uniformly, as in
    torchvision's `RandomResizedCrop`.
    """
    image = read_file(path).convert("RGB")
    rng = np.random.default_rng(seed)
    width, height = image.size
    for _ in range(ATTEMPTS):
        pixels = width * height * rng.uniform(*area)
        aspect = math.exp(rng.uniform(*map(math.log, ASPECTS)))
        w, h = math.sqrt(pixels * aspect), math.sqrt(pixels / aspect)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return _scaled(image, (left, top, left + w, top + h), size)
    side = min(image.size)
    left, top = (width - side) / 2, (height - side) / 2
    return _scaled(image, (left, top, left + side, top + side), size)


def _scaled(image, box, size):
    from PIL import Image

    return np.asarray(
        image.resize((size, size), Image.Resampling.BILINEAR, box)
    )


def _size(image):
    return "{} x {}".format(*image.size)


def _split_folder(root, split):
    for name in SPLITS.get(split, (split,)):
        folder = pathlib.Path(root, name)
        if _subfolders(folder):
            return folder
    return None


def _subfolders(path):
    """Returns the sorted names of subfolders, none if there is no folder."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return []
    return [inner.name for inner in _visible(path) if inner.is_dir()]


def _visible(folder):
    """Returns what is in a folder, sorted, without hidden files and folders."""
    return sorted(x for x in folder.iterdir() if not x.name.startswith("."))
