"""Names blocks and branches after what the names of their layers share."""

import collections
import dataclasses
import os
import re


def natural(name):
    """Returns a sorting key by which "branch2" comes before "branch10"."""
    words = re.split(r"(\d+)", name)
    return [int(word) if word.isdigit() else word for word in words]


def common(names):
    """Returns the leading words that all names share, joined by `_`."""
    words = os.path.commonprefix([name.split("_") for name in names])
    return "_".join(words)


def named(branches, block):
    """Names the branches of a block after their layers, or by number.

    Args:
        branches: list of the names of each branch's layers.
        block: str. The name of the block.

    Returns:
        A dict from the names of the branches to those of their layers.
    """
    if len(branches) == 1:
        return {block: branches[0]}
    names = [common(layers) for layers in branches]
    prefixed = all(name.startswith(f"{block}_") for name in names)
    if not prefixed or len(set(names)) < len(names):
        names = [f"{block}_branch{k}" for k in range(1, len(names) + 1)]
    return dict(zip(names, branches, strict=True))


def make_unique(units):
    """Renames blocks of the same name, after their additions or by number.

    If the names of layers say nothing, those of the additions may. If layers
    are called repeatedly, so are their additions, and the blocks are numbered.
    """
    alike = collections.defaultdict(list)
    for unit in units:
        alike[unit.block.name].append(unit)
    for name, group in alike.items():
        names = [unit.block.additions[:1] for unit in group]
        if len(set(names)) == len(group) > 1:
            for unit, (addition,) in zip(group, names, strict=True):
                branches = list(unit.block.branches.values())
                _rename(unit, addition, named(branches, addition))
            continue
        for turn, unit in enumerate(group[1:], start=2):
            branches = {
                f"{branch}_run{turn}": layers
                for branch, layers in unit.block.branches.items()
            }
            _rename(unit, f"{name}_run{turn}", branches)


def _rename(unit, name, branches):
    unit.block = dataclasses.replace(unit.block, name=name, branches=branches)
