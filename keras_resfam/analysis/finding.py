"""The residual blocks of a model, found from its additions.

An addition is residual when one of the tensors it joins has come a shorter way
than another: the shorter is the shortcut, the longer a residual branch. Where
one is what all others are made of, the way is counted in layers with kernels
from there; else from the model's input, then in parameters, so that a
projection of one small convolution is a shortcut too.
Additions that stand side by side, as in the streams of a merge-and-run
network, make up one block.
"""

import collections
import dataclasses
import functools
import itertools
import operator

import keras

from keras_resfam import graphs
from keras_resfam.analysis.names import common, make_unique, named, natural


@dataclasses.dataclass(frozen=True)
class Block:
    """One block of a model, as `residual_blocks` or `plain_layers` found it.

    Attributes:
        name: str. What the names of its layers have in common.
        stage: int, from 1. A stage ends where the number of channels changes.
        branches: dict from the name of each residual branch to the names of
            its layers. Of a plain layer: empty.
        shortcut: tuple of str. The layers between the block's input and its
            additions on the way round the branches, the merge left out;
            empty for an identity.
        merge: str or `None`. The layer that averages the streams of a
            merge-and-run block.
        additions: tuple of str. The layers that add branches and shortcut.
        input_shapes: tuple of shapes, one for each tensor the block takes.
        output_shapes: tuple of shapes, one for each tensor it gives.
    """

    name: str
    stage: int
    branches: dict = dataclasses.field(hash=False)
    shortcut: tuple
    merge: str | None
    additions: tuple
    input_shapes: tuple
    output_shapes: tuple

    @property
    def identity(self):
        """Whether nothing, or only the merge, lies on the shortcut."""
        return not self.shortcut and bool(self.additions)

    @property
    def keeps_shape(self):
        """Whether what it gives could be its own input again."""
        return self.input_shapes == self.output_shapes


@dataclasses.dataclass(eq=False)
class _Join:
    """A residual addition: a step, and which of its inputs is what."""

    step: graphs.Step
    shortcuts: list
    branches: list
    copies: int = 1  # how often the shortcut counts among the paths

    def added(self, tensors):
        """Those tensors as often as the step adds them."""
        # `Add()([x, f, f])` has two paths through `f`.
        wanted = {id(x) for x in tensors}
        return [x for x in self.step.inputs if id(x) in wanted]


@dataclasses.dataclass(eq=False)
class Unit:
    """A block in its place: `lead` comes before it, `body` is the block.

    `entry` are the tensors that the body takes, `exit` those it gives.
    """

    lead: list
    body: list
    joins: list
    entry: list = None
    exit: list = None
    block: Block = None

    def steps(self, kept=()):
        """The body's steps with only those residual branches that are kept.

        Args:
            kept: collection of branch names; `None` for all.
        """
        if kept is None:
            return self.body
        # A layer of a plain network has no shortcut: what it takes passes on.
        if not self.joins:
            pairs = zip(self.entry, self.exit, strict=True)
            return [graphs.alias(x, y) for x, y in pairs]
        # Branches are named in the order of the joins, as `_describe` does.
        names = iter(self.block.branches)
        reduced = {
            id(join.step): _reduced_join(
                join, [x for x in join.branches if next(names) in kept]
            )
            for join in self.joins
        }
        steps = [reduced.get(id(step), step) for step in self.body]
        # Without this the lost branch would be computed for nothing.
        return graphs.needed(steps, self.exit)


@dataclasses.dataclass(eq=False)
class Chain:
    """A graph cut into units, one for each block, and the steps after them."""

    graph: graphs.Graph
    units: list
    head: list

    def find(self, name, argument="blocks"):
        """The position of the block of that name and its branch, if it is one.

        Args:
            name: str or `Block`.
            argument: str. What the user has given it as. Defaults to
                `"blocks"`.

        Returns:
            `(position, None)` for a block, `(position, branch name)` for one
            of several branches.
        """
        name = getattr(name, "name", name)
        known = self.units if isinstance(name, str) else ()
        for position, unit in enumerate(known):
            if name == unit.block.name:
                return position, None
            if name in unit.block.branches:
                return position, name
        names = [unit.block.name for unit in self.units]
        raise ValueError(
            f"`{argument}` should be blocks of the model "
            f"`{self.graph.name}`: {names}. Received: {name!r}"
        )


