"""Reads photographs of any size, and classifies them."""

import concurrent.futures
import contextlib
import math
import os
import reprlib
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
    is_iterable,
)
from keras_resfam.datasets import ALIASES, DATASETS, decode_predictions
from keras_resfam.pretrained.foreign import INTERPOLATIONS

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def load_images(
    images: Any,
    size: int | Sequence[int],
    crop: float = 224 / 256,
    interpolation: str = "bilinear",
    channels: int = 3,
) -> np.ndarray:
    """Reads images of any size into one array.

    An image is resized so that its shorter side is `size / crop`, and its
    center of `size` pixels is cropped. This is the evaluation transform of timm
    and torchvision, pixel by pixel. It requires Pillow.

    Args:
        images: path, `PIL.Image.Image` or uint8 array of shape
            `(height, width)` or `(height, width, channels)`, 0 to 255; or a
            sequence of these. Photographs in files are rotated according to
            their EXIF data.
        size: int or pair of ints. The side of the returned images in pixels,
            or their height and width.
        crop: float in `[0.01, 1]`. The share of the shorter side that is kept.
            Defaults to `0.875`, 224 of 256 pixels.
        interpolation: str. A filter of Pillow: `"nearest"`, `"box"`,
            `"bilinear"`, `"hamming"`, `"bicubic"` or `"lanczos"`. Defaults to
            `"bilinear"`.
        channels: int. 1 for gray images, 3 for RGB and 4 for RGBA, to which
            images are converted. Defaults to `3`.

    Returns:
        A uint8 array of shape `(images, height, width, channels)`, 0 to 255.

    Raises:
        ValueError: If an argument is invalid, or if an image cannot be read or
            has more than 8 bits per channel.

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
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    check_choice("channels", channels, tuple(_MODES))

    def load(image):
        image = _read(image).convert(_MODES[channels])
        image = _cut(image, size, crop, interpolation)
        return np.asarray(image).reshape(*size, channels)

    # Pillow releases the GIL while it decodes and resizes.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(load, _listed(images))))


def predict_images(
    model: keras.Model,
    images: Any,
    names: str | Sequence[str] | None = None,
    top: int = 5,
    crop: float | None = None,
    interpolation: str | None = None,
    batch_size: int = 32,
) -> list[list[tuple[str, float]]]:
    """Classifies photographs, and returns the names of the classes.

    A network that was built with trained weights stores the names of its
    classes, and how the authors of the weights resize and crop images. A
    `.keras` file contains this information too. `to_stock_layers` loses it, and
    so does a network in `weights/` that Keras alone has loaded. In these cases,
    pass `names`, `crop` and `interpolation`.

    Args:
        model: `keras.Model` that takes raw images, 0 to 255, and returns
            probabilities, as builders return it by default.
        images: path, `PIL.Image.Image`, array, or a sequence of these. See
            `load_images`.
        names: str or sequence of str. The name of a data set, or the names of
            the classes. Defaults to `None`, the names that the model stores. If
            it stores none and has 1,000 classes, they are those of ImageNet.
        top: int. The number of classes to return for each image. Defaults to
            `5`.
        crop: float. See `load_images`. Defaults to `None`, that of
            `image_transform`.
        interpolation: str. See `load_images`. Defaults to `None`, that of
            `image_transform`.
        batch_size: int. Defaults to `32`.

    Returns:
        A list with one entry for each image, a list of
        `(class name, probability)` pairs with the most likely class first.

    Raises:
        ValueError: If an argument is invalid, if an image cannot be read, if
            the names of the classes are unknown, or if the model does not
            normalize images itself or does not return probabilities.

    Example:

    ```python
    model = keras_resfam.WideResNet50_2(weights="imagenet")
    keras_resfam.predict_images(model, "cat.jpg", top=1)
    # [[("tabby", 0.71)]]
    ```
    """
    check_integer("batch_size", batch_size)
    transform = image_transform(model)
    given = {"crop": crop, "interpolation": interpolation}
    transform |= {k: v for k, v in given.items() if v is not None}
    if transform["channels"] not in _MODES:
        raise ValueError(
            "`model` should take images with 1, 3 or 4 channels. Received: a "
            f"model for images with {transform['channels']} channels"
        )
    names = _class_names(model, names)
    images = _listed(images)
    axis, predictions = _channel_axis(model), []
    for start in range(0, len(images), batch_size):
        x = load_images(images[start : start + batch_size], **transform)
        x = np.moveaxis(x, -1, axis)
        predictions.append(model.predict(x, batch_size=batch_size, verbose=0))
    predictions = np.concatenate(predictions)
    _check_probabilities(predictions)
    return decode_predictions(predictions, names, top=top)


def image_transform(model: keras.Model) -> dict[str, Any]:
    """Returns how `load_images` should prepare photographs for a model.

    Args:
        model: `keras.Model` that takes raw images, 0 to 255, as builders
            return it by default.

    Returns:
        A dict of arguments of `load_images`. `"size"` and `"channels"` are
        those of the model's input. `"crop"` and `"interpolation"` are those
        that the authors of the trained weights state, for images of this size
        if they distinguish sizes. If the model does not store them, they are
        0.875 and `"bilinear"`, and `"crop"` is 1 for images of up to 64 pixels.

    Raises:
        ValueError: If the model does not normalize images itself, or does not
            take images of one size.

    Example:

    ```python
    model = keras_resfam.WideResNet50_2(weights="imagenet")
    transform = keras_resfam.image_transform(model)
    images = keras_resfam.load_images("cat.jpg", **transform)
    ```
    """
    *size, channels = _image_shape(model)
    known = graphs.data_config(model)
    usual = 1.0 if max(size) <= 64 else 224 / 256
    return {
        "size": tuple(size),
        "crop": known.get("crop", usual),
        "interpolation": known.get("interpolation", "bilinear"),
        "channels": channels,
    }


def _image_shape(model):
    """Returns the height, width and channels of a model's images."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            "`model` should take images of one size: build it with "
            f"`input_shape`. Received: a model with input_shape={shape}"
        )
    _check_raw(graphs.image_moments(model))
    sizes = [*shape]
    channels = sizes.pop(_channel_axis(model))
    return [*sizes[1:], channels]


