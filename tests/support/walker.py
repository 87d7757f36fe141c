"""Runs the parts of a network as the page does, by onnxruntime in Python."""

import collections
import itertools

import numpy as np
import onnxruntime

from keras_resfam.analysis.paths import shifted, summed


class Walker:
    """The twin of `walk.js`, `worker.js` and `paths.js`.

    Args:
        record: Dict. What `write_network` returned.
        folder: Path. Where the parts are.
    """

    def __init__(self, record, folder):
        self.record, self.folder = record, folder
        self.sessions = {}

    def layout(self, off=(), swaps=()):
        """For each place, the block that runs there and its open gates.

        Args:
            off: names of blocks and branches.
            swaps: names of blocks, pair by pair.
        """
        units = self.record["units"]
        order = [unit["name"] for unit in units]
        for a, b in zip(swaps[::2], swaps[1::2], strict=True):
            i, j = order.index(a), order.index(b)
            order[i], order[j] = order[j], order[i]
        return [(self.unit(name), self.gates(name, off)) for name in order]

    def unit(self, name):
        (found,) = [u for u in self.record["units"] if u["name"] == name]
        return found

    def gates(self, name, off):
        branches = [x["name"] for x in self.unit(name)["branches"]] or [name]
        return [name not in off and x not in off for x in branches]

    def walk(self, layout, source, compute):
        """The output, of whatever `compute` gives for parts and blocks."""
        values = {self.record["source"]: source}

        def run(record, gates, inputs, outputs):
            given = [values[number] for number in inputs]
            made = compute(record, gates, given)
            values.update(zip(outputs, made, strict=True))

        for here, (unit, gates) in zip(
            self.record["units"], layout, strict=True
        ):
            if lead := here["lead"]:
                run(lead, None, lead["inputs"], lead["outputs"])
            run(unit, gates, here["entry"], here["exit"])
            for number in set(values) - set(here["live"]):
                del values[number]
        if head := self.record["head"]:
            run(head, None, head["inputs"], head["outputs"])
        return values[self.record["output"]]

    def predict(self, images, layout):
        return self.walk(layout, images.astype("float32"), self.compute)

    def compute(self, record, gates, inputs):
        if gates is None or gates == [True]:
            return self.feed(record["file"], inputs)
        if not any(gates):
            deleted = record["deleted"]
            if isinstance(deleted, list):
                return [inputs[k] for k in deleted]
            return self.feed(deleted, inputs)
        return self.feed(record["file"], [*inputs, np.float32([gates])])

    def feed(self, file, inputs):
        if file not in self.sessions:
            self.sessions[file] = onnxruntime.InferenceSession(
                self.folder / file, providers=["CPUExecutionProvider"]
            )
        session = self.sessions[file]
        names = [x.name for x in session.get_inputs()]
        return session.run(
            None, {x: inputs[int(x.removeprefix("input"))] for x in names}
        )

    def count_paths(self, layout):
        """How many paths of each length a layout leaves."""
        return self.walk(layout, {0: 1}, through)


def through(record, gates, inputs):
    """What leaves a part or a block of the paths that arrive."""
    open_ones = itertools.compress(record.get("branches", ()), gates or ())
    ways = [record["paths"], *(branch["paths"] for branch in open_ones)]
    found = []
    for output in range(len(record["paths"])):
        terms = [
            {k: paths * count for k, paths in shifted(x, length).items()}
            for matrix in ways
            for x, factor in zip(inputs, matrix[output], strict=True)
            for length, count in factor
        ]
        found.append(summed(terms))
    return found


def nonzero(counts):
    return collections.Counter({k: n for k, n in counts.items() if n})