def _reduced_join(join, branches):
    """The step that adds up the shortcut and fewer branches, or copies it."""
    tensors = join.added([*join.shortcuts, *branches])
    # Keras's Add refuses a single tensor.
    if len(tensors) == 1:
        return graphs.alias(tensors[0], join.step.outputs[0])
    if len(tensors) == len(join.step.inputs):
        return join.step
    # Of a layer: `keras.ops.add` has two tensors, of which one would be left.
    return dataclasses.replace(join.step, args=(tensors,), kwargs={})


def residual_blocks(model):
    """Finds the residual blocks of a model from its graph, in order.

    Works on any functional model that adds its branches to a shortcut
    (`keras.layers.Add` or `keras.ops.add`): post- and pre-activation blocks,
    projections, inception-like and merge-and-run blocks. Models among its
    layers, such as the backbone of a fine-tuned network, are looked into.
    Additions inside a layer are not seen, as in `CustomScaleLayer` of
    `keras.applications.InceptionResNetV2`.

    Example:

    ```python
    model = keras.applications.ResNet50V2(weights=None)
    blocks = residual_blocks(model)
    len(blocks)  # 16
    blocks[0].name, blocks[0].shortcut
    # ("conv2_block1", ("conv2_block1_0_conv",))
    ```

    Args:
        model: functional `keras.Model`.

    Returns:
        A list of `Block`, empty for a plain network.
    """
    chain = residual_chain(graphs.read_single(model))
    return [unit.block for unit in chain.units]


def residual_chain(graph):
    graph = _with_sums_joined(graph)
    family = _Ancestry(graph)  # anew: the steps are others than the sums saw
    chain = Chain(graph, *_cut_at(graph, family, _side_by_side(graph, family)))
    carried = []
    for unit in chain.units:
        # Streams keep their order from block to block, so that one block can
        # take the place of another.
        unit.entry = _ordered(graphs.reads(unit.body), carried)
        unit.joins.sort(key=lambda join: family.stream(join, unit.entry))
        unit.exit = [_last_of(unit.body, join) for join in unit.joins]
        carried = unit.exit
        unit.block = _describe(unit, family)
    # How a block counts depends on the next one: after all are described.
    for unit, following in itertools.pairwise([*chain.units, None]):
        _count_copies(unit, following)
    number_stages(chain.units)
    make_unique(chain.units)
    return chain


def check_blocks(chain):
    """Refuses a model in which no residual block was found."""
    if not chain.units:
        raise ValueError(
            "`model` should have residual blocks, which end in additions "
            "(`keras.layers.Add` or `keras.ops.add`). Received: model="
            f"{chain.graph.name}, in which no block was found"
        )


def number_stages(units):
    """Counts the stages, of which one ends where the channels change."""
    axis = graphs.channel_axis(s.operation for u in units for s in u.body)
    stage, channels = 0, None
    for unit in units:
        shape = unit.exit[0].shape
        count = shape[axis if len(shape) > 3 else -1]
        if count != channels:
            stage, channels = stage + 1, count
        unit.block = dataclasses.replace(unit.block, stage=stage)


class _Ancestry:
    """Which steps each tensor comes from, and how long its shortest way is.

    Sets of steps are ints, one bit for each step: in networks of a thousand
    layers nearly all tensors come from nearly all steps, and whole sets are
    joined and cut at once.
    """

    def __init__(self, graph):
        self.graph = graph
        self.places = {id(step): k for k, step in enumerate(graph.steps)}
        self.steps = {id(x): 0 for x in graph.inputs}
        self.distance = {id(x): 0 for x in graph.inputs}
        self.readers = collections.defaultdict(int)
        self.additions = self.kernels = 0
        for place, step in enumerate(graph.steps):
            # Steps come in the order of running: all they read is known.
            ancestors = 1 << place
            for x in step.inputs:
                ancestors |= self.steps[id(x)]
                self.readers[id(x)] |= 1 << place
            # A factor, as of a gate, is no way for what it multiplies.
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
        return _union(self.steps[id(x)] for x in tensors)

    def shared(self, tensors):
        """What all of the tensors are made of."""
        return functools.reduce(
            operator.and_, (self.steps[id(x)] for x in tensors)
        )

    def members(self, ancestors):
        """The steps of a set, in order."""
        found = []
        while ancestors:
            first = ancestors & -ancestors  # the lowest bit
            found.append(self.graph.steps[first.bit_length() - 1])
            ancestors ^= first
        return found

    def set_of(self, steps):
        return _union(1 << self.places[id(step)] for step in steps)

    def within(self, steps, ancestors):
        """Those of the steps that are in the set."""
        return self.members(self.set_of(steps) & ancestors)

    def stream(self, join, entry):
        """Which of the entry's tensors the join's first branch comes from."""
        # By the branch: the shortcuts of streams that merge come from all.
        own = self.of(join.branches[:1]) & ~self.of(join.shortcuts)
        taken = graphs.reads(self.members(own))
        taken = {id(x) for x in taken}
        return next(
            (k for k, x in enumerate(entry) if id(x) in taken), len(entry)
        )