def _check_raw(moments):
    """Checks that a model of these moments takes images in 0..255."""
    deviation = 0 if moments is None else np.max(np.abs(moments[1]))
    if deviation >= 1:
        return
    received = "a model whose first layers do not"
    if moments is not None:
        received = f"a model for a standard deviation of {deviation:.3g}"
    raise ValueError(
        "`model` should take raw images, 0 to 255, and normalize them itself: "
        "build it with `include_preprocessing=True`. Received: " + received
    )


def _channel_axis(model):
    return graphs.channel_axis(graphs.layers_within(model))


def _class_names(model, names):
    """Returns the names of a model's classes: given, stored, or ImageNet's."""
    classes = model.output_shape[-1]
    if names is None:
        names = _stored_names(model)
    if names is None and classes == DATASETS["imagenet2012"].classes:
        names = "imagenet2012"
    if isinstance(names, str):
        check_choice("names", names, (*DATASETS, *ALIASES))
        names = DATASETS[ALIASES.get(names, names)].class_names
    if (
        not isinstance(names, (list, tuple))
        or not all(isinstance(name, str) for name in names)
        or len(names) != classes
    ):
        given = f"names={names!r}"
        if isinstance(names, (list, tuple)):
            given = f"{len(names)} names"
        raise ValueError(
            f"`names` should be the names of the {classes} classes of the "
            "model, or of their data set; `keras_resfam.class_names` has those "
            f"of trained weights. Received: {given}"
        )
    return names


