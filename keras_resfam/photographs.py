"""Photographs of any size, as networks take them, and what they show."""

import math
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_resfam import graphs
from keras_resfam._checks import (
    are_probabilities,
    check_choice,
    check_integer,
    check_number,
)
from keras_resfam.datasets import ALIASES, DATASETS, decode_predictions
from keras_resfam.pretrained import sources

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_INTERPOLATIONS = "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"
_USUAL = {"crop": 224 / 256, "interpolation": "bilinear"}


def load_images(
    images: Any,
    size: int | Sequence[int],
    crop: float = 224 / 256,
    interpolation: str = "bilinear",
    channels: int = 3,
) -> np.ndarray:
    """Reads images of any size as one array.

    An image is resized until its shorter side is `size / crop`, and the square
    of `size` pixels in its centre is cut out. This is the evaluation transform
    of timm and torchvision, pixel by pixel. It needs Pillow.

    Args:
        images: path, `PIL.Image.Image` or uint8 array of shape
            `(height, width)` or `(height, width, channels)`, 0 to 255; or a
            sequence of these. Photographs in files are rotated as their EXIF
            data say.
        size: int or pair of ints. Side of the images that are returned, in
            pixels, or their height and width.
        crop: float in `[0.01, 1]`. Share of the shorter side that is kept; `1`
            keeps all of it. Defaults to `0.875`, 224 of 256 pixels.
        interpolation: str. A filter of Pillow: `"nearest"`, `"box"`,
            `"bilinear"`, `"hamming"`, `"bicubic"` or `"lanczos"`. Defaults to
            `"bilinear"`.
        channels: int. 1 for grey images, 3 for RGB and 4 for RGBA. Images are
            converted. Defaults to `3`.

    Returns:
        uint8 array of shape `(images, height, width, channels)`, 0 to 255.

    Raises:
        ValueError: If an argument is not allowed, or an image cannot be read,
            or has more than 8 bits a channel.

    Example:

    ```python
    images = keras_resfam.load_images(["cat.jpg", "dog.png"], size=224)
    ```
    """
    if not isinstance(size, (tuple, list)):
        size = size, size
    if len(size) != 2:
        raise ValueError(
            f"`size` should be an int or a pair of ints. Received: size={size}"
        )
    for side in size:
        check_integer("size", side)
    check_number("crop", crop, 0.01, 1)
    check_choice("interpolation", interpolation, _INTERPOLATIONS)
    check_choice("channels", channels, tuple(_MODES))
    cut = [
        _cut(_open(image).convert(_MODES[channels]), size, crop, interpolation)
        for image in _listed(images)
    ]
    return np.stack([np.asarray(x).reshape(*size, channels) for x in cut])


def predict_images(
    model: keras.Model,
    images: Any,
    weights: str | os.PathLike | None = None,
    names: str | Sequence[str] | None = None,
    top: int = 5,
    crop: float | None = None,
    interpolation: str | None = None,
    batch_size: int = 32,
) -> list[list[tuple[str, float]]]:
    """Classifies photographs: files or images in, names of classes out.

    Args:
        model: `keras.Model` that takes raw images, 0 to 255, and returns
            probabilities, as builders return it by default.
        images: path, `PIL.Image.Image`, array, or a sequence of these. See
            `load_images`.
        weights: str. What the model was built with as `weights`. It tells the
            names of the classes and, for a checkpoint whose authors state
            them, `crop` and `interpolation`. Defaults to `None`.
        names: data set's name or sequence of str. The names of the classes,
            if `weights` does not tell them. Defaults to `None`; 1,000 classes
            are then taken to be ImageNet's.
        top: int. How many classes to return for each image. Defaults to `5`.
        crop: float. See `load_images`. Defaults to that of `weights`, else to
            0.875, and to 1 for networks of images of up to 64 pixels.
        interpolation: str. See `load_images`. Defaults to that of `weights`,
            else to `"bilinear"`.
        batch_size: int. Images that are predicted at a time. Defaults to
            `32`.

    Returns:
        A list with one entry for each image: a list of pairs
        `(class name, probability)`, the likeliest first.

    Raises:
        ValueError: If an argument is not allowed, an image cannot be read,
            nothing tells the names of the classes, or the model does not
            normalize images itself or does not return probabilities.
        keras_resfam.HubError: If the Hub does not tell what `weights` are.

    Example:

    ```python
    model = keras_resfam.WideResNet50_2(weights="imagenet")
    keras_resfam.predict_images(model, "cat.jpg", top=1)
    # [[("tabby", 0.71)]]
    ```
    """
    check_integer("batch_size", batch_size)
    height, width, channels = _image_shape(model)
    names = _class_names(model, weights, names)
    transform = dict(_USUAL)
    if max(height, width) <= 64:
        transform["crop"] = 1.0
    if weights is not None:
        transform |= sources.image_transform(weights)
    given = {"crop": crop, "interpolation": interpolation}
    transform |= {k: v for k, v in given.items() if v is not None}
    images = _listed(images)
    predictions = []
    for start in range(0, len(images), batch_size):
        x = load_images(
            images[start : start + batch_size],
            (height, width),
            channels=channels,
            **transform,
        )
        if keras.config.image_data_format() == "channels_first":
            x = np.moveaxis(x, -1, 1)
        predictions.append(model.predict(x, batch_size=batch_size, verbose=0))
    predictions = np.concatenate(predictions)
    _check_probabilities(predictions)
    return decode_predictions(predictions, names, top=top)


