"""Plain networks, in which layers take the place of blocks."""

from keras_resfam import graphs
from keras_resfam.analysis.chain import (
    Block,
    Chain,
    Unit,
    keeps_shape,
    number_stages,
    shapes,
)
from keras_resfam.analysis.finding import residual_chain
from keras_resfam.analysis.names import make_unique


def plain_layers(model):
    """Finds the layers of a plain network that can be deleted, in order.

    A layer here is a layer with a kernel and what follows it up to the next one
    (normalization, activation, dropout). It can be deleted if its output has
    the shape of its input.

    Args:
        model: functional or sequential `keras.Model`.

    Returns:
        A list of `Block` without additions.

    Raises:
        ValueError: If the model has residual blocks.
    """
    graph = graphs.read_single(model)
    blocks = residual_chain(graph).units
    if blocks:
        raise ValueError(
            "`model` should be a plain network. For residual networks, use "
            f"`residual_blocks`. Received: model={graph.name} with "
            f"{len(blocks)} residual blocks"
        )
    chain = _plain_chain(graph)
    return [unit.block for unit in chain.units]


def chain_of(model, sizes=None):
    """Cuts a model at its residual blocks, or at its layers if it is plain.

    Args:
        model: functional or sequential `keras.Model`.
        sizes: tuple. The shape of an image, which replaces sizes of `None` in
            the model's input. Defaults to `None`.

    Returns:
        A `Chain`.
    """
    graph = graphs.read_single(model, sizes)
    chain = residual_chain(graph)
    chain = chain if chain.units else _plain_chain(graph)
    if not chain.units:
        raise ValueError(
            "`model` should have residual blocks, or layers that keep the "
            f"shape. Received: model={graph.name}"
        )
    return chain


def _plain_chain(graph):
    """Cuts a plain graph at the layers that keep the shape."""
    units, lead = [], []
    for layer in _plain_pieces(graph):
        entry, exits = graphs.reads(layer), layer[-1].outputs
        kept = shapes(entry) == shapes(exits)
        heavy = [s for s in layer if graphs.count_kernels(s.operation)]
        if kept and heavy:
            unit = Unit(lead, layer, [], entry, exits)
            unit.block = Block(
                name=heavy[0].name,
                stage=0,
                branches={},
                shortcut=(),
                merge=None,
                additions=(),
                input_shapes=shapes(entry),
                output_shapes=shapes(exits),
            )
            units.append(unit)
            lead = []
        else:
            lead = lead + layer
    number_stages(units)
    make_unique(units)
    return Chain(graph, units, lead)


def _plain_pieces(graph):
    """Returns the steps in pieces of one layer each.

    A graph is cut where later steps read a single tensor. Scalars do not count,
    such as the links between `GradientModulation` layers.
    """
    last_use = {id(x): len(graph.steps) for x in graph.outputs}
    for position, step in enumerate(graph.steps):
        for x in step.inputs:
            last_use[id(x)] = max(position, last_use.get(id(x), 0))
    pieces, piece, carried = [], [], {id(x) for x in graph.inputs}
    for position, step in enumerate(graph.steps):
        piece.append(step)
        carried.update(id(x) for x in step.outputs if len(x.shape))
        carried = {x for x in carried if last_use.get(x, 0) > position}
        if len(carried) > 1:
            continue
        heavy = any(graphs.count_kernels(s.operation) for s in piece)
        if pieces and not heavy and all(keeps_shape(s) for s in piece):
            pieces[-1] += piece
        else:
            pieces.append(piece)
        piece = []
    return pieces
