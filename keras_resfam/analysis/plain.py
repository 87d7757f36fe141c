"""Plain networks, whose layers take the place of blocks."""

from keras_resfam import graphs
from keras_resfam.analysis.finding import (
    Block,
    Chain,
    Unit,
    keeps_shape,
    number_stages,
    residual_chain,
    shapes,
)
from keras_resfam.analysis.names import make_unique


def plain_layers(model):
    """Finds the layers of a plain network that can be taken out, in order.

    A layer here is one layer with a kernel and what follows it up to the next
    one (normalization, activation, dropout), where all of that gives the
    shape that it takes.

    Args:
        model: functional or sequential `keras.Model`.

    Returns:
        A list of `Block` with no additions.

    Raises:
        ValueError: If the model has residual blocks.
    """
    graph = graphs.read_single(model)
    blocks = residual_chain(graph).units
    if blocks:
        raise ValueError(
            "`model` should be plain; `residual_blocks` finds what takes the "
            f"layers' place. Received: model={graph.name} with {len(blocks)} "
            "residual blocks"
        )
    chain = _plain_chain(graph)
    return [unit.block for unit in chain.units]


def chain_of(model, sizes=None):
    """The model cut at its residual blocks, or at its layers if it is plain.

    Args:
        model: functional or sequential `keras.Model`.
        sizes: tuple. Of images, where the model leaves them open.
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
    """The graph cut at the layers of a plain network that keep the shape."""
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
    """The steps in pieces of one layer, cut where one tensor carries all.

    Scalars that run along, as between the layers of `GradientModulation`, do
    not count.
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