def _stored_names(model):
    """Returns the names of the classes that a model stores, or `None`.

    They are those of the builder's classifier. If the user has added another
    classifier, its classes are unknown.
    """
    weighted = [x for x in graphs.layers_within(model) if x.weights]
    top = [x for x in weighted if not graphs.is_graph(x)][-1:]
    if top and top[0].name == "predictions":
        return graphs.data_config(model).get("class_names")
    return None


def _check_probabilities(predictions):
    if not are_probabilities(predictions):
        raise ValueError(
            "`model` should return probabilities: build it with "
            '`classifier_activation="softmax"`. Received: outputs from '
            f"{predictions.min():.3g} to {predictions.max():.3g}, which do "
            "not sum to 1"
        )


def _listed(images):
    """Returns a list of images, from one image or several."""
    one = isinstance(images, (str, os.PathLike)) or hasattr(images, "convert")
    if isinstance(images, np.ndarray):
        one = images.dtype != object and images.ndim < 4
    if one:
        return [images]
    several = is_iterable(images) and not isinstance(images, bytes)
    listed = list(images) if several else []
    if not listed:
        raise ValueError(
            "`images` should be a path, an image or an array, or a sequence "
            f"of at least one of these. Received: images={reprlib.repr(images)}"
        )
    return listed


def _read(image):
    """Returns the `PIL.Image.Image` of a path, an image or an array."""
    if isinstance(image, (str, os.PathLike)):
        return read_file(image)
    Image, _ = _pillow()
    if isinstance(image, np.ndarray):
        return Image.fromarray(_checked_array(image))
    if not isinstance(image, Image.Image):
        raise ValueError(
            "`images` should be paths, Pillow images or arrays. "
            f"Received: {reprlib.repr(image)}"
        )
    with _readable("a Pillow image"):
        _check_depth(image)
        image.load()  # its file may be damaged
    return image


def read_file(path, draft=False):
    """Reads the image in a file, and rotates it according to its EXIF data.

    Args:
        path: str or path.
        draft: bool. Whether to decode JPEG images at an eighth of their size,
            which is faster, and enough to find damage. Defaults to `False`.

    Returns:
        A `PIL.Image.Image` with 8 bits per channel.

    Raises:
        ValueError: If Pillow is not installed or cannot read the file, or if
            the image has more than 8 bits per channel.
    """
    Image, ImageOps = _pillow()
    with _readable(os.fspath(path)), Image.open(path) as image:
        _check_depth(image)
        if draft:
            image.draft(None, (1, 1))
        image.load()
        return ImageOps.exif_transpose(image)


def _pillow():
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ValueError(
            "Pillow is needed to read `images`, but is not installed: "
            "pip install pillow"
        ) from error
    return Image, ImageOps


@contextlib.contextmanager
def _readable(name):
    """Context manager that turns Pillow's errors into one with the name."""
    Image, _ = _pillow()
    errors = OSError, SyntaxError, ValueError, Image.DecompressionBombError
    try:
        yield
    except errors as error:
        raise ValueError(
            "`images` should be readable images with 8 bits per channel. "
            f"Received: {name}: {error}"
        ) from error


def _check_depth(image):
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"it has more than 8 bits per channel ({image.mode})")


def _checked_array(array):
    """Returns an array that Pillow takes, without the channel axis if gray."""
    channels = array.shape[2:]
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or channels not in ((), *((n,) for n in _MODES))
        or array.size == 0
    ):
        raise ValueError(
            "An array in `images` should be uint8, 0 to 255, of shape (height, "
            "width) or (height, width, channels), with 1, 3 or 4 channels. "
            f"Received: {array.dtype} of shape {array.shape}"
        )
    return array[..., 0] if channels == (1,) else array


def _cut(image, size, crop, interpolation):
    """Resizes an image so that its shorter side fits, and crops its center."""
    from PIL import Image

    height, width = (math.floor(side / crop) for side in size)
    # As in torchvision, the longer side is rounded down.
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
