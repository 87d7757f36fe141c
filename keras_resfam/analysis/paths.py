"""The lengths of all paths through a network (Veit et al. 2016, section 5)."""

import collections

import keras
import numpy as np

from keras_resfam import graphs
from keras_resfam._checks import check_choice
from keras_resfam.analysis.finding import (
    check_blocks,
    passes_all,
    residual_chain,
)


def path_lengths(model, unit="blocks"):
    """Counts a network's paths by their length, exactly.

    A path chooses, at each residual addition, one residual branch or the
    shortcut. Two identity blocks have four paths, of 0, 1, 1 and 2 blocks; a
    chain of `n` gives the binomial distribution (n, 1/2). Of an
    inception-like block each branch is a choice of its own. The merge of a
    merge-and-run block leads from each stream to each stream, as DMRNet's
    paper counts: also in the first block, where all streams are equal, and in
    the last, where they are summed.

    The counts come out of the graph by dynamic programming over polynomials
    with integer coefficients. Concatenated tensors each pass on their paths,
    also where they are parts into which one tensor was split, but for those
    that a Rescaling by zero made; elementwise products (the gates of squeeze
    and excitation) pass on those of their longest factor.

    Example:

    ```python
    lengths = path_lengths(DMRNet(depth=20), unit="layers")
    # 3 of 9 blocks of two layers on average, and 2 layers outside of them.
    np.sum(lengths["length"] * lengths["probability"])  # 8.0
    ```

    Args:
        model: functional `keras.Model`.
        unit: `"blocks"` or `"layers"`. Whether a path's length is its
            residual branches, or its layers with kernels, those before and
            after the blocks with them, the projections on shortcuts without,
            as in DMRNet's paper. Defaults to `"blocks"`.

    Returns:
        A dict of two arrays: `length` (ints, ascending, those that occur)
        and `probability` (floats, the share of all paths).

    Raises:
        ValueError: If no residual block is found, as in a plain network, or
            where branches are joined by something else than additions.
    """
    counts = count_paths(model, unit)
    total = sum(counts.values())
    lengths = sorted(counts)
    return {
        "length": np.array(lengths),
        "probability": np.array([counts[k] / total for k in lengths]),
    }


def count_paths(model, unit="blocks"):
    """The number of paths of each length, as a dict of Python ints."""
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
    """Follows the paths that arrive at some tensors through steps.

    Args:
        steps: list of `Step`.
        paths: dict from the ids of tensors to their paths, a dict from
            lengths to counts. What the steps make is added to it.
        joins: dict from the ids of residual additions to their `_Join`s.
        unit: as of `path_lengths`.
        shortcuts: collection of the names of layers that add no length.
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
    total = collections.Counter()
    for polynomial in polynomials:
        total.update(polynomial)
    return dict(total)


def shifted(polynomial, length):
    return {k + length: count for k, count in polynomial.items()}


def _longest(polynomials):
    return max(polynomials, key=lambda p: max(p, default=-1), default={0: 1})
