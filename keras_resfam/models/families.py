"""The builders of all families by name, and how a network is written as a call.

Each builder joins as it is decorated (`models.builder.image_classifier`), so
that everything which knows a network by its builder's name, such as the
registry of trained weights, asks here.
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
"""Builder arguments that a trained network does not need, and what turns them
off: they act in training, or before it."""


def register(builder):
    """Adds a builder under its own name, and returns it."""
    _BUILDERS[builder.__name__] = builder
    return builder


def names():
    """The names of all builders, in alphabetical order."""
    return sorted(_BUILDERS)


def get(name):
    """The builder of a name.

    Raises:
        ValueError: If there is none.
    """
    check_choice("builder", name, names())
    return _BUILDERS[name]


def defaults(builder):
    """The architecture arguments of a builder, with their defaults.

    Args:
        builder: str. The builder's name.

    Raises:
        ValueError: If there is no such builder.
    """
    parameters = inspect.signature(get(builder)).parameters
    own = itertools.takewhile(lambda p: p != "include_top", parameters)
    return {name: _as_json(parameters[name].default) for name in own}


def architecture(builder, arguments):
    """The arguments that decide which variables a network has.

    Args:
        builder: str. The builder's name.
        arguments: dict. Its architecture arguments; those left out have their
            defaults.

    Returns:
        A dict that can be compared with another: sequences are lists, and the
        arguments that act in training only are left out.
    """
    chosen = {**defaults(builder), **_as_json(arguments)}
    return {
        name: value
        for name, value in chosen.items()
        if name not in TRAINING_ARGUMENTS
    }


def _as_json(value):
    def text(other):
        number = plain(other)
        return repr(other) if number is other else number

    return json.loads(json.dumps(value, default=text))


def call(builder, arguments, **others):
    """A call of a builder as text, without what is the default anyway.

    But always with the depth, and with the width where that is not usually 1.
    """
    usual = defaults(builder)
    told = {"depth"} if usual.get("width") == 1 else {"depth", "width"}
    chosen = {
        name: value
        for name, value in architecture(builder, arguments).items()
        if name in told or name not in usual or value != usual[name]
    }
    inside = ", ".join(
        f"{name}={_literal(value)}" for name, value in (chosen | others).items()
    )
    return f"{builder}({inside})"


def _literal(value):
    if isinstance(value, str):
        return f'"{value}"'
    return repr(tuple(value) if isinstance(value, list) else value)
