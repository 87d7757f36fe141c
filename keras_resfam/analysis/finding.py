"""Finds the residual blocks of a model, from the additions in its graph.

Additions that stand side by side, as in the streams of a merge-and-run network,
are one block. `ancestry` defines which additions are residual.
"""

import collections
import itertools

import keras

from keras_resfam import graphs
from keras_resfam.analysis.ancestry import Ancestry, join_at
from keras_resfam.analysis.chain import (
    Block,
    Chain,
    Unit,
    keeps_shape,
    number_stages,
    shapes,
    without,
)
from keras_resfam.analysis.names import common, make_unique, named, natural
from keras_resfam.analysis.sums import with_sums_joined


def residual_blocks(model):
    """Finds the residual blocks of a model from its graph, in order.

    It works on any functional model that adds its branches to a shortcut by
    `keras.layers.Add` or `keras.ops.add`: post- and pre-activation blocks,
    projections, inception-like and merge-and-run blocks. Nested models, such
    as the backbone of a fine-tuned network, are included. Additions inside a
    layer are not found, such as those in `CustomScaleLayer` of
    `keras.applications.InceptionResNetV2`.

    Args:
        model: functional `keras.Model`.

    Returns:
        A list of `Block`, empty for a plain network.

    Example:

    ```python
    model = keras.applications.ResNet50V2(weights=None)
    blocks = residual_blocks(model)
    len(blocks)  # 16
    blocks[0].name, blocks[0].shortcut
    # ("conv2_block1", ("conv2_block1_0_conv",))
    ```
    """
    chain = residual_chain(graphs.read_single(model))
    return [unit.block for unit in chain.units]


def residual_chain(graph):
    """Cuts a graph at its residual blocks.

    Args:
        graph: `Graph`, without nested models.

    Returns:
        A `Chain`, without units for a plain network.
    """
    graph = with_sums_joined(graph)
    ancestry = Ancestry(graph)
    groups = _side_by_side(graph, ancestry)
    chain = Chain(graph, *_cut_at(graph, ancestry, groups))
    carried = []
    for unit in chain.units:
        # Streams keep their order from block to block, so that one block can
        # take the place of another.
        unit.entry = _ordered(graphs.reads(unit.body), carried)
        unit.joins.sort(key=lambda join: ancestry.stream(join, unit.entry))
        unit.exit = [_last_of(unit.body, join) for join in unit.joins]
        carried = unit.exit
        unit.block = _describe(unit, ancestry)
    # How a block counts depends on the next one, so this comes after the loop.
    for unit, following in itertools.pairwise([*chain.units, None]):
        _count_copies(unit, following)
    number_stages(chain.units)
    make_unique(chain.units)
    return chain


def _side_by_side(graph, ancestry):
    """Groups the residual additions that no branch separates, in order."""
    groups = collections.defaultdict(list)
    # Additions of one level stand side by side: none is computed from another.
    level = {id(x): 0 for x in graph.inputs}
    for step in graph.steps:
        height = max((level[id(x)] for x in step.inputs), default=0)
        join = join_at(step, ancestry) if graphs.is_addition(step) else None
        if join:
            height += 1
            groups[height].append(join)
        level.update((id(x), height) for x in step.outputs)
    # Streams are ordered by name, since Keras may run them in any order.
    return [
        sorted(groups[height], key=lambda join: natural(join.step.name))
        for height in sorted(groups)
    ]


def _cut_at(graph, ancestry, groups):
    """Returns a unit for each group of joins, and the steps after them."""
    units, rest = [], ancestry.set_of(graph.steps)
    every = [join for joins in groups for join in joins]
    takers = _sole_readers(graph)
    activations = {id(join): _activations_after(join, takers) for join in every}
    # If only the last block has an activation, it belongs to the head.
    activated = all(activations.values())
    for joins in groups:
        ends = [x for join in joins for x in join.step.outputs]
        own = rest & ancestry.of(ends)
        # What both branch and shortcut are computed from comes before the
        # block.
        shared = ancestry.of(
            [x for join in joins for x in join.branches]
        ) & ancestry.of([x for join in joins for x in join.shortcuts])
        rest &= ~own
        # So does what later steps read.
        made = [x for step in ancestry.members(own) for x in step.outputs]
        shared |= ancestry.of(
            x for x in without(made, ends) if ancestry.readers[id(x)] & rest
        )
        body = ancestry.members(own & ~shared)
        # A post-activation block ends after the ReLU, so that blocks can be
        # swapped with nothing between them.
        if activated:
            for join in joins:
                body += activations[id(join)]
        rest &= ~ancestry.set_of(body)
        units.append(Unit(ancestry.members(own & shared), body, joins))
    return units, ancestry.members(rest)


def _sole_readers(graph):
    """Returns a dict from the ids of tensors to the only step that reads each.

    Tensors that are read more than once are not in it.
    """
    count = graphs.readers(graph)
    return {
        id(x): step
        for step in graph.steps
        for x in step.inputs
        if count[id(x)] == 1
    }


def _activations_after(join, takers):
    """Returns the steps without weights that follow a join and keep the shape.

    Nothing else reads the output of the join or of these steps.
    """
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


def _last_of(steps, join):
    """Returns the tensor that the steps after a join turn its output into."""
    tensor = join.step.outputs[0]
    for step in steps:
        if any(x is tensor for x in step.inputs):
            tensor = step.outputs[0]
    return tensor


def _ordered(tensors, carried):
    """Returns the tensors in the order of the previous block's outputs."""
    places = {id(x): k for k, x in enumerate(carried)}
    return sorted(tensors, key=lambda x: places.get(id(x), len(places)))


def _describe(unit, ancestry):
    """Returns the `Block` of a residual unit, without its stage."""
    shortcuts = [x for join in unit.joins for x in join.shortcuts]
    ways = ancestry.within(unit.body, ancestry.of(shortcuts))
    merge = next((s for s in ways if _is_merge(s)), None)
    branches = [
        tuple(
            step.name
            for step in ancestry.within(
                unit.body, ancestry.of([x]) & ~ancestry.of(join.shortcuts)
            )
        )
        for join in unit.joins
        for x in join.branches
    ]
    additions = tuple(join.step.name for join in unit.joins)
    everything = [name for names in branches for name in names]
    # The name of the addition may differ from those of the layers, or be
    # Keras's.
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
    """Counts a shortcut once for each stream that it stands for.

    In the first block, all streams are equal and are not averaged. In the last
    one, their sum contains the average once. In both, one tensor stands for as
    many streams as there are branches.
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
