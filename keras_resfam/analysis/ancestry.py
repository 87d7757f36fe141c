"""Which steps each tensor is computed from, and which additions are residual.

An addition is residual if one of its inputs has come a shorter way than
another: the shorter one is the shortcut, the longer one a residual branch. If
one input is part of what all others are computed from (an identity shortcut),
the length of a way is the number of layers with kernels since then. Otherwise
it is the number of such layers from the model's input, and among equals the
number of parameters, so that a projection by one small convolution is a
shortcut too.
"""

import collections
import functools
import itertools
import operator

import keras

from keras_resfam import graphs
from keras_resfam.analysis.chain import Join, without


class Ancestry:
    """The ancestors of each tensor, and the length of its shortest way.

    Sets of steps are ints with one bit for each step. In networks of a thousand
    layers, nearly all tensors have nearly all steps as ancestors, and whole
    sets are joined and intersected at once.
    """

    def __init__(self, graph):
        self.graph = graph
        self.places = {id(step): k for k, step in enumerate(graph.steps)}
        self.steps = {id(x): 0 for x in graph.inputs}
        self.distance = {id(x): 0 for x in graph.inputs}
        self.readers = collections.defaultdict(int)
        self.additions = self.kernels = 0
        for place, step in enumerate(graph.steps):
            # Steps are in the order in which they run, so the ancestors of
            # their inputs are known.
            ancestors = 1 << place
            for x in step.inputs:
                ancestors |= self.steps[id(x)]
                self.readers[id(x)] |= 1 << place
            # A factor, such as that of a gate, is no shorter way.
            shortest = min if passes_all(step) else max
            ways = (self.distance[id(x)] for x in step.inputs)
            way = shortest(ways, default=0)
            kernels = graphs.count_kernels(step.operation)
            way += kernels
            self.additions |= graphs.is_addition(step) << place
            self.kernels |= bool(kernels) << place
            for x in step.outputs:
                self.steps[id(x)] = ancestors
                self.distance[id(x)] = way

    def of(self, tensors):
        """Returns the steps that any of the tensors is computed from."""
        return _union(self.steps[id(x)] for x in tensors)

    def shared(self, tensors):
        """Returns the steps that all of the tensors are computed from."""
        return functools.reduce(
            operator.and_, (self.steps[id(x)] for x in tensors)
        )

    def members(self, ancestors):
        """Returns the steps of a set as a list, in order."""
        found = []
        while ancestors:
            first = ancestors & -ancestors  # the lowest bit
            found.append(self.graph.steps[first.bit_length() - 1])
            ancestors ^= first
        return found

    def set_of(self, steps):
        """Returns the set of a list of steps."""
        return _union(1 << self.places[id(step)] for step in steps)

    def within(self, steps, ancestors):
        """Returns those of the steps that are in the set."""
        return self.members(self.set_of(steps) & ancestors)

    def stream(self, join, entry):
        """Returns the index of the input that a join's branch starts from."""
        # The branch tells: the shortcuts of streams that are merged come from
        # all inputs.
        own = self.of(join.branches[:1]) & ~self.of(join.shortcuts)
        taken = graphs.reads(self.members(own))
        taken = {id(x) for x in taken}
        return next(
            (k for k, x in enumerate(entry) if id(x) in taken), len(entry)
        )


def passes_all(step):
    """Returns whether paths from all inputs of a step go through it.

    They do not go through a product, whose factors scale each other.
    """
    return (
        isinstance(step.operation, keras.layers.Average)
        or graphs.is_a(step.operation, keras.layers.Concatenate, "Concatenate")
        or graphs.is_addition(step)
    )


def _union(sets):
    return functools.reduce(operator.or_, sets, 0)


def join_at(step, ancestry):
    """Returns the `Join` of an addition, or `None` if it is not residual."""
    # A tensor that is added twice has no way shorter than its own.
    every = list({id(x): x for x in step.inputs}.values())
    tensors = _parted_last(every, ancestry)
    shared = ancestry.shared(tensors)

    def own(x):
        return ancestry.members(ancestry.steps[id(x)] & ~shared)

    def kernels(x):
        return sum(graphs.count_kernels(step.operation) for step in own(x))

    def distance(x):
        return ancestry.distance[id(x)]

    def parameters(x):
        # Operations have none, and neither do layers that replace them.
        return sum(
            step.operation.count_params()
            for step in own(x)
            if getattr(step.operation, "built", False)
        )

    # A side input, such as that of a gate, may bring a branch near the model's
    # input.
    identity = any(ancestry.steps[id(x)] == shared for x in tensors)
    # Parameters decide between a projection and a branch of one layer each.
    for length in (kernels if identity else distance, parameters):
        lengths = [length(x) for x in tensors]
        if min(lengths) < max(lengths):
            pairs = zip(tensors, lengths, strict=True)
            branches = [x for x, way in pairs if way > min(lengths)]
            return Join(step, without(every, branches), branches)
    return None  # ways of equal length, such as those of two equal branches


def _parted_last(tensors, ancestry):
    """Returns the inputs of an addition whose ways parted last.

    In `x + f(x) + image`, where the model's input or another early tensor is
    added once more, they are `x` and `f(x)`. What was there before `x` is not a
    shortcut of `f`, and stays in the block if any branch is deleted. `f` and
    `x` part after more layers and additions than `x` and the image do.
    """

    def parting(pair):
        a, b = (ancestry.steps[id(x)] for x in pair)
        common = a & b
        nested = common in (a, b) and bool(common & ancestry.kernels)
        return nested, (common & ancestry.additions).bit_count()

    pairs = list(itertools.combinations(tensors, 2))
    partings = [parting(pair) for pair in pairs]
    last = {
        id(x)
        for pair, found in zip(pairs, partings, strict=True)
        if found == max(partings)
        for x in pair
    }
    return [x for x in tensors if id(x) in last]
