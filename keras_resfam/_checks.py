"""Checks of arguments, which raise a ValueError if one is not allowed."""

import math
import numbers
import os
import warnings

import keras
import numpy as np


def plain(value):
    """Converts NumPy's numbers to Python's, which Keras can save and load."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (tuple, list):
        return type(value)(map(plain, value))
    return value


def is_integer(value, minimum):
    """Returns whether a value is an integer (no bool) of at least `minimum`."""
    return (
        isinstance(value, numbers.Integral)
        and not isinstance(value, bool)
        and value >= minimum
    )


def are_numbers(values):
    """Returns whether a value is a sequence of finite numbers, not empty."""
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


def are_moments(value):
    """Returns whether a value is a pair of means and standard deviations.

    They are sequences of one number per channel, and the latter are above 0.
    """
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(map(are_numbers, value))
        and len(value[0]) == len(value[1])
        and min(value[1]) > 0
    )


def check_integer(name, value, minimum=1):
    """Checks that a value is an integer of at least `minimum`."""
    if not is_integer(value, minimum):
        raise ValueError(
            f"`{name}` should be an integer of at least {minimum}. "
            f"Received: {name}={value!r}"
        )


def check_choice(name, value, allowed):
    """Checks that a value is one of those allowed."""
    # The types are compared too, since 1 == True.
    if not any(isinstance(value, type(x)) and value == x for x in allowed):
        raise ValueError(
            f"`{name}` should be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )


def check_flag(name, value):
    """Checks that a value is a bool."""
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` should be True or False. Received: {name}={value!r}"
        )


def check_text(name, value):
    """Checks that a value is a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"`{name}` should be a string that is not empty. "
            f"Received: {name}={value!r}"
        )


def check_path(name, value):
    """Checks that a value is a path."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(
            f"`{name}` should be a path. Received: {name}={value!r}"
        )


def check_file(name, value):
    """Checks that a value is the path of a file, which may not exist yet."""
    check_path(name, value)
    if os.path.isdir(value):
        raise ValueError(
            f"`{name}` should be a file, but is a folder. "
            f"Received: {name}={value}"
        )


def is_iterable(value):
    """Returns whether a value is iterable; symbolic tensors are not."""
    try:
        iter(value)
    except (TypeError, NotImplementedError):
        return False
    return True


def as_numbers(value):
    """Converts a value to a NumPy array of numbers, or returns `None`."""
    try:
        array = keras.ops.convert_to_numpy(value)
        numeric = array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"
    except Exception:  # each backend raises other errors
        return None
    return array if numeric else None


def as_array(name, value):
    """Converts an argument, an array or tensor, to a NumPy array of numbers."""
    array = as_numbers(value)
    if array is None:
        raise ValueError(
            f"`{name}` should be an array of numbers. Received: "
            f"{name}={value!r}"
        )
    return array


def check_images(name, images, shape, moments=None):
    """Checks an array of images against the input of a network.

    It warns of images that are scaled already, to 0..1 or by their moments, if
    the network normalizes images itself. All images would look alike to it.

    Args:
        name: str. The argument's name.
        images: array, with the batch axis first.
        shape: tuple. The shape of an image. A size of `None` allows any size.
        moments: pair of arrays, the means and the standard deviations by which
            the network normalizes images. Defaults to `None`, for a network
            that does not normalize.

    Raises:
        ValueError: If the images have another shape, or are not finite.
    """
    sizes = zip(shape, images.shape[1:], strict=False)
    if images.ndim != len(shape) + 1 or any(
        own not in (None, size) for own, size in sizes
    ):
        raise ValueError(
            f"The images of `{name}` should have the shape {tuple(shape)} of "
            "the network's input. Received: images of shape "
            f"{images.shape[1:]}"
        )
    # Outputs do not show it: some kernels turn NaN into zero.
    broken = np.count_nonzero(~np.isfinite(images))
    if broken:
        raise ValueError(
            f"The images of `{name}` should be finite numbers. "
            f"Received: {broken} of {images.size} values that are not"
        )
    if moments is None or not images.size:
        return
    if np.max(np.abs(images)) < np.min(moments[1]) / 10:
        warnings.warn(
            "Images should not be scaled, and have values such as 0 to 255, "
            "since the network normalizes them with the means "
            f"{_rounded(moments[0])} and the standard deviations "
            f"{_rounded(moments[1])}. Received: images from {images.min():.3g} "
            f"to {images.max():.3g}",
            stacklevel=4,
        )


def _rounded(values):
    return ", ".join(f"{value:.4g}" for value in values)


def check_outputs(outputs, network):
    """Checks that the outputs of a classifier are finite.

    `argmax` returns the class of a NaN, or of the first of several infinities,
    so these would be counted as predictions.

    Args:
        outputs: array of shape `(images, classes)`.
        network: str. Names the network in the error message.

    Raises:
        ValueError: If they are not finite.
    """
    broken = np.count_nonzero(~np.isfinite(outputs).all(axis=-1))
    if broken:
        raise ValueError(
            "The outputs of `model` should be finite numbers. Received: "
            f"{network}, whose outputs for {broken} of {len(outputs)} images "
            "are not"
        )


def are_probabilities(outputs):
    """Returns whether the outputs of a classifier are probabilities.

    Args:
        outputs: array of shape `(images, classes)`.
    """
    sums = outputs.astype("float64").sum(axis=-1)
    # Mixed precision has three digits.
    return bool(np.all(outputs >= 0) and np.allclose(sums, 1, atol=0.02))


def check_number(
    name,
    value,
    minimum=-math.inf,
    maximum=math.inf,
    above=-math.inf,
    below=math.inf,
    others="",
):
    """Checks that a value is a finite real number, not a bool.

    Args:
        name: str. The argument's name.
        value: The argument's value.
        minimum: number. The smallest value allowed. Defaults to minus
            infinity.
        maximum: number. The largest value allowed. Defaults to infinity.
        above: number. An exclusive lower bound. Defaults to minus infinity.
        below: number. An exclusive upper bound. Defaults to infinity.
        others: str. Other allowed values, which the message lists before.
            Defaults to `""`.
    """
    if (
        not isinstance(value, numbers.Real)
        or isinstance(value, bool)
        or not minimum <= value <= maximum
        or not above < value < below
    ):
        bounds = {
            "of at least": minimum,
            "above": above,
            "at most": maximum,
            "below": below,
        }
        allowed = " and ".join(
            f"{words} {bound}"
            for words, bound in bounds.items()
            if math.isfinite(bound)
        )
        raise ValueError(
            f"`{name}` should be {others}a finite number {allowed}. "
            f"Received: {name}={value!r}"
        )