def passes_all(step):
    """Whether the ways of all inputs lead on through a step."""
    # Not through a product, whose factors scale each other.
    return (
        isinstance(step.operation, keras.layers.Average)
        or graphs.is_a(step.operation, keras.layers.Concatenate, "Concatenate")
        or graphs.is_addition(step)
    )


def _union(sets):
    return functools.reduce(operator.or_, sets, 0)


def _join_at(step, family):
    """The residual addition that a step is, or `None`."""
    # A tensor that is added twice has no way shorter than its own.
    every = list({id(x): x for x in step.inputs}.values())
    tensors = _parted_last(every, family)
    shared = family.shared(tensors)

    def own(x):
        return family.members(family.steps[id(x)] & ~shared)

    def kernels(x):
        return sum(graphs.count_kernels(step.operation) for step in own(x))

    def distance(x):
        return family.distance[id(x)]

    def parameters(x):
        # Neither operations have any, nor the layers put in their places.
        return sum(
            step.operation.count_params()
            for step in own(x)
            if getattr(step.operation, "built", False)
        )

    # A side input, as of a gate, may bring a branch near the model's input.
    identity = any(family.steps[id(x)] == shared for x in tensors)
    # Parameters decide between a projection and a branch of one layer each.
    for length in (kernels if identity else distance, parameters):
        lengths = [length(x) for x in tensors]
        if min(lengths) < max(lengths):
            pairs = zip(tensors, lengths, strict=True)
            branches = [x for x, way in pairs if way > min(lengths)]
            return _Join(step, without(every, branches), branches)
    return None  # ways as long as each other, as of two equal branches


def _parted_last(tensors, family):
    """Those of the tensors that an addition joins whose ways parted last.

    Of `x + f(x) + image`, with the model's input or another early tensor once
    more, they are `x` and `f(x)`: what was there before `x` is no way round
    `f`, and stays with the block whatever branch is lost. `f` and `x` part
    where more has been computed and added up than where the image leaves.
    """

    def parting(pair):
        a, b = (family.steps[id(x)] for x in pair)
        common = a & b
        nested = common in (a, b) and bool(common & family.kernels)
        return nested, (common & family.additions).bit_count()

    pairs = list(itertools.combinations(tensors, 2))
    partings = [parting(pair) for pair in pairs]
    last = {
        id(x)
        for pair, found in zip(pairs, partings, strict=True)
        if found == max(partings)
        for x in pair
    }
    return [x for x in tensors if id(x) in last]


def _with_sums_joined(graph):
    """The graph with sums of several branches as one: a block of as many.

    `x + (f + g)` becomes `f + g + x`. The inner sum has nothing of a shortcut:
    nothing else reads it, none of its parts is made of another, and none is a
    projection. `x + f + g`, which is `(x + f) + g`, becomes one as well, where
    nothing reads `x + f` but the addition, and `g` too is made of `x`. What
    was added first is added first, so that no bit changes.
    """
    sums = _Sums(graph)
    steps, gone = [], set()
    # From the end: the outermost of nested sums takes in all others.
    for step in reversed(graph.steps):
        if any(id(x) in gone for x in step.outputs):
            continue
        inner = sums.within(step)
        # An addition of three or more is a block as it stands.
        if inner and len(step.inputs) == 2:
            (other,) = [x for x in step.inputs if x is not inner[0]]
            parts, opened = sums.opened(inner[0])
            gone.update(map(id, opened))
            step = _addition_of([*parts, other], step)
        steps.append(step)
    return dataclasses.replace(graph, steps=steps[::-1])


