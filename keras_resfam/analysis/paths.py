"""The lengths of all paths through a network (Veit et al. 2016, section 5)."""

import collections

import keras
import numpy as np

from keras_resfam import graphs
from keras_resfam._checks import check_choice
from keras_resfam.analysis.ancestry import passes_all
from keras_resfam.analysis.chain import check_blocks
from keras_resfam.analysis.finding import residual_chain


def path_lengths(model, unit="blocks"):
    """Counts the paths of a network by their length, exactly.

    At each residual addition, a path takes one residual branch or the shortcut.
    Two identity blocks have four paths, of 0, 1, 1 and 2 blocks. A chain of `n`
    blocks has the binomial distribution (n, 1/2). In an inception-like block,
    each branch is a choice. As in the DMRNet paper, the merge of a
    merge-and-run block connects each stream to each stream, including the
    first block, where all streams are equal, and the last one, where they are
    added.

    The counts are computed from the graph by dynamic programming over
    polynomials with integer coefficients. All inputs of a concatenation pass
    their paths on, even if they are parts of one tensor that was split, except
    for those that a `Rescaling` by zero returns. An elementwise product, such
    as the gate of squeeze and excitation, passes on the paths of its longest
    factor.

    Args:
        model: functional `keras.Model`.
        unit: `"blocks"` or `"layers"`. Whether the length of a path is its
            number of residual branches, or of layers with kernels. As in the
            DMRNet paper, layers before and after the blocks are counted, and
            projections on shortcuts are not. Defaults to `"blocks"`.

    Returns:
        A dict of two arrays: `length` (ints in ascending order) and
        `probability` (the share of all paths).

    Raises:
        ValueError: If no residual block is found, as in plain networks, and
            in those that join branches by other operations than additions.

    Example:

    ```python
    lengths = path_lengths(DMRNet(depth=20), unit="layers")
    # 3 of 9 blocks of two layers on average, and 2 layers outside of them.
    np.sum(lengths["length"] * lengths["probability"])  # 8.0
    ```
    """
    counts = count_paths(model, unit)
    total = sum(counts.values())
    lengths = sorted(counts)
    return {
        "length": np.array(lengths),
        "probability": np.array([counts[k] / total for k in lengths]),
    }


def count_paths(model, unit="blocks"):
    """Returns a dict from the lengths of paths to their numbers."""
    check_choice("unit", unit, ("blocks", "layers"))
    chain = residual_chain(graphs.read_single(model))
    check_blocks(chain)
    joins = {
        id(join.step): join for place in chain.units for join in place.joins
    }
    shortcuts = {name for place in chain.units for name in place.block.shortcut}
    paths = {id(x): {0: 1} for x in chain.graph.inputs}
    follow(chain.graph.steps, paths, joins, unit, shortcuts)
    return paths[id(chain.graph.outputs[0])]


def follow(steps, paths, joins, unit="blocks", shortcuts=()):
    """Counts the paths to the outputs of steps from those to their inputs.

    Args:
        steps: list of `Step`.
        paths: dict from the ids of tensors to dicts from lengths to counts.
            The outputs of the steps are added to it.
        joins: dict from the ids of residual additions to `Join`s.
        unit: See `path_lengths`. Defaults to `"blocks"`.
        shortcuts: collection of the names of layers that add no length.
            Defaults to `()`.
    """
    for step in steps:
        arriving = [paths[id(x)] for x in step.inputs]
        if id(step) in joins:
            found = _through_join(joins[id(step)], paths, unit == "blocks")
        elif passes_all(step):
            found = summed(arriving)
        else:
            found = _longest(arriving)
        if _multiplies_by_zero(step):
            found = {}
        if unit == "layers" and step.name not in shortcuts:
            found = shifted(found, graphs.count_kernels(step.operation))
        paths.update((id(x), found) for x in step.outputs)


def _through_join(join, paths, count_branches):
    skips = [paths[id(x)] for x in join.added(join.shortcuts)] * join.copies
    branches = [
        shifted(paths[id(x)], int(count_branches))
        for x in join.added(join.branches)
    ]
    return summed(skips + branches)


def _multiplies_by_zero(step):
    layer = step.operation
    return (
        isinstance(layer, keras.layers.Rescaling)
        and np.all(np.asarray(layer.scale) == 0)
        and np.all(np.asarray(layer.offset) == 0)
    )


def summed(polynomials):
    """Adds polynomials, which are dicts from exponents to coefficients."""
    total = collections.Counter()
    for polynomial in polynomials:
        total.update(polynomial)
    return dict(total)


def shifted(polynomial, length):
    """Multiplies a polynomial by a power of its variable."""
    return {k + length: count for k, count in polynomial.items()}


def _longest(polynomials):
    return max(polynomials, key=lambda p: max(p, default=-1), default={0: 1})
