"""Converts the depth and width of a builder to blocks and channels."""

from keras_resfam._checks import check_number, is_integer


def blocks_from_depth(depth, layers_outside, formula):
    """Returns the number of blocks of a stage.

    The network has three stages of as many blocks, and two layers in a block.

    Args:
        depth: int. Number of layers of the network.
        layers_outside: int. Number of layers outside of blocks.
        formula: str. The paper's formula of the depth, for the error message.

    Raises:
        ValueError: If no number of blocks gives this depth.
    """
    layers = depth - layers_outside if is_integer(depth, 1) else 0
    if layers < 6 or layers % 6:
        raise ValueError(
            f"`depth` should be an integer {formula}, with at least one block "
            f"in a stage: {layers_outside + 6}, {layers_outside + 12}, "
            f"{layers_outside + 18}, ... Received: depth={depth!r}"
        )
    return layers // 6


def widened(width, *channels):
    """Returns `channels` times the widening factor `width`, rounded down."""
    # Each stage needs at least one channel, and at most as many as an array
    # can have.
    fewest, most = 1 / min(channels), 2**31 / max(channels)
    check_number("width", width, fewest, below=most)
    return tuple(int(width * channel) for channel in channels)