def _addition_of(parts, step):
    """A step that adds up the parts, in the place of another addition."""
    add = step.operation
    if not isinstance(add, keras.layers.Add):  # keras.ops adds two
        add = keras.layers.Add(dtype=step.outputs[0].dtype, name=step.name)
    return graphs.Step(add, (parts,), {}, step.outputs)


class _Sums:
    """The additions of a graph, and which are parts of others."""

    def __init__(self, graph):
        self.family = _Ancestry(graph)
        self.makers = {id(x): s for s in graph.steps for x in s.outputs}
        self.readers = graphs.readers(graph)

    def within(self, step):
        """The inputs of a residual addition that are sums to join with it."""
        if not graphs.is_addition(step):
            return []
        join = _join_at(step, self.family)
        if join is None:
            return []
        inner = [x for x in join.branches if self.is_inner(x)]
        return inner + [x for x in join.shortcuts if self.is_begun(x, step)]

    def opened(self, x):
        """The parts of a sum, and what is gone with it.

        Those of a sum in it, where that is the same.
        """
        step = self.makers[id(x)]
        parts = step.inputs
        sums = [y for y in parts if self.is_inner(y) or self.is_begun(y, step)]
        if len(parts) != 2 or len(sums) != 1:
            return parts, [x]
        (other,) = [y for y in parts if y is not sums[0]]
        inner, gone = self.opened(sums[0])
        return [*inner, other], [x, *gone]

    def is_inner(self, x):
        """Whether a tensor is a sum of branches, without a shortcut."""
        step = self.addition(x)
        if step is None:
            return False
        ways = [self.family.steps[id(y)] for y in step.inputs]
        # If one part is made of another, it is a block within the branch.
        if not all(a & ~b for a, b in itertools.permutations(ways, 2)):
            return False
        join = _join_at(step, self.family)
        return not join or not _is_projection(join, self.family)

    def is_begun(self, x, step):
        """Whether an addition goes on with what begins at the same place."""
        inner = self.addition(x)
        if inner is None:
            return False
        # `g` of `x + f + g` too is made of what `x` and `f` have in common.
        before = self.family.shared(inner.inputs)
        goes_on = not before & ~self.family.shared(step.inputs)
        return goes_on and _join_at(inner, self.family) is not None

    def addition(self, x):
        """What adds up a tensor that nothing else reads, or `None`."""
        step = self.makers.get(id(x))
        if not step or self.readers[id(x)] > 1 or not graphs.is_addition(step):
            return None
        return step


def _is_projection(join, family):
    """Whether only linear layers lie on the shortcut of a join."""
    # By name, which layers of Keras, ours and those of `keras.ops` share.
    kinds = "Conv", "Dense", "BatchNorm", "AveragePool", "MaxPool", "ZeroPad"
    own = family.of(join.shortcuts) & ~family.of(join.branches)
    return all(
        type(step.operation).__name__.startswith(kinds)
        and getattr(step.operation, "activation", None)
        in (None, keras.activations.linear)
        for step in family.members(own)
    )


def _side_by_side(graph, family):
    """The residual additions in groups that no branch separates, in order."""
    groups = collections.defaultdict(list)
    # Additions of one level stand side by side: none is made of another.
    level = {id(x): 0 for x in graph.inputs}
    for step in graph.steps:
        height = max((level[id(x)] for x in step.inputs), default=0)
        join = _join_at(step, family) if graphs.is_addition(step) else None
        if join:
            height += 1
            groups[height].append(join)
        level.update((id(x), height) for x in step.outputs)
    # Streams in the order of their names, whatever order Keras runs them in.
    return [
        sorted(groups[height], key=lambda join: natural(join.step.name))
        for height in sorted(groups)
    ]


