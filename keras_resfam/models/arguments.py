"""Checks of the builders' arguments."""

import math
import numbers


def is_integer(value, minimum):
    """Whether a value is an integer (no bool) of at least `minimum`."""
    return (
        isinstance(value, numbers.Integral)
        and not isinstance(value, bool)
        and value >= minimum
    )


def check_integer(name, value, minimum=1):
    if not is_integer(value, minimum):
        raise ValueError(
            f"`{name}` should be an integer of at least {minimum}. "
            f"Received: {name}={value!r}"
        )


def check_choice(name, value, allowed):
    if not any(value is item or value == item for item in allowed):
        raise ValueError(
            f"`{name}` should be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )


def check_flag(name, value):
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` should be True or False. Received: {name}={value!r}"
        )


def check_number(name, value, minimum, below=math.inf):
    if (
        not isinstance(value, numbers.Real)
        or isinstance(value, bool)
        or not minimum <= value < below
    ):
        allowed = f"a number of at least {minimum}"
        if below < math.inf:
            allowed += f" and below {below}"
        raise ValueError(
            f"`{name}` should be {allowed}. Received: {name}={value!r}"
        )


def blocks_from_depth(depth, layers_outside, formula):
    """Returns N, the blocks of each of three stages with two layers a block.

    Args:
        depth: int. Layers of the network.
        layers_outside: int. Layers that are in no block.
        formula: str. How the paper writes the depth, for the error.
    """
    layers = depth - layers_outside if is_integer(depth, 1) else 0
    if layers < 6 or layers % 6:
        raise ValueError(
            f"`depth` should be an integer {formula} with at least one block "
            f"a stage: {layers_outside + 6}, {layers_outside + 12}, "
            f"{layers_outside + 18}, ... Received: depth={depth!r}"
        )
    return layers // 6


def widened(width, *channels):
    """Returns `channels` times the widening factor `width`, as integers."""
    minimum = 1 / min(channels)
    if (
        not isinstance(width, numbers.Real)
        or isinstance(width, bool)
        or not minimum <= width < math.inf
    ):
        raise ValueError(
            "`width` should be a number above 0 that leaves each stage at "
            f"least one channel: {minimum:g} or more. Received: width={width!r}"
        )
    return tuple(int(width * channel) for channel in channels)
