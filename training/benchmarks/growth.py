"""Measures how the cost of a network grows with its depth and its width.

    python -m training.benchmarks.growth --depths 20 110 302 --widths
    python -m training.benchmarks.growth --depths --widths 1 2 4 8

Prints two tables, by depth and by width, with seconds and MiB of each task: to
import the package, to build a network, to fold its batch normalizations, to
train a step and to infer (the first call, which compiles, and the median of
three others), to save and to load a .keras file, to count the paths of each
length, and to measure all single deletions of blocks.

Each figure is measured in a separate process. MiB are the largest memory of
that process, with Keras and the network. A task that outlasts `--limit` is
ended, and larger networks are not tried. Give depths and widths in ascending
order.
"""

import functools
import multiprocessing
import os
import pathlib
import signal
import statistics
import tempfile
import time

from training.benchmarks import tables
from training.benchmarks.workers import batch_of, describe, peak_resident
from training.startup import backend, command_line, hardware

BUILDERS = "ResNet", "DMRNet", "WideResNet"
SHAPE = 32, 32, 3


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--builder", choices=BUILDERS, default="ResNet")
    numbers = {"nargs": "*", "type": command_line.positive}
    add(
        "--depths",
        **numbers,
        default=[20, 56, 110, 302, 602, 1202],
        help="at width 1 (default: 20 to 1202)",
    )
    add(
        "--widths",
        **numbers,
        default=[1, 2, 4, 8],
        help="at depth 20, or 22 for WideResNet (default: 1 2 4 8)",
    )
    add("--tasks", nargs="+", choices=TASKS, default=[*TASKS])
    add(
        "--batch",
        type=command_line.positive,
        default=8,
        help="images of a step, of inference and of the deletions (default: 8)",
    )
    add(
        "--limit",
        type=command_line.positive,
        default=600,
        help="seconds that a task may take with its preparation (default: 600)",
    )
    command_line.add_backend(add)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    shallow = 22 if options.builder == "WideResNet" else 20
    by = {
        "depth": [{"depth": d, "width": 1} for d in options.depths],
        "width": [{"depth": shallow, "width": w} for w in options.widths],
    }
    failed = False
    for axis, networks in by.items():
        if networks:
            failed |= print_growth(axis, networks, options)
    return int(failed)


def print_growth(axis, networks, options):
    """Prints a table of all tasks; returns whether one of them failed."""
    name = options.backend or os.environ.get("KERAS_BACKEND", "default backend")
    print(
        f"{options.builder} by {axis}, batch {options.batch}, {name}, "
        f"{tables.machine()}: seconds, MiB"
    )
    heads = [f"{axis} {network[axis]}" for network in networks]
    print(f"{'':16}" + "".join(f"{head:>20}" for head in heads), flush=True)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks:
            print(f"{task:16}", end="", flush=True)
            for network in networks:
                report = measure(task, network, options, folder)
                print(f"{cell(report, options):>20}", end="", flush=True)
                if "seconds" not in report:
                    break
            print()
            if "failed" in report:
                failures.append(f"{task}, {network}: {report['failed']}")
    print("\n".join(failures), end="\n" * bool(failures))
    return bool(failures)


def cell(report, options):
    if "seconds" in report:
        return f"{report['seconds']:.2f} s {report['memory'] / 2**20:5,.0f}"
    return "failed" if "failed" in report else f"over {options.limit} s"


def measure(task, network, options, folder):
    """Measures a task in a separate process.

    Returns:
        A dict with `"seconds"` and `"memory"` (bytes), or with `"failed"`, or
        an empty one if the task has outlasted the limit.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=work, args=(theirs, task, network, options, folder)
    )
    process.start()
    theirs.close()
    try:
        if not ours.poll(options.limit):
            return {}
        return ours.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        return {"failed": f"its process ended with code {code}"}
    finally:
        process.kill()
        process.join()
        ours.close()


def work(connection, task, network, options, folder):
    """Does a task, and sends its report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    hardware.keep_freed_memory()
    path = pathlib.Path(folder) / f"{network['depth']}_{network['width']}.keras"
    try:
        if task != "import":
            backend.start(options.backend)
        seconds = TASKS[task](Subject(network, options, path))
        connection.send({"seconds": seconds, "memory": peak_resident()})
    except Exception as error:  # becomes a line below the table
        connection.send({"failed": [*describe(error).values()][0]})


class Subject:
    """What a task works on."""

    def __init__(self, network, options, path):
        self.network, self.options, self.path = network, options, path

    def build(self):
        import keras_resfam

        return getattr(keras_resfam, self.options.builder)(
            **self.network, input_shape=SHAPE
        )

    def folded(self):
        import keras_resfam

        return keras_resfam.fold_batch_norm(self.build())

    def batch(self):
        x, y = batch_of(self.options.batch, SHAPE)
        return (64 * x + 128).clip(0, 255), y  # pixels


def seconds_of(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def later_calls(function):
    """Returns the median of three calls, after one that compiles."""
    function()
    return statistics.median(seconds_of(function) for _ in range(3))


def time_import(subject):
    def import_package():
        backend.start(subject.options.backend)
        import keras_resfam  # noqa: F401

    return seconds_of(import_package)


def time_build(subject):
    import keras_resfam  # noqa: F401

    return seconds_of(subject.build)


def time_fold(subject):
    import keras_resfam

    model = subject.build()
    return seconds_of(lambda: keras_resfam.fold_batch_norm(model))


def time_training(clock, subject):
    model, (x, y) = subject.build(), subject.batch()
    model.compile("sgd", "sparse_categorical_crossentropy")
    return clock(lambda: model.train_on_batch(x, y))


def time_inference(clock, subject):
    model, (x, _) = subject.folded(), subject.batch()
    return clock(lambda: model.predict_on_batch(x))


def time_saving(subject):
    model = subject.build()
    return seconds_of(lambda: model.save(subject.path))


def time_loading(subject):
    """Loads the file that `time_saving` has left, or else writes one."""
    import keras

    import keras_resfam  # noqa: F401  (has the layers)

    if not subject.path.exists():
        subject.build().save(subject.path)
    return seconds_of(lambda: keras.saving.load_model(subject.path))


def time_paths(subject):
    from keras_resfam import analysis

    model = subject.build()
    return seconds_of(lambda: analysis.path_lengths(model))


def time_deletions(subject):
    from keras_resfam import analysis

    model, data = subject.build(), subject.batch()
    return seconds_of(
        lambda: analysis.lesion_study(
            model,
            data,
            max_deletions=0,
            max_swaps=0,
            max_repetitions=0,
            batch_size=subject.options.batch,
            verbose=0,
        )
    )


TASKS = {
    "import": time_import,
    "build": time_build,
    "fold": time_fold,
    "first step": functools.partial(time_training, seconds_of),
    "step": functools.partial(time_training, later_calls),
    "first inference": functools.partial(time_inference, seconds_of),
    "inference": functools.partial(time_inference, later_calls),
    "save": time_saving,
    "load": time_loading,
    "paths": time_paths,
    "deletions": time_deletions,
}


if __name__ == "__main__":
    command_line.run(main)
