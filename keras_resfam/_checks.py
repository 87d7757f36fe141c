"""Checks of arguments: one clear ValueError for what is not allowed."""

import math
import numbers
import os
import warnings

import keras
import numpy as np


def plain(value):
    """NumPy's numbers as Python's, which is what Keras saves and loads."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (tuple, list):
        return type(value)(map(plain, value))
    return value


def is_integer(value, minimum):
    """Whether a value is an integer (no bool) of at least `minimum`."""
    return (
        isinstance(value, numbers.Integral)
        and not isinstance(value, bool)
        and value >= minimum
    )


def are_numbers(values):
    """Whether a value is a sequence of finite real numbers, and not empty."""
    return (
        isinstance(values, (list, tuple))
        and len(values) > 0
        and all(
            isinstance(x, numbers.Real)
            and not isinstance(x, bool)
            and math.isfinite(x)
            for x in values
        )
    )


def check_integer(name, value, minimum=1):
    if not is_integer(value, minimum):
        raise ValueError(
            f"`{name}` should be an integer of at least {minimum}. "
            f"Received: {name}={value!r}"
        )


def check_choice(name, value, allowed):
    # By type too: 1 is not True.
    if not any(isinstance(value, type(x)) and value == x for x in allowed):
        raise ValueError(
            f"`{name}` should be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )


def check_flag(name, value):
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` should be True or False. Received: {name}={value!r}"
        )


def check_text(name, value):
    """Checks for a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"`{name}` should be a string that is not empty. "
            f"Received: {name}={value!r}"
        )


def check_path(name, value):
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(
            f"`{name}` should be a path. Received: {name}={value!r}"
        )


def check_file(name, value):
    """Checks for the path of a file, which may be yet to come."""
    check_path(name, value)
    if os.path.isdir(value):
        raise ValueError(
            f"`{name}` should be a file, and is a folder. "
            f"Received: {name}={value}"
        )


def is_iterable(value):
    """Whether a value can be gone through; a symbolic tensor cannot."""
    try:
        iter(value)
    except (TypeError, NotImplementedError):
        return False
    return True


def as_numbers(value):
    """The NumPy array of numbers that a value is, or `None`."""
    try:
        array = keras.ops.convert_to_numpy(value)
        numeric = array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"
    except Exception:  # of what is no tensor each backend says something else
        return None
    return array if numeric else None


def as_array(name, value):
    """An argument as a NumPy array of numbers, whatever tensor it is."""
    array = as_numbers(value)
    if array is None:
        raise ValueError(
            f"`{name}` should be an array of numbers. Received: "
            f"{name}={value!r}"
        )
    return array


def check_images(name, images, shape, moments=None):
    """Checks an array of images against what a network takes.

    It warns of images that were scaled, to 0..1 or by their moments, where the
    network would do so once more: all would then be nearly one colour.

    Args:
        name: str. The argument's name.
        images: array, the batch axis first.
        shape: tuple without the batch axis; a size of `None` may be any.
        moments: pair of arrays, the means and the standard deviations by which
            the network normalises images. Defaults to `None`: it does not.

    Raises:
        ValueError: If they are of another shape, or not of finite numbers.
    """
    sizes = zip(shape, images.shape[1:], strict=False)
    if images.ndim != len(shape) + 1 or any(
        own not in (None, size) for own, size in sizes
    ):
        raise ValueError(
            f"The images of `{name}` should be of the shape {tuple(shape)}, "
            "which the network takes. Received: images of shape "
            f"{images.shape[1:]}"
        )
    # Outputs do not tell: some kernels turn NaN into zero.
    broken = np.count_nonzero(~np.isfinite(images))
    if broken:
        raise ValueError(
            f"The images of `{name}` should be of finite numbers. "
            f"Received: {broken} of {images.size} that are not"
        )
    if moments is None or not images.size:
        return
    if np.max(np.abs(images)) < np.min(moments[1]) / 10:
        warnings.warn(
            "Images should be as they were before they were scaled, such as 0 "
            "to 255, since the network normalises them, by the means "
            f"{_rounded(moments[0])} and the standard deviations "
            f"{_rounded(moments[1])}. Received: images from {images.min():.3g} "
            f"to {images.max():.3g}",
            stacklevel=4,
        )


def _rounded(values):
    return ", ".join(f"{value:.4g}" for value in values)


def check_outputs(outputs, network):
    """Checks that the outputs of a classifier are finite.

    To `argmax` NaN is the largest number, and so is the first of several
    infinities: either would count as a class.

    Args:
        outputs: array of shape `(images, classes)`.
        network: str. What the text calls the network.
    """
    broken = np.count_nonzero(~np.isfinite(outputs).all(axis=-1))
    if broken:
        raise ValueError(
            "The outputs of `model` should be finite numbers. Received: "
            f"{network} with others for {broken} of {len(outputs)} images"
        )


def check_number(
    name, value, minimum, maximum=math.inf, below=math.inf, others=""
):
    """Checks for a finite real number, no bool.

    Args:
        name: str. The argument's name.
        value: its value.
        minimum: the least number allowed.
        maximum: the largest number allowed. Defaults to infinity.
        below: a number above all that are allowed. Defaults to infinity.
        others: str. What else the text says is allowed.
    """
    if (
        not isinstance(value, numbers.Real)
        or isinstance(value, bool)
        or not minimum <= value < below
        or value > maximum
    ):
        allowed = f"{others}a finite number of at least {minimum}"
        if maximum < math.inf:
            allowed += f" and at most {maximum}"
        if below < math.inf:
            allowed += f" and below {below}"
        raise ValueError(
            f"`{name}` should be {allowed}. Received: {name}={value!r}"
        )