def _image_shape(model):
    """Height, width and channels of the images of a model."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            "`model` should be a model of images of one size; build it with "
            f"`input_shape`. Received: a model with input_shape={shape}"
        )
    if graphs.image_moments(model) is None:
        raise ValueError(
            "`model` should normalize images itself: build it with "
            "`include_preprocessing=True`. Received: a model whose first layer "
            "does not"
        )
    if keras.config.image_data_format() == "channels_first":
        return *shape[2:], shape[1]
    return shape[1:]


def _class_names(model, weights, names):
    """The names of a model's classes, as one of three arguments tells them."""
    classes = model.output_shape[-1]
    imagenet = DATASETS["imagenet2012"]
    if isinstance(names, str):
        check_choice("names", names, (*DATASETS, *ALIASES))
        names = DATASETS[ALIASES.get(names, names)].class_names
    elif names is None and weights is not None:
        names = sources.class_names(weights)
    elif names is None and classes == imagenet.classes:
        names = imagenet.class_names
    if (
        not isinstance(names, (list, tuple))
        or not all(isinstance(name, str) for name in names)
        or len(names) != classes
    ):
        given = len(names) if isinstance(names, (list, tuple)) else names
        raise ValueError(
            f"`names` or `weights` should tell the names of the {classes} "
            f"classes of the model. Received: {given!r} names, "
            f"weights={weights!r}"
        )
    return names


def _check_probabilities(predictions):
    if not are_probabilities(predictions):
        raise ValueError(
            "`model` should return probabilities: build it with "
            '`classifier_activation="softmax"`. Received: outputs from '
            f"{predictions.min():.3g} to {predictions.max():.3g}, which do "
            "not sum to 1"
        )


def _listed(images):
    """A list of images, of one image or several."""
    one = isinstance(images, (str, os.PathLike)) or hasattr(images, "convert")
    if isinstance(images, np.ndarray):
        one = images.dtype != object and images.ndim < 4
    if one:
        return [images]
    try:
        images = list(images)
    except TypeError:
        images = []
    if not images:
        raise ValueError(
            "`images` should be a path, an image or an array, or a sequence "
            f"of at least one of these. Received: images={images!r}"
        )
    return images


def _open(image):
    """The `PIL.Image.Image` of a path, an image or an array."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ValueError(
            "`images` are read with Pillow, which is not installed: "
            "pip install pillow"
        ) from error
    if isinstance(image, (str, os.PathLike)):
        try:
            with Image.open(image) as file:
                file.load()
                image = ImageOps.exif_transpose(file)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                "`images` should be files of images that can be read. "
                f"Received: {os.fspath(image)}: {error}"
            ) from error
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(_checked_array(image))
    elif not isinstance(image, Image.Image):
        raise ValueError(
            "`images` should be paths, images of Pillow or arrays. "
            f"Received: {image!r}"
        )
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            "`images` should have 8 bits a channel. Received: an image of the "
            f"mode {image.mode}"
        )
    return image


def _checked_array(array):
    """An array that Pillow takes: grey images have no axis of channels."""
    channels = array.shape[2:]
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or channels not in ((), *((n,) for n in _MODES))
        or array.size == 0
    ):
        raise ValueError(
            "An array in `images` should be uint8, 0 to 255, of shape (height, "
            "width) or (height, width, channels) with 1, 3 or 4 channels. "
            f"Received: {array.dtype} of shape {array.shape}"
        )
    return array[..., 0] if channels == (1,) else array


def _cut(image, size, crop, interpolation):
    """Resizes an image by its shorter side, and cuts out its centre."""
    from PIL import Image

    height, width = (math.floor(side / crop) for side in size)
    # What torchvision does to the longer side: the fraction is dropped.
    if height * image.width >= width * image.height:
        width = int(height * image.width / image.height)
    else:
        height = int(width * image.height / image.width)
    filter = Image.Resampling[interpolation.upper()]
    image = image.resize((width, height), filter)
    top, left = (
        round((a - b) / 2) for a, b in zip((height, width), size, strict=True)
    )
    return image.crop((left, top, left + size[1], top + size[0]))
