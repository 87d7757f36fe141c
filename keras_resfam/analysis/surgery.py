"""Models with blocks deleted, in another order, or repeated.

All three lay the blocks of a model out anew. A layout is a list with one entry
for each place in the model: the blocks that run there, one after another, each
as a pair of its position in the model and the names of the residual branches
that are kept (`None` for all).
"""

import keras

from keras_resfam import graphs
from keras_resfam._checks import is_iterable
from keras_resfam.analysis.finding import Block
from keras_resfam.analysis.plain import chain_of


def delete_blocks(model, blocks):
    """Takes residual blocks out of a model.

    The block's shortcut stays, with its projection or pooling where it has
    one: `y = x + f(x)` becomes `y = x` (Veit et al. 2016, section 4.1).
    Neither weights nor statistics are changed. Of a block with several
    branches a single one can be deleted by its name. In a plain network the
    layers of `plain_layers` are deleted.

    Example:

    ```python
    model = keras.applications.ResNet50V2()
    lesioned = delete_blocks(model, ["conv3_block2", "conv4_block5"])
    ```

    Args:
        model: functional `keras.Model`. Stays as it is.
        blocks: list of `Block`s, or of names of blocks or branches, in any
            order.

    Returns:
        A `keras.Model` of the other layers, shared with `model`.
    """
    _check_list("blocks", blocks)
    chain = chain_of(model)
    return _build(chain, deletion(chain, blocks), f"{model.name}_deleted")


def permute_blocks(model, order):
    """Puts the blocks of a model into another order.

    Args:
        model: functional `keras.Model`. Stays as it is.
        order: list of all the model's `Block`s, or their names: which block
            comes first, second, ... (Veit et al. 2016, section 4.3).

    Returns:
        A `keras.Model` of the same layers, shared with `model`.

    Raises:
        ValueError: If a block does not take the shape that it would get.
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
    """Lets blocks of a model run twice, each right after itself.

    Args:
        model: functional `keras.Model`. Stays as it is.
        blocks: list of `Block`s or their names. One that is named `n` times
            runs `n + 1` times.

    Returns:
        A `keras.Model` of the same layers, shared with `model`.

    Raises:
        ValueError: If a block does not take the shape that it gives.
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
    return [[(k, None)] for k in range(len(chain.units))]


def deletion(chain, blocks):
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
    return [[(k, None)] for k in positions]


def duplication(chain, positions):
    return [
        [(k, None)] * (1 + positions.count(k)) for k in range(len(chain.units))
    ]


def _check(chain, layout):
    """Raises ValueError where blocks that follow each other do not fit."""
    for place, blocks in zip(chain.units, layout, strict=True):
        name, shapes = "the model", place.block.input_shapes
        for k, _ in blocks:
            block = chain.units[k].block
            if block.input_shapes != shapes:
                raise ValueError(
                    f"Block `{block.name}` takes {block.input_shapes} and "
                    f"cannot be joined to {name}, which gives {shapes} "
                    f"in the place of block `{place.block.name}`."
                )
            name, shapes = f"block `{block.name}`", block.output_shapes
        if shapes != place.block.output_shapes:
            raise ValueError(
                f"The model takes {place.block.output_shapes} from block "
                f"`{place.block.name}` and cannot be joined to {name}, "
                f"which gives {shapes}."
            )


def _build(chain, layout, name):
    """The model that a layout describes, of the chain's own layers."""
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
    """Runs one block on a state, in a room of its own."""
    inner = {id(x): y for x, y in zip(unit.entry, state, strict=True)}
    graphs.run(unit.steps(kept), inner)
    return [inner[id(x)] for x in unit.exit]
