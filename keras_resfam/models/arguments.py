"""What the builders' depths and widths mean."""

from keras_resfam._checks import check_number, is_integer


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
    # No stage without any, and none of more than arrays have places.
    fewest, most = 1 / min(channels), 2**31 / max(channels)
    check_number("width", width, fewest, below=most)
    return tuple(int(width * channel) for channel in channels)