def _cut_at(graph, family, groups):
    """Cuts the graph into a unit for each group of joins, and the head."""
    units, rest = [], family.set_of(graph.steps)
    every = [join for joins in groups for join in joins]
    takers = _sole_readers(graph)
    activations = {id(join): _activations_after(join, takers) for join in every}
    # An activation after the last block only is the head's.
    activated = all(activations.values())
    for joins in groups:
        ends = [x for join in joins for x in join.step.outputs]
        own = rest & family.of(ends)
        # What branch and shortcut are both made of comes before they part.
        shared = family.of(
            [x for join in joins for x in join.branches]
        ) & family.of([x for join in joins for x in join.shortcuts])
        rest &= ~own
        # What later steps read too comes before the block.
        made = [x for step in family.members(own) for x in step.outputs]
        shared |= family.of(
            x for x in without(made, ends) if family.readers[id(x)] & rest
        )
        body = family.members(own & ~shared)
        # A post-activation block ends behind the ReLU, so that blocks can be
        # swapped with nothing between them.
        if activated:
            for join in joins:
                body += activations[id(join)]
        rest &= ~family.set_of(body)
        units.append(Unit(family.members(own & shared), body, joins))
    return units, family.members(rest)


def without(steps, others):
    """The steps, or tensors, that are not among the others."""
    gone = {id(step) for step in others}
    return [step for step in steps if id(step) not in gone]


def _sole_readers(graph):
    """The step that reads a tensor, by the tensor's id, if it alone does."""
    count = graphs.readers(graph)
    return {
        id(x): step
        for step in graph.steps
        for x in step.inputs
        if count[id(x)] == 1
    }


def _activations_after(join, takers):
    """The steps that alone follow a join, have no weights, keep the shape."""
    found, step = [], takers.get(id(join.step.outputs[0]))
    while (
        step is not None
        and len(step.inputs) == 1
        and keeps_shape(step)
        and not getattr(step.operation, "weights", None)
    ):
        found.append(step)
        step = takers.get(id(step.outputs[0]))
    return found


def keeps_shape(step):
    return shapes(step.inputs) == shapes(step.outputs)


def shapes(tensors):
    return tuple(tuple(x.shape) for x in tensors)


def _last_of(steps, join):
    """The tensor that a join's output has become at the end of the steps."""
    tensor = join.step.outputs[0]
    for step in steps:
        if any(x is tensor for x in step.inputs):
            tensor = step.outputs[0]
    return tensor


def _ordered(tensors, carried):
    """The tensors in the order in which the block before gave them."""
    places = {id(x): k for k, x in enumerate(carried)}
    return sorted(tensors, key=lambda x: places.get(id(x), len(places)))


def _describe(unit, family):
    """The public record of a residual unit, but for its stage."""
    shortcuts = [x for join in unit.joins for x in join.shortcuts]
    ways = family.within(unit.body, family.of(shortcuts))
    merge = next((s for s in ways if _is_merge(s)), None)
    branches = [
        tuple(
            step.name
            for step in family.within(
                unit.body, family.of([x]) & ~family.of(join.shortcuts)
            )
        )
        for join in unit.joins
        for x in join.branches
    ]
    additions = tuple(join.step.name for join in unit.joins)
    everything = [name for names in branches for name in names]
    # The addition may be called otherwise than the layers, or by Keras.
    name = common(everything + list(additions)) or common(everything)
    name = name or additions[0]
    return Block(
        name=name,
        stage=0,
        branches=named(branches, name),
        shortcut=tuple(s.name for s in ways if s is not merge),
        merge=merge and merge.name,
        additions=additions,
        input_shapes=shapes(unit.entry),
        output_shapes=shapes(unit.exit),
    )


def _is_merge(step):
    return isinstance(step.operation, keras.layers.Average)


def _count_copies(unit, following):
    """Counts the merge once for every stream that it stands for.

    Where all streams are equal (the first block) nothing has to be averaged,
    and where they end (the last) their sum holds one copy of the average: in
    both places one tensor stands for as many as there are branches.
    """
    branches = len(unit.block.branches)
    first_of_streams = (
        len(unit.joins) > 1
        and not unit.block.merge
        and len({id(x) for join in unit.joins for x in join.shortcuts}) == 1
        and following is not None
        and following.block.merge
    )
    last_of_streams = len(unit.joins) == 1 and unit.block.merge
    if first_of_streams or last_of_streams:
        for join in unit.joins:
            join.copies = branches
