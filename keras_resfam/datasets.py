"""Shapes, class names and channel moments of the data sets in the papers.

`mean` and `std` are per channel, in the units of the raw images (0..255), over
all pixels of the training set. (Many projects use standard deviations for
CIFAR-10 that are a fifth too small, because they are means of the standard
deviations of single images.) The moments of ImageNet are those of
fb.resnet.torch, which most ImageNet networks use.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np

from keras_resfam._checks import as_array, check_choice, check_integer


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set's shape, class names and channel moments.

    Attributes:
        name: str. The name in `weights` and in TensorFlow Datasets.
        title: str. The name as papers print it.
        image_shape: tuple. `(height, width, channels)`.
        class_names: tuple of str, in the order of the labels.
        classes: int. Number of classes.
        mean: tuple of floats. The mean of each channel, in 0..255.
        std: tuple of floats. The standard deviation of each channel, in 0..255.
        wordnet_ids: tuple of str, in the order of the labels, such as
            `"n01440764"`. Only ImageNet has them.
    """

    name: str
    title: str
    image_shape: tuple
    class_names: tuple
    classes: int
    mean: tuple
    std: tuple
    wordnet_ids: tuple = ()


def _dataset(name, title, image_shape, class_names, mean, std, wordnet_ids=()):
    names = tuple(class_names.split())
    return Dataset(
        name, title, image_shape, names, len(names), mean, std, wordnet_ids
    )


def _imagenet_classes():
    """Returns the WordNet ids and the names of the classes of ImageNet."""
    path = Path(__file__).with_name("imagenet_classes.txt")
    words = re.sub("#.*", "", path.read_text(encoding="utf-8")).split()
    return tuple(words[::2]), " ".join(words[1::2])


_WORDNET_IDS, _IMAGENET_CLASSES = _imagenet_classes()


_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy
bridge bus butterfly camel can castle caterpillar cattle chair chimpanzee clock
cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange
orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

DATASETS = {
    dataset.name: dataset
    for dataset in (
        _dataset(
            "cifar10",
            "CIFAR-10",
            (32, 32, 3),
            "airplane automobile bird cat deer dog frog horse ship truck",
            mean=(125.307, 122.950, 113.865),
            std=(62.993, 62.089, 66.705),
        ),
        _dataset(
            "cifar100",
            "CIFAR-100",
            (32, 32, 3),
            _CIFAR100_CLASSES,
            mean=(129.304, 124.070, 112.434),
            std=(68.170, 65.392, 70.418),
        ),
        _dataset(
            "svhn_cropped",
            "SVHN",
            (32, 32, 3),
            "0 1 2 3 4 5 6 7 8 9",
            mean=(111.609, 113.161, 120.565),
            std=(50.498, 51.259, 50.244),
        ),
        _dataset(
            "imagenet2012",
            "ImageNet",
            (224, 224, 3),
            _IMAGENET_CLASSES,
            mean=(123.675, 116.280, 103.530),
            std=(58.395, 57.120, 57.375),
            wordnet_ids=_WORDNET_IDS,
        ),
        # scikit-learn's bundled 8x8 digits, scaled from 0..16 to 0..255.
        _dataset(
            "digits",
            "scikit-learn digits",
            (8, 8, 1),
            "0 1 2 3 4 5 6 7 8 9",
            mean=(77.854,),
            std=(95.851,),
        ),
    )
}

ALIASES = {"imagenet": "imagenet2012"}
"""The names of data sets in `keras.applications`."""


def decode_predictions(predictions, dataset, top=5):
    """Returns the names of the most likely classes of predictions.

    Unlike `decode_predictions` in `keras.applications`, it takes the data set
    as an argument, since several have ten classes, and it returns pairs.

    Args:
        predictions: array of shape `(batch, classes)`. The probabilities of
            the classes, or other scores that increase with them, such as
            logits.
        dataset: str or sequence of str. The name of the data set, or the
            names of the classes, such as `keras_resfam.class_names` returns.
        top: int, at least 1. The number of classes to return for each image.
            If there are fewer, all are returned. Defaults to `5`.

    Returns:
        A list with one entry per image, a list of `(class name, score)` pairs
        with the most likely class first.

    Raises:
        ValueError: If the shape does not fit the data set, if a score is NaN
            or plus infinity, or if `top` is below 1.

    Example:

    ```python
    model = keras_resfam.DMRNet(weights="cifar10")
    keras_resfam.decode_predictions(model.predict(images), "cifar10", top=1)
    ```
    """
    names, title = _classes(dataset)
    # Scores are negated for sorting, where unsigned integers would overflow.
    scores = as_array("predictions", predictions).astype("float64")
    if scores.ndim != 2 or scores.shape[1] != len(names):
        raise ValueError(
            f"`predictions` should have the shape (batch, {len(names)}), "
            f"with one column per class{title}. "
            f"Received: predictions.shape={scores.shape}"
        )
    # The logarithm of a probability may be minus infinity.
    broken = np.count_nonzero(~(scores < np.inf).all(axis=1))
    if broken:
        raise ValueError(
            "`predictions` should not have NaN or plus infinity. "
            f"Received: such values in the predictions of {broken} images"
        )
    check_integer("top", top)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(names[k], float(row[k])) for k in columns]
        for row, columns in zip(scores, best, strict=True)
    ]


def _classes(dataset):
    """Returns the names of the classes, and a text that names the data set."""
    if isinstance(dataset, (list, tuple)) and dataset:
        if all(isinstance(name, str) for name in dataset):
            return dataset, ""
    allowed = (*DATASETS, *ALIASES)
    check_choice("dataset", dataset, allowed)
    record = DATASETS[ALIASES.get(dataset, dataset)]
    return record.class_names, f" of {record.title}"
