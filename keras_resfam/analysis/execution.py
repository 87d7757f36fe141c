"""Runs layouts of a model's blocks, which are compiled only once.

The steps before each block, each block, and the head become small models.
Pieces with the same layers and shapes share one compiled function, which takes
their weights as arguments: 54 blocks in three stages need about five
compilations. Swaps and repetitions need no others. A deletion needs one if it
leaves layers, such as a projection or the mean of several streams, once for all
blocks of the same kind.
"""

import json

import keras

from keras_resfam import graphs
from keras_resfam.backends.inference import shared_inference
from keras_resfam.graphs.copies import for_inference


def check_masks(graph):
    """Checks that a graph has no masks, which pieces cannot pass on."""
    for step in graph.steps:
        masks = getattr(step.operation, "mask_zero", False)
        if masks or isinstance(step.operation, keras.layers.Masking):
            raise ValueError(
                "`model` should not create masks, which are lost between "
                f"its blocks. Received: model={graph.name} with the layer "
                f"'{step.name}'"
            )


def between_blocks(chain):
    """Finds the tensors that are passed on between the blocks of a chain.

    Returns:
        A pair of lists with one entry per block: the tensors that the steps
        before the block have to return, and the ids of the tensors that are
        read after the block.
    """
    given, live = [], []
    following = [*chain.graph.outputs, *graphs.reads(chain.head)]
    for unit in reversed(chain.units):
        live.append({id(x) for x in following})
        before = [*following, *graphs.reads(unit.body)]
        made = {id(x) for step in unit.lead for x in step.outputs}
        given.append(_unique(x for x in before if id(x) in made))
        following = [*before, *graphs.reads(unit.lead)]
    return given[::-1], live[::-1]


class BlockRunner:
    """Runs the layouts of a chain (see `surgery`) on batches.

    Args:
        chain: `Chain`.

    Attributes:
        evaluations: int. The number of whole blocks that have been run.
    """

    def __init__(self, chain):
        check_masks(chain.graph)
        self.chain = chain
        self.evaluations = 0
        self._compiled = {}
        self._bodies = {}
        given, self._live = between_blocks(chain)
        self._leads = [
            self._piece(unit.lead, outputs)
            for unit, outputs in zip(chain.units, given, strict=True)
        ]
        self._head = self._piece(chain.head, chain.graph.outputs)

    def predict(self, images, layout):
        """Returns the output of a layout for a batch."""
        values = self._start(images)
        for place, blocks in enumerate(layout):
            values = self._run(self._leads[place], values)
            values = self._place(place, blocks, values)
        return self._finish(values)

    def predict_single_deletions(self, images, lesions):
        """Returns the outputs for a batch, with one lesion at a time.

        All lesions share the intact input of their block, which is computed
        once. For `n` blocks, this takes `n (n + 1) / 2` evaluations of a block.
        If each lesion started from the images, it would take `n (n - 1)`.

        Args:
            images: tensor.
            lesions: list of pairs, the position of a block and the names of
                its branches that are kept.

        Returns:
            A list of outputs in the order of `lesions`.
        """
        walks = {None: self._start(images)}
        for place in range(len(self.chain.units)):
            walks = {
                key: self._run(self._leads[place], values)
                for key, values in walks.items()
            }
            lesioned = {
                lesion: self._place(place, [lesion], walks[None])
                for lesion in lesions
                if lesion[0] == place
            }
            walks = {
                key: self._place(place, [(place, None)], values)
                for key, values in walks.items()
            }
            walks.update(lesioned)
        return [self._finish(walks[lesion]) for lesion in lesions]

    def _start(self, images):
        return {id(self.chain.graph.inputs[0]): images}

    def _finish(self, values):
        values = self._run(self._head, values)
        return values[id(self.chain.graph.outputs[0])]

    def _place(self, place, blocks, values):
        """Runs blocks at a place, and keeps the values that are read later."""
        unit = self.chain.units[place]
        state = [values[id(x)] for x in unit.entry]
        for k, kept in blocks:
            self.evaluations += kept is None
            state = self._body(k, kept)(state)
        values = values | {
            id(x): y for x, y in zip(unit.exit, state, strict=True)
        }
        live = self._live[place]
        return {key: y for key, y in values.items() if key in live}

    def _run(self, piece, values):
        if piece is None:
            return values
        inputs, outputs, function = piece
        results = function([values[id(x)] for x in inputs])
        made = {id(x): y for x, y in zip(outputs, results, strict=True)}
        return values | made

    def _body(self, k, kept):
        if (k, kept) not in self._bodies:
            unit = self.chain.units[k]
            self._bodies[k, kept] = self._function(
                unit.steps(kept), unit.entry, unit.exit
            )
        return self._bodies[k, kept]

    def _piece(self, steps, outputs):
        if not steps:
            return None
        inputs = graphs.reads(steps)
        return inputs, outputs, self._function(steps, inputs, outputs)

    def _function(self, steps, inputs, outputs):
        """Returns the function that runs steps, from a list to a list.

        It is compiled unless one of the same kind is.
        """
        sources, values = graphs.run_on_inputs(steps, inputs)
        results = [values[id(x)] for x in outputs]
        kept = {id(x) for x in sources}
        if all(id(x) in kept for x in results):
            places = [[x is y for y in sources].index(True) for x in results]
            return lambda state: [state[place] for place in places]
        model = keras.Model(sources, results)
        kind = _signature(steps, inputs, outputs, model)
        if kind not in self._compiled:
            self._compiled[kind] = shared_inference(model)
        return self._compiled[kind](model)


def _unique(tensors):
    return list({id(x): x for x in tensors}.values())


def _signature(steps, inputs, outputs, model):
    """Returns what pieces have in common if they can share a function."""
    numbers = {id(x): k for k, x in enumerate(inputs)}
    layers = {}  # numbers of the layers, which may be called repeatedly
    calls = []

    def number(x):
        return f"#{numbers[id(x)]}" if isinstance(x, keras.KerasTensor) else x

    for step in steps:
        arguments = keras.tree.map_structure(number, (step.args, step.kwargs))
        for x in step.outputs:
            numbers[id(x)] = len(numbers)
        layer = layers.setdefault(id(step.operation), len(layers))
        calls.append((layer, _kind_of(step.operation), repr(arguments)))
    return repr(
        (
            calls,
            [(x.shape, x.dtype) for x in inputs],
            [numbers[id(x)] for x in outputs],
            [(v.shape, v.dtype, v.trainable) for v in model.variables],
        )
    )


def _kind_of(operation):
    """Returns the class and the configuration of an operation, without names.

    A configuration may not determine what a layer of another package computes.
    It has only the names of functions, and not the state of `adapt`. In these
    cases, the operation is of its own kind.
    """
    kind = type(operation)
    known = kind.__module__.partition(".")[0] in ("keras", "keras_resfam")
    opaque = keras.Model, keras.layers.Lambda, keras.layers.Wrapper
    if (
        not known
        or not isinstance(operation, keras.Layer)
        or isinstance(operation, opaque)
        or hasattr(operation, "adapt")
    ):
        return id(operation)
    config = for_inference(operation.get_config())
    for key in "name", "seed":
        config.pop(key, None)
    return (
        kind.__module__,
        kind.__name__,
        json.dumps(config, default=repr),
        id(getattr(operation, "activation", None)),
    )
