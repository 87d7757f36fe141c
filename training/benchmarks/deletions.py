"""The cost of all single deletions of a network's blocks."""

import time

import keras
import numpy as np

from keras_resfam.analysis.execution import BlockRunner
from keras_resfam.analysis.plain import chain_of
from keras_resfam.analysis.surgery import deletion


def print_costs(model, examples):
    """Prints the cost of all single deletions, with reuse and without."""
    chain = chain_of(model)
    runner = BlockRunner(chain)
    names = [unit.block.name for unit in chain.units]
    layouts = [deletion(chain, [name]) for name in names]
    images = np.random.default_rng(0).integers(
        0, 256, (examples, *model.input_shape[1:])
    )
    batch = keras.ops.convert_to_tensor(images, chain.graph.inputs[0].dtype)
    ways = {
        "one forward pass, the whole model": lambda: [
            model.predict_on_batch(batch)
        ],
        "one forward pass, block by block": lambda: [
            runner.predict(batch, deletion(chain, []))
        ],
        "all single deletions, sharing the intact inputs": lambda: (
            runner.predict_single_deletions(
                batch, [(k, ()) for k in range(len(names))]
            )
        ),
        "all single deletions, one by one": lambda: [
            runner.predict(batch, layout) for layout in layouts
        ],
    }
    print(f"{model.name}: {len(names)} blocks, {examples} images")
    print(f"{keras.backend.backend()}, compilation not counted")
    costs = {name: measure_cost(run, runner) for name, run in ways.items()}
    unit = costs["one forward pass, the whole model"][0]
    for name, (seconds, blocks) in costs.items():
        print(
            f"{name + ':':50s}{seconds:9.3f} s = {seconds / unit:6.1f} passes"
            f"; {blocks / len(names):6.2f} x all blocks"
        )


def measure_cost(run, runner, enough=10.0):
    """Returns seconds, and how many blocks were evaluated.

    The time is the best of four, since the first one may include compilation.
    Long runs are measured once. Their blocks are compiled before.
    """
    seconds = []
    while len(seconds) < 4 and sum(seconds) < enough:
        runner.evaluations = 0
        start = time.perf_counter()
        for x in run():
            keras.ops.convert_to_numpy(x)
        seconds.append(time.perf_counter() - start)
    return min(seconds), runner.evaluations
