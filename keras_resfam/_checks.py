"""Checks of arguments: one clear ValueError for what is not allowed."""

import math
import numbers
import warnings

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


def check_images(images, shape, moments=None):
    """Checks an array of images against what a network takes.

    It warns of images that were scaled, to 0..1 or by their moments, where the
    network would do so once more: all would then be nearly one colour.

    Args:
        images: array, the batch axis first.
        shape: tuple without the batch axis; a size of `None` may be any.
        moments: pair of arrays, the means and the standard deviations by which
            the network normalises images. Defaults to `None`: it does not.

    Raises:
        ValueError: If they are of another shape.
    """
    sizes = zip(shape, images.shape[1:], strict=False)
    if images.ndim != len(shape) + 1 or any(
        own not in (None, size) for own, size in sizes
    ):
        raise ValueError(
            f"Images should be of the shape {tuple(shape)}, which the network "
            f"takes. Received: images of shape {images.shape[1:]}"
        )
    if moments is not None and np.max(np.abs(images)) < np.min(moments[1]) / 10:
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
