"""Measures whether training waits for its data.

    python -m training.benchmarks.input_pipeline --data-dir DIR
    python -m training.benchmarks.input_pipeline --recipe digits --backend jax

Trains by a recipe (default: WideResNet-16-4 on CIFAR-10), in turns on the
data as `train.py` reads them and on one batch that stays in memory. Both are
augmented alike, since that is part of the step. Prints the median time of a
step of each kind and its quartiles, and how much longer a step on real data
takes.
"""

import statistics
import tempfile
import time
from pathlib import Path

from training import recipes
from training.benchmarks import tables
from training.startup import backend, command_line

WARM_UP = 3  # steps of each turn that are not counted


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add(
        "--recipe",
        default="wrn_16_4_cifar10",
        help="what to train by (default: wrn_16_4_cifar10)",
    )
    command_line.add_data_dir(add)
    command_line.add_backend(add)
    add(
        "--precision",
        choices=recipes.PRECISIONS,
        help="instead of the recipe's",
    )
    for option, default, text in (
        ("--steps", 20, "steps of a turn"),
        ("--turns", 5, "turns of each kind"),
    ):
        add(
            option,
            type=command_line.positive,
            default=default,
            help=f"{text} (default: {default})",
        )
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("input_pipeline.py"):
        backend.start(options.backend)
        from training.run import session

        recipe = recipes.find(options.recipe)
        if options.precision:
            recipe = recipe.replace(precision=options.precision)
        with tempfile.TemporaryDirectory() as folder:
            run = session.prepare(recipe, Path(folder), 0, options.data_dir)
    report(recipe, time_both_kinds(run, options.steps, options.turns))


def time_both_kinds(run, steps, turns):
    """Returns seconds of the counted steps, on the data and on one batch."""
    total = WARM_UP + steps
    seconds = {"data": [], "one batch": []}
    batch = next(iter(run.epochs.epoch(0)))
    for turn in range(turns):
        kinds = {
            "data": run.epochs.epoch(turn),
            "one batch": repeated(batch, total),
        }
        for kind, batches in kinds.items():
            if turn == 0:
                time_steps(run.trainer, batches, 2)  # compiles
            seconds[kind] += time_steps(run.trainer, batches, total)[WARM_UP:]
    return seconds


def repeated(batch, times):
    """Returns a batch repeatedly, in the form of `Epochs.epoch`."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensors(batch).cache().repeat(times)

    class Repeated(keras.utils.PyDataset):
        def __len__(self):
            return times

        def __getitem__(self, index):
            return batch

    return Repeated()


def time_steps(trainer, batches, steps):
    """Returns the seconds of each step of a `fit`."""
    import keras

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.ends = [time.perf_counter()]

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # waits for the step
            self.ends.append(time.perf_counter())

    clock = Clock()
    trainer.fit(
        batches,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[clock],
    )
    return [
        end - start
        for start, end in zip(clock.ends, clock.ends[1:], strict=False)
    ]


def report(recipe, seconds):
    import keras

    print(
        f"{recipe.name}, batch {recipe.batch_size}, {recipe.precision}, "
        f"{keras.backend.backend()}, {tables.machine()}"
    )
    for kind, values in seconds.items():
        lower, median, upper = statistics.quantiles(values, n=4)
        print(
            f"{kind:10}{median * 1e3:8.1f} ms a step "
            f"({lower * 1e3:.1f} to {upper * 1e3:.1f})"
        )
    ratio = statistics.median(seconds["data"]) / statistics.median(
        seconds["one batch"]
    )
    print(f"real data: {ratio - 1:+.1%}")


if __name__ == "__main__":
    command_line.run(main)
