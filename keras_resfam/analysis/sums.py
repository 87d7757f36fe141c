"""Sums of several branches, which are written as nested additions."""

import dataclasses
import itertools

import keras

from keras_resfam import graphs
from keras_resfam.analysis.ancestry import Ancestry, join_at


def with_sums_joined(graph):
    """Replaces nested additions of branches by one addition each.

    `x + (f + g)` becomes `f + g + x`, a block of two branches. The inner sum is
    joined if nothing else reads it, none of its terms is computed from another,
    and none is a projection. `x + f + g`, which is `(x + f) + g`, is joined if
    nothing else reads `x + f`, and `g` starts at the same tensor as `f`. The
    terms are added in the original order, so the results are the same bits.

    Args:
        graph: `Graph`. It is not changed.

    Returns:
        A `Graph`.
    """
    sums = _Sums(graph)
    steps, gone = [], set()
    # From the end, so that the outermost of nested sums takes in all others.
    for step in reversed(graph.steps):
        if any(id(x) in gone for x in step.outputs):
            continue
        inner = sums.within(step)
        # An addition of three or more tensors is a block already.
        if inner and len(step.inputs) == 2:
            (other,) = [x for x in step.inputs if x is not inner[0]]
            terms, opened = sums.opened(inner[0])
            gone.update(map(id, opened))
            step = _addition_of([*terms, other], step)
        steps.append(step)
    return dataclasses.replace(graph, steps=steps[::-1])


def _addition_of(terms, step):
    """Returns a step that adds several terms, in place of another addition."""
    add = step.operation
    if not isinstance(add, keras.layers.Add):  # keras.ops adds two
        add = keras.layers.Add(dtype=step.outputs[0].dtype, name=step.name)
    return graphs.Step(add, (terms,), {}, step.outputs)


class _Sums:
    """The additions of a graph, and which of them are terms of others."""

    def __init__(self, graph):
        self.ancestry = Ancestry(graph)
        self.makers = {id(x): s for s in graph.steps for x in s.outputs}
        self.readers = graphs.readers(graph)

    def within(self, step):
        """Returns the inputs of a residual addition that are sums to join."""
        if not graphs.is_addition(step):
            return []
        join = join_at(step, self.ancestry)
        if join is None:
            return []
        inner = [x for x in join.branches if self.is_inner(x)]
        return inner + [x for x in join.shortcuts if self.is_begun(x, step)]

    def opened(self, x):
        """Returns the terms of a sum, and the sums that they replace.

        If one of two terms is itself such a sum, it is opened too.
        """
        step = self.makers[id(x)]
        terms = step.inputs
        sums = [y for y in terms if self.is_inner(y) or self.is_begun(y, step)]
        if len(terms) != 2 or len(sums) != 1:
            return terms, [x]
        (other,) = [y for y in terms if y is not sums[0]]
        inner, gone = self.opened(sums[0])
        return [*inner, other], [x, *gone]

    def is_inner(self, x):
        """Returns whether a tensor is a sum of branches, without a shortcut."""
        step = self.addition(x)
        if step is None:
            return False
        ways = [self.ancestry.steps[id(y)] for y in step.inputs]
        # If a term is computed from another, it is a block within the branch.
        if not all(a & ~b for a, b in itertools.permutations(ways, 2)):
            return False
        join = join_at(step, self.ancestry)
        return not join or not _is_projection(join, self.ancestry)

    def is_begun(self, x, step):
        """Returns whether an addition continues the sum `x`."""
        inner = self.addition(x)
        if inner is None:
            return False
        # In `x + f + g`, `g` is computed from what `x` and `f` have in common.
        before = self.ancestry.shared(inner.inputs)
        continues = not before & ~self.ancestry.shared(step.inputs)
        return continues and join_at(inner, self.ancestry) is not None

    def addition(self, x):
        """Returns the addition that computes `x`, if one step reads `x`."""
        step = self.makers.get(id(x))
        if not step or self.readers[id(x)] > 1 or not graphs.is_addition(step):
            return None
        return step


def _is_projection(join, ancestry):
    """Returns whether the shortcut of a join has linear layers only."""
    # The names cover the layers of Keras, ours, and the ops of `keras.ops`.
    kinds = "Conv", "Dense", "BatchNorm", "AveragePool", "MaxPool", "ZeroPad"
    own = ancestry.of(join.shortcuts) & ~ancestry.of(join.branches)
    return all(
        type(step.operation).__name__.startswith(kinds)
        and getattr(step.operation, "activation", None)
        in (None, keras.activations.linear)
        for step in ancestry.members(own)
    )
