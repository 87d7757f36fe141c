"""Trains a network by a recipe.

    python training/train.py

trains a small DMRNet on scikit-learn's handwritten digits, which need no
download, in under a minute on two cores.

    python training/train.py --list
    python training/train.py --recipe wrn_28_10_cifar10

list the recipes of the papers, and run one. The data come from TensorFlow
Datasets, or from the arrays or images in `--data-dir`. The name of a recipe
ends in its data set. The suffix `_noaug` means no augmentation, and `_short` a
shorter schedule by this project. Networks called `orthonormal_plain` are
trained with the regularizer, `ortho_plain` also with gradient modulation, and
`plain` with neither.

A run has a folder, by default runs/<recipe>. After Ctrl-C, a kill or a full
disk, the same command continues from the last checkpoint, and the result is
that of an uninterrupted run. A complete run is never changed: the default
folder is then runs/<recipe>-2.
"""

import pathlib
import sys
from contextlib import nullcontext

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training import recipes
from training.startup import backend, command_line, hardware

EXAMPLES = """\
Any field of a recipe can be changed:

    python training/train.py --recipe dmrnet_56_cifar10 \\
        --set arguments.branches=4 --set mixup=0.2 --run-dir runs/four

Training images can be held out to select the best epoch:

    python training/train.py --recipe wrn_16_8_cifar10 --set validation=5000
"""


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add_recipe(add)
    command_line.add_data_dir(add)
    command_line.add_backend(add)
    add_run(add)
    add_execution(add)
    return parser.parse_args(arguments)


def add_recipe(add):
    """Adds the options that choose a recipe and change it."""
    add("--recipe", default="digits", help="what to train (default: digits)")
    add(
        "--list",
        nargs="?",
        const="",
        metavar="PART",
        help="print the recipes, or those with PART in their names, and stop",
    )
    add(
        "--epochs",
        type=int,
        help="instead of the recipe's. The drops, warm-up and restarts of the "
        "learning rate and the moving average of the weights are scaled with "
        "them (not with `--set epochs=`). Drops that coincide become one, and "
        "a drop at the end is left out",
    )
    add("--batch-size", type=int, help="instead of the recipe's")
    add(
        "--precision",
        choices=recipes.PRECISIONS,
        help="instead of the recipe's",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change any field of the recipe, or arguments.<name> of its "
        "builder; may be repeated",
    )


def add_run(add):
    """Adds the options of the run and its folder."""
    add(
        "--run-dir",
        type=pathlib.Path,
        metavar="PATH",
        help="the run's folder (default: runs/<recipe>)",
    )
    add(
        "--seed",
        type=command_line.at_least(0),
        default=0,
        help="of the weights, the order and the augmentation (default: 0)",
    )
    add(
        "--save-every",
        type=command_line.positive,
        default=500,
        metavar="STEPS",
        help="steps between checkpoints within an epoch (default: 500)",
    )
    add(
        "--evaluate-every",
        type=command_line.positive,
        default=1,
        metavar="EPOCHS",
        help="epochs between evaluations, and so between rows of the log; more "
        "than 1 saves time if epochs are short (default: 1)",
    )
    add(
        "--quiet",
        action="store_true",
        help="print a line for each epoch instead of a progress bar",
    )


def add_execution(add):
    """Adds the options that say how steps are executed."""
    add(
        "--steps-per-execution",
        type=command_line.positive,
        default=1,
        metavar="STEPS",
        help="steps that run together, with jax or tensorflow, so that a GPU "
        "does not wait for Python if steps are short. The loss, signals and "
        "checkpoints are handled after them (default: 1)",
    )
    add(
        "--distribute",
        nargs="?",
        type=command_line.at_least(0),
        const=0,
        metavar="N",
        help="train on all devices, with jax or tensorflow; N splits the "
        "processor into N devices, to try it without accelerators",
    )


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("train.py"):
        if options.list is not None:
            print(recipes.table(options.list))
            return
        recipe = chosen_recipe(options)
        backend.start(options.backend)
        run = prepared_run(recipe, options)
    note_precision(recipe.precision)
    train(run, verbose=2 if options.quiet else 1)
    part = "held-out" if recipe.validation else recipe.test_split
    accuracy = 100 * run.rows[-1]["val_accuracy"]
    print(
        f"{accuracy:.2f} % of the {part} images are classified correctly. "
        f"The run is in {run.folder}"
    )


def chosen_recipe(options):
    """Returns the recipe, changed as the options say."""
    recipe = recipes.find(options.recipe)
    if options.epochs is not None:
        recipe = recipe.with_epochs(options.epochs)
    recipe = recipe.with_settings(map(recipes.parse_setting, options.set))
    chosen = {
        "batch_size": options.batch_size,
        "precision": options.precision,
    }
    return recipe.replace(
        **{field: value for field, value in chosen.items() if value is not None}
    )


def prepared_run(recipe, options):
    """Builds the run. Keras has to be imported before."""
    from training.run import distribution, run_folder, session

    devices = None
    if options.distribute is not None:
        devices = distribution.start(options.distribute)
    folder = options.run_dir or run_folder.default_folder(recipe.name)
    return session.prepare(
        recipe,
        folder,
        seed=options.seed,
        data_dir=options.data_dir,
        devices=devices,
        save_every=options.save_every,
        steps_per_execution=options.steps_per_execution,
        evaluate_every=options.evaluate_every,
    )


def note_precision(precision):
    """Warns if bfloat16 is slower than float32 on this machine."""
    import keras

    if (
        precision == "mixed_bfloat16"
        and hardware.computes_bfloat16() is False
        and hardware.accelerator(keras.backend.backend()) is None
    ):
        print(
            f"train.py: {hardware.processor()} has no instructions for "
            "bfloat16: `--precision float32` is much faster on it.",
            file=sys.stderr,
        )


def train(run, verbose):
    """Trains to the end. An error that stops the run is printed as a line."""
    from training.images import reading
    from training.run import loop, run_folder
    from training.run.description import (
        check_same_run,
        note_other_environment,
    )

    # Only the first of several processes writes, and it locks the folder.
    first = run.devices.first
    try:
        with run_folder.lock_folder(run.folder) if first else nullcontext():
            with command_line.exit_on_error("train.py"):
                if first:  # another process may have started a run here
                    check_same_run(run.folder, run.description)
                run.restore()
                if first:
                    note_other_environment(run)
            recipe = run.trainer.recipe
            splits = f"{recipe.train_split} or {recipe.test_split}"
            with reading.naming_files(recipe.dataset, splits):
                run.train(verbose)
    except loop.Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except (loop.NonFiniteLoss, OSError) as error:
        sys.exit(f"\ntrain.py: {error}")


if __name__ == "__main__":
    command_line.run(main)
