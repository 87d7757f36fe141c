"""Writes a network in parts that a browser runs: ONNX files, and JSON.

The steps before a block, the block, what is left of it after its deletion, and
the head are separate files. Deletions, swaps and repetitions run the same files
in another order, and the results before a change are kept.

Each tensor that is passed between parts has a number, which `walk.js` uses.
"""

import dataclasses
import itertools
import warnings

import keras

from keras_resfam import graphs
from keras_resfam.analysis.data import check_classifier
from keras_resfam.analysis.execution import between_blocks, check_masks
from keras_resfam.analysis.paths import follow
from keras_resfam.analysis.plain import chain_of


def write_network(model, folder):
    """Writes the parts of a network, and describes how they are connected.

    Args:
        model: functional `keras.Model` that classifies images of shape
            `(height, width, channels)`, of 0 to 255. Keras should run on
            PyTorch.
        folder: Path of a folder that exists.

    Returns:
        Dict, to be written as JSON: `input` (the shape of an image), `source`
        and `output` (numbers of tensors), `softmax` (whether the output has
        still to be normalized), `units` (the blocks in order), `head`.
    """
    chain = chain_of(model)
    check_masks(chain.graph)
    (image,), (answer,) = chain.graph.inputs, chain.graph.outputs
    shape = list(image.shape[1:])
    if len(shape) != 3 or None in shape or shape[-1] not in (1, 3):
        raise ValueError(
            "`model` should take images of one size, gray or in colors, of "
            "the shape (height, width, 1 or 3). Received: input shape="
            f"{image.shape}"
        )
    check_classifier(chain)
    parts = _Parts(folder)
    given, live = between_blocks(chain)
    units = [
        {
            "lead": parts.write(f"lead{k}", unit.lead, unit_given),
            **parts.write_block(k, unit),
            "live": sorted(parts.number(x) for x in needed),
            "floats": sum(_floats(x) for x in needed),
        }
        for k, (unit, unit_given, needed) in enumerate(
            zip(chain.units, given, _kept(chain, live), strict=True)
        )
    ]
    return {
        "input": shape,
        "source": parts.number(image),
        "output": parts.number(answer),
        "softmax": graphs.softmax_step(chain.graph.steps) is None,
        "residual": any(unit.joins for unit in chain.units),
        "widest": max(
            _floats(x) for step in chain.graph.steps for x in step.outputs
        ),
        "units": units,
        "head": parts.write("head", chain.head, chain.graph.outputs),
    }


def _kept(chain, live):
    """Yields, for each block, the tensors that are needed after it."""
    made = {id(x): x for x in chain.graph.inputs}
    for unit, needed in zip(chain.units, live, strict=True):
        made |= {id(x): x for step in unit.lead for x in step.outputs}
        made |= {id(x): x for x in unit.exit}
        yield [x for key, x in made.items() if key in needed]


def _floats(x):
    """Returns how many numbers a tensor has for an image."""
    count = 1
    for size in x.shape[1:]:
        count *= size
    return count


