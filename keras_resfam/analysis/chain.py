"""A network as a chain of blocks, whatever the blocks were found by."""

import dataclasses

from keras_resfam import graphs


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of a model, as `residual_blocks` and `plain_layers` return it.

    Attributes:
        name: str. The words that the names of its layers have in common.
        stage: int, from 1. A stage ends where the number of channels changes.
        branches: dict from the name of each residual branch to the names of
            its layers. It is empty for a layer of a plain network.
        shortcut: tuple of str. The layers of the shortcut, without the merge.
            It is empty for an identity shortcut.
        merge: str or `None`. The layer that averages the streams of a
            merge-and-run block.
        additions: tuple of str. The layers that add branches and shortcut.
        input_shapes: tuple of shapes, one for each input of the block.
        output_shapes: tuple of shapes, one for each output of the block.
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
        """Whether the shortcut has no layers, except for a merge."""
        return not self.shortcut and bool(self.additions)

    @property
    def keeps_shape(self):
        """Whether the outputs have the shapes of the inputs."""
        return self.input_shapes == self.output_shapes


@dataclasses.dataclass(eq=False)
class Join:
    """A residual addition: its step, and which of its inputs is what."""

    step: graphs.Step
    shortcuts: list
    branches: list
    copies: int = 1  # how many paths the shortcut counts as

    def added(self, tensors):
        """Returns each of the tensors as often as the step adds it."""
        # `Add()([x, f, f])` has two paths through `f`.
        wanted = {id(x) for x in tensors}
        return [x for x in self.step.inputs if id(x) in wanted]

    def reduced(self, branches):
        """Returns a step that adds the shortcut and these branches only."""
        tensors = self.added([*self.shortcuts, *branches])
        # Keras's Add refuses a single tensor.
        if len(tensors) == 1:
            return graphs.alias(tensors[0], self.step.outputs[0])
        if len(tensors) == len(self.step.inputs):
            return self.step
        # The operation is a layer: `keras.ops.add` has two inputs, of which
        # one would be left.
        return dataclasses.replace(self.step, args=(tensors,), kwargs={})


@dataclasses.dataclass(eq=False)
class Unit:
    """The steps of a block.

    Attributes:
        lead: list of `Step`. The steps between the previous block and this
            one.
        body: list of `Step`. The steps of the block.
        joins: list of `Join`. The residual additions among them. It is empty
            for a layer of a plain network.
        entry: list of KerasTensors. The inputs of the body.
        exit: list of KerasTensors. The outputs of the body.
        block: `Block`. The public description.
    """

    lead: list
    body: list
    joins: list
    entry: list = None
    exit: list = None
    block: Block = None

    def steps(self, kept=()):
        """Returns the steps of the body with only some residual branches.

        Args:
            kept: collection of the names of branches, or `None` for all.
                Defaults to `()`, which leaves the shortcut.
        """
        if kept is None:
            return self.body
        # A layer of a plain network has no shortcut. Its input is passed on.
        if not self.joins:
            pairs = zip(self.entry, self.exit, strict=True)
            return [graphs.alias(x, y) for x, y in pairs]
        # `Block.branches` has the branches in the order of the joins.
        names = iter(self.block.branches)
        reduced = {
            id(join.step): join.reduced(
                [x for x in join.branches if next(names) in kept]
            )
            for join in self.joins
        }
        steps = [reduced.get(id(step), step) for step in self.body]
        # Without this, a deleted branch would still be computed.
        return graphs.needed(steps, self.exit)


@dataclasses.dataclass(eq=False)
class Chain:
    """A graph that is cut into one unit per block and the steps after them."""

    graph: graphs.Graph
    units: list
    head: list

    def find(self, name, argument="blocks"):
        """Finds a block or a branch by its name.

        Args:
            name: str or `Block`.
            argument: str. The user's argument, for the error message. Defaults
                to `"blocks"`.

        Returns:
            A pair: the position of the block, and the name of the branch, or
            `None` for a whole block.
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


def check_blocks(chain):
    """Checks that a chain has residual blocks."""
    if not chain.units:
        raise ValueError(
            "`model` should have residual blocks, which end in additions "
            "(`keras.layers.Add` or `keras.ops.add`). Received: model="
            f"{chain.graph.name}, in which no block was found"
        )


def number_stages(units):
    """Sets the stage of each block. It changes with the number of channels."""
    axis = graphs.channel_axis(s.operation for u in units for s in u.body)
    stage, channels = 0, None
    for unit in units:
        shape = unit.exit[0].shape
        count = shape[axis if len(shape) > 3 else -1]
        if count != channels:
            stage, channels = stage + 1, count
        unit.block = dataclasses.replace(unit.block, stage=stage)


def without(items, others):
    """Returns the steps or tensors that are not among others."""
    gone = {id(x) for x in others}
    return [x for x in items if id(x) not in gone]


def keeps_shape(step):
    """Returns whether the outputs of a step have the shapes of its inputs."""
    return shapes(step.inputs) == shapes(step.outputs)


def shapes(tensors):
    return tuple(tuple(x.shape) for x in tensors)
