"""Reads and checks a `recipe.json`, which describes a trained network.

Training writes the file, but users may edit it or write their own. All code
that needs one reads it here, so that a wrong field always ends in the same
error, which names the field.
"""

import json

from keras_resfam._checks import are_moments
from keras_resfam.datasets import DATASETS
from keras_resfam.models import families


def parse(text):
    """Parses and checks the contents of a recipe.json.

    Args:
        text: str or bytes. The contents of the file.

    Returns:
        A dict. `"builder"`, `"arguments"`, `"dataset"` and `"input_shape"` are
        present and valid. `"classes"`, `"preprocessing"` and `"class_names"`
        are optional, and valid if present.

    Raises:
        ValueError: If a field is missing or invalid. The message names it.
    """
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"It should be JSON. Received: {error!r}") from error
    if not isinstance(recipe, dict):
        raise ValueError(
            f"It should be a JSON object. Received: {type(recipe).__name__}"
        )
    check(recipe, "builder", _is_builder, "a builder of keras_resfam")
    known = families.defaults(recipe["builder"])
    check(
        recipe,
        "arguments",
        lambda value: isinstance(value, dict) and value.keys() <= known.keys(),
        f"an object of the builder's arguments, {', '.join(known) or 'none'}",
    )
    check(recipe, "dataset", is_text, "the name of a data set")
    check(
        recipe,
        "input_shape",
        lambda value: (
            isinstance(value, list)
            and len(value) == 3
            and all(map(_is_count, value))
        ),
        "a list of height, width and channels",
    )
    if "classes" in recipe:
        check(recipe, "classes", _is_count, "a number of classes")
    if "preprocessing" in recipe:
        moments = (
            f"true, false, one of {', '.join(DATASETS)}, or a list of the "
            "channels' means and of their standard deviations"
        )
        check(recipe, "preprocessing", _is_preprocessing, moments)
    if "class_names" in recipe:
        check(recipe, "class_names", _are_texts, "a list of strings")
    return recipe


def check(recipe, field, fits, allowed):
    """Checks that a recipe has a field, and that its value is allowed.

    Args:
        recipe: dict. The recipe.
        field: str. The name of the field.
        fits: callable. Takes a value, and returns whether it is allowed.
        allowed: str. Describes the allowed values in the error message.

    Raises:
        ValueError: If the field is missing, or its value is not allowed.
    """
    if field in recipe and fits(recipe[field]):
        return
    found = f"no `{field}`"
    if field in recipe:
        found = f"{field}={repr(recipe[field])[:200]}"
    raise ValueError(f"`{field}` should be {allowed}. Received: {found}")


def is_text(value):
    """Returns whether a value is a string that is not empty."""
    return isinstance(value, str) and value != ""


def _is_count(value):
    return type(value) is int and value > 0


def _is_builder(value):
    return isinstance(value, str) and value in families.names()


def _are_texts(value):
    return isinstance(value, list) and value and all(map(is_text, value))


def _is_preprocessing(value):
    if isinstance(value, list):
        return are_moments(value)
    return isinstance(value, bool) or (
        isinstance(value, str) and value in DATASETS
    )