class _Parts:
    """Writes parts of a graph as ONNX files, and numbers their tensors.

    Args:
        folder: Path.
    """

    def __init__(self, folder):
        self.folder = folder
        self._numbers = {}

    def number(self, x):
        return self._numbers.setdefault(id(x), len(self._numbers))

    def numbers(self, xs):
        return [self.number(x) for x in xs]

    def write(self, name, steps, outputs):
        """Writes steps that lie between blocks; returns their record."""
        if not steps:
            return None
        inputs = graphs.reads(steps)
        return {
            "file": self._export(name, steps, inputs, outputs),
            "inputs": self.numbers(inputs),
            "outputs": self.numbers(outputs),
            "paths": _transfer(steps, inputs, outputs, {}),
        }

    def write_block(self, k, unit):
        """Writes a block, and what a deletion leaves; returns its record."""
        block, parameters = unit.block, _parameter_counts(unit.body)
        inputs, steps = list(unit.entry), unit.body
        if len(block.branches) > 1:  # others are there, or deleted
            gates = keras.KerasTensor((None, len(block.branches)), "float32")
            inputs, steps = [*inputs, gates], _gated(unit, gates)
        ways = _transfers(unit)
        branches = [
            {
                "name": name,
                "layers": list(layers),
                "parameters": sum(parameters.get(x, 0) for x in layers),
                "paths": paths,
            }
            for (name, layers), paths in zip(
                block.branches.items(), ways["branches"], strict=True
            )
        ]
        return {
            "name": block.name,
            "stage": block.stage,
            "shape": list(block.output_shapes[0][1:]),
            "fits": f"{block.input_shapes} to {block.output_shapes}",
            "merge": block.merge,
            "shortcut": list(block.shortcut),
            "parameters": sum(parameters.values()),
            "entry": self.numbers(unit.entry),
            "exit": self.numbers(unit.exit),
            "branches": branches,
            "paths": ways["shortcuts"],
            "file": self._export(f"block{k}", steps, inputs, unit.exit),
            "deleted": self._write_rest(k, unit),
        }

    def _write_rest(self, k, unit):
        """Writes what a deletion leaves; returns the file, or input indices."""
        steps, values = unit.steps(()), {id(x): x for x in unit.entry}
        if all(step.operation is graphs.same for step in steps):
            graphs.run(steps, values)
            given = [values[id(x)] for x in unit.exit]
            return [[x is y for y in unit.entry].index(True) for x in given]
        return self._export(f"deleted{k}", steps, unit.entry, unit.exit)

    def _export(self, name, steps, inputs, outputs):
        """Writes steps as an ONNX file; returns the file's name."""
        # Keras exports no scalars, so they get an axis.
        sources = [
            keras.Input(
                batch_shape=x.shape or (1,), dtype=x.dtype, name=f"input{k}"
            )
            for k, x in enumerate(inputs)
        ]
        values = {
            id(x): y if x.shape else keras.ops.reshape(y, ())
            for x, y in zip(inputs, sources, strict=True)
        }
        graphs.run(steps, values)
        results = [values[id(x)] for x in outputs]
        model = keras.Model(
            sources,
            [y if y.shape else keras.ops.reshape(y, (1,)) for y in results],
        )
        # Keras exports only what has been called.
        shapes = [[size or 1 for size in x.shape] for x in sources]
        model([keras.ops.zeros(shape) for shape in shapes])
        with warnings.catch_warnings():
            # PyTorch warns of values that it traces as constants.
            warnings.simplefilter("ignore")
            model.export(
                self.folder / f"{name}.onnx", format="onnx", verbose=False
            )
        return f"{name}.onnx"


def _gated(unit, gates):
    """Returns the steps of a block, with a gate after each residual branch.

    Args:
        unit: `Unit` with joins.
        gates: KerasTensor of shape `(1, branches)`. If the number of a branch
            is not positive, zero is added in its place.
    """
    numbers, behind = itertools.count(), {}
    for join in unit.joins:
        behind[id(join.step)] = [(x, next(numbers)) for x in join.branches]
    steps = []
    for step in unit.body:
        names = {}
        for x, number in behind.get(id(step), ()):
            y = names[id(x)] = keras.KerasTensor(x.shape, x.dtype)
            steps.append(graphs.Step(_let_through, (x, gates, number), {}, [y]))
        steps += graphs.renamed([step], names)
    return steps


def _let_through(x, gates, number):
    """Returns a tensor if its gate is open, and zeros otherwise."""
    return keras.ops.where(gates[0, number] > 0, x, 0.0)


def _parameter_counts(steps):
    """Returns the number of parameters of each layer, by its name."""
    return {
        step.name: step.operation.count_params()
        for step in steps
        if isinstance(step.operation, keras.Layer) and step.operation.built
    }


def _transfers(unit):
    """Returns how a block passes paths on.

    Returns:
        A dict of matrices, as `_transfer` returns them: `shortcuts`, and
        `branches`, a list. The sum of those that are left gives the paths after
        the block.
    """

    def through(chosen):
        joins = {id(join.step): reduced for join, reduced in chosen}
        return _transfer(unit.body, unit.entry, unit.exit, joins)

    def only(join, x):
        return [
            (
                j,
                dataclasses.replace(
                    j, shortcuts=[], branches=[x] if j is join else []
                ),
            )
            for j in unit.joins
        ]

    return {
        "shortcuts": through(
            [(j, dataclasses.replace(j, branches=[])) for j in unit.joins]
        ),
        "branches": [
            through(only(join, x)) for join in unit.joins for x in join.branches
        ],
    }


def _transfer(steps, inputs, outputs, joins):
    """Counts the paths from each input to each output, by length.

    Args:
        joins: See `follow`.

    Returns:
        A list of lists of `[length, count]` pairs, indexed by the output and
        the input.
    """
    columns = []
    for source in inputs:
        paths = {id(x): {} for x in inputs} | {id(source): {0: 1}}
        follow(steps, paths, joins)
        columns.append([sorted(paths[id(x)].items()) for x in outputs])
    return [list(row) for row in zip(*columns, strict=True)]
