"""Models with blocks deleted, in another order, or repeated.

Each of these models is a layout of the blocks of the original one. A layout is
a list with one entry for each place in the model: the blocks that run there, in
order. A block is a pair: its position in the original model, and the names of
the residual branches that are kept (`None` for all).
"""

import keras

from keras_resfam import graphs
from keras_resfam._checks import is_iterable
from keras_resfam.analysis.chain import Block
from keras_resfam.analysis.plain import chain_of


def delete_blocks(model, blocks):
    """Deletes residual blocks from a model.

    The shortcut of a block stays, with its projection or pooling: `y = x +
    f(x)` becomes `y = x` (Veit et al. 2016, section 4.1). Weights and
    statistics are not changed. A single branch of several can be deleted by its
    name. In a plain network, the layers of `plain_layers` are deleted.

    Args:
        model: functional `keras.Model`. It is not changed.
        blocks: list of `Block`s, or of names of blocks or branches, in any
            order.

    Returns:
        A `keras.Model` that shares the remaining layers with `model`.

    Raises:
        ValueError: If a block or branch is unknown.

    Example:

    ```python
    model = keras.applications.ResNet50V2()
    lesioned = delete_blocks(model, ["conv3_block2", "conv4_block5"])
    ```
    """
    _check_list("blocks", blocks)
    chain = chain_of(model)
    return _build(chain, deletion(chain, blocks), f"{model.name}_deleted")


def permute_blocks(model, order):
    """Puts the blocks of a model into another order.

    Reference: Veit et al. 2016, section 4.3.

    Args:
        model: functional `keras.Model`. It is not changed.
        order: list of all `Block`s of the model, or of their names, in the new
            order.

    Returns:
        A `keras.Model` that shares all layers with `model`.

    Raises:
        ValueError: If the input of a block would have another shape than
            before.
    """
    _check_list("order", order)
    chain = chain_of(model)
    positions = [_position(chain, block, "order") for block in order]
    if sorted(positions) != list(range(len(chain.units))):
        raise ValueError(
            "`order` should hold each block of the model once: "
            f"{[unit.block.name for unit in chain.units]}. "
            f"Received: order={[chain.units[k].block.name for k in positions]}"
        )
    return _build(chain, permutation(positions), f"{model.name}_permuted")


def duplicate_blocks(model, blocks):
    """Repeats blocks of a model, each directly after itself.

    Args:
        model: functional `keras.Model`. It is not changed.
        blocks: list of `Block`s or of their names. A block that is in the list
            `n` times runs `n + 1` times.

    Returns:
        A `keras.Model` that shares all layers with `model`.

    Raises:
        ValueError: If the output of a block has another shape than its input.
    """
    _check_list("blocks", blocks)
    chain = chain_of(model)
    positions = [_position(chain, block, "blocks") for block in blocks]
    return _build(
        chain, duplication(chain, positions), f"{model.name}_repeated"
    )


def _check_list(argument, blocks):
    if isinstance(blocks, (str, bytes, Block)) or not is_iterable(blocks):
        raise ValueError(
            f"`{argument}` should be a list of blocks or of their names. "
            f"Received: {argument}={blocks!r}"
        )


def _position(chain, block, argument):
    place, branch = chain.find(block, argument)
    if branch is not None:
        raise ValueError(
            f"`{argument}` should be whole blocks: a single branch can only "
            f"be deleted. Received: {branch!r}"
        )
    return place


def intact(chain):
    """Returns the layout of the model as it is."""
    return [[(k, None)] for k in range(len(chain.units))]


def deletion(chain, blocks):
    """Returns the layout without blocks, or without branches of them."""
    layout = intact(chain)
    lost = {}
    for block in blocks:
        place, branch = chain.find(block)
        branches = chain.units[place].block.branches
        lost.setdefault(place, set()).update([branch] if branch else branches)
    for place, names in lost.items():
        branches = chain.units[place].block.branches
        kept = tuple(name for name in branches if name not in names)
        layout[place] = [(place, kept)]
    return layout


def permutation(positions):
    """Returns the layout of whole blocks in a new order."""
    return [[(k, None)] for k in positions]


def duplication(chain, positions):
    """Returns the layout in which the blocks at some positions run again."""
    return [
        [(k, None)] * (1 + positions.count(k)) for k in range(len(chain.units))
    ]


def _check(chain, layout):
    """Checks that the shapes of consecutive blocks fit."""
    for place, blocks in zip(chain.units, layout, strict=True):
        name, shapes = "the model", place.block.input_shapes
        for k, _ in blocks:
            block = chain.units[k].block
            if block.input_shapes != shapes:
                raise ValueError(
                    f"Block `{block.name}` takes {block.input_shapes} and "
                    f"cannot follow {name}, which returns {shapes} "
                    f"in the place of block `{place.block.name}`."
                )
            name, shapes = f"block `{block.name}`", block.output_shapes
        if shapes != place.block.output_shapes:
            raise ValueError(
                f"The model takes {place.block.output_shapes} from block "
                f"`{place.block.name}` and cannot follow {name}, "
                f"which returns {shapes}."
            )


def _build(chain, layout, name):
    """Builds the model of a layout from the layers of the chain."""
    _check(chain, layout)
    inputs, values = graphs.fresh_input(chain.graph)
    for place, blocks in zip(chain.units, layout, strict=True):
        graphs.run(place.lead, values)
        state = [values[id(x)] for x in place.entry]
        for k, kept in blocks:
            state = _run_block(chain.units[k], kept, state, values)
        values.update(
            (id(x), y) for x, y in zip(place.exit, state, strict=True)
        )
    graphs.run(chain.head, values)
    return keras.Model(inputs, values[id(chain.graph.outputs[0])], name=name)


def _run_block(unit, kept, state, values):
    """Runs a block on its inputs, and returns its outputs.

    A block may run more than once, so its tensors are not added to `values`.
    """
    inner = {id(x): y for x, y in zip(unit.entry, state, strict=True)}
    graphs.run(unit.steps(kept), inner)
    return [inner[id(x)] for x in unit.exit]
