"""The builders by name, and how to write a network as a call.

The decorator `models.builder.image_classifier` registers each builder here.
Code that stores the name of a builder, such as the registry of trained
weights, looks the builder up here.
"""

import inspect
import itertools
import json

from keras_resfam._checks import check_choice, plain

_BUILDERS = {}

TRAINING_ARGUMENTS = {
    "dropout": 0.0,
    "orthonormality": 0.0,
    "modulation": False,
    "modulation_at": "relu",
    "regularizer": "orthonormal",
    "initializer": None,
    "shift": 0.0,
}
"""Builder arguments that affect training only, with the values that turn them
off. A trained network does not need them."""


def register(builder):
    """Registers a builder under its name, and returns it."""
    _BUILDERS[builder.__name__] = builder
    return builder


def names():
    """Returns the names of all builders, in alphabetical order."""
    return sorted(_BUILDERS)


def get(name):
    """Returns the builder of a name.

    Raises:
        ValueError: If no builder has this name.
    """
    check_choice("builder", name, names())
    return _BUILDERS[name]


def defaults(builder):
    """Returns the architecture arguments of a builder, with their defaults.

    Args:
        builder: str. The builder's name.

    Raises:
        ValueError: If no builder has this name.
    """
    parameters = inspect.signature(get(builder)).parameters
    own = itertools.takewhile(lambda p: p != "include_top", parameters)
    return {name: _as_json(parameters[name].default) for name in own}


def architecture(builder, arguments):
    """Returns the arguments that determine the variables of a network.

    Args:
        builder: str. The builder's name.
        arguments: dict. Its architecture arguments. Missing ones have their
            defaults.

    Returns:
        A dict that can be compared with those of other networks. Sequences
        are lists, and arguments that affect training only are left out.
    """
    chosen = {**defaults(builder), **_as_json(arguments)}
    return {
        name: value
        for name, value in chosen.items()
        if name not in TRAINING_ARGUMENTS
    }


def _as_json(value):
    """Converts a value to what JSON can hold, so that it can be compared."""

    def convert(other):
        number = plain(other)
        return repr(other) if number is other else number

    return json.loads(json.dumps(value, default=convert))


def call(builder, arguments, **others):
    """Returns the call of a builder as text, such as `DMRNet(depth=56)`.

    Arguments that have their defaults are left out, except for the depth, and
    for the width if its default is not 1.

    Args:
        builder: str. The builder's name.
        arguments: dict. Its architecture arguments.
        **others: Further arguments of the call.
    """
    usual = defaults(builder)
    always = {"depth"} if usual.get("width") == 1 else {"depth", "width"}
    chosen = {
        name: value
        for name, value in architecture(builder, arguments).items()
        if name in always or name not in usual or value != usual[name]
    }
    inside = ", ".join(
        f"{name}={_literal(value)}" for name, value in (chosen | others).items()
    )
    return f"{builder}({inside})"


def _literal(value):
    if isinstance(value, str):
        return f'"{value}"'
    return repr(tuple(value) if isinstance(value, list) else value)
