"""Trains a network by a recipe.

    python training/train.py

trains a small DMRNet on scikit-learn's handwritten digits: real images,
nothing downloaded, under a minute on two cores.

    python training/train.py --list
    python training/train.py --recipe wrn_28_10_cifar10

show the recipes of the papers, and run one. Its data come through TensorFlow
Datasets, or from arrays that `--data-dir` names. A recipe's name ends in its
data set; the suffix `_noaug` means no augmentation, and `_short` a shorter
schedule by this project. Networks called `orthonormal_plain` are trained with
the regularizer, `ortho_plain` also with gradient modulation, and `plain` with
neither.

A run has a folder, by default runs/<recipe>. After Ctrl-C, a kill or a full
disk, the same command goes on from the last checkpoint, and gives the result
of an uninterrupted run. A complete run is never changed: the default folder
is then runs/<recipe>-2.
"""

import pathlib
import sys
from contextlib import nullcontext

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training import recipes
from training.startup import backend, command_line, hardware

EXAMPLES = """\
any number of a recipe can be changed:

    python training/train.py --recipe dmrnet_56_cifar10 \\
        --set arguments.branches=4 --set mixup=0.2 --run-dir runs/four

images to choose the best epoch by are held out of the training set:

    python training/train.py --recipe wrn_16_8_cifar10 --set validation=5000
"""


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--recipe", default="digits", help="what to train (default: digits)")
    add(
        "--list",
        nargs="?",
        const="",
        metavar="PART",
        help="print the recipes, or those with PART in their names, and stop",
    )
    command_line.add_data_dir(add)
    add(
        "--run-dir",
        type=pathlib.Path,
        metavar="PATH",
        help="the run's folder (default: runs/<recipe>)",
    )
    command_line.add_backend(add)
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
    add(
        "--seed",
        type=int,
        default=0,
        help="of the weights, the order and the augmentation (default: 0)",
    )
    add(
        "--save-every",
        type=int,
        default=500,
        metavar="STEPS",
        help="steps between checkpoints within an epoch (default: 500)",
    )
    add(
        "--evaluate-every",
        type=int,
        default=1,
        metavar="EPOCHS",
        help="epochs between evaluations, and so between rows of the log; more "
        "than 1 saves time where epochs are short (default: 1)",
    )
    add(
        "--steps-per-execution",
        type=int,
        default=1,
        metavar="STEPS",
        help="steps that run together, with jax or tensorflow, so that a GPU "
        "need not wait for Python where steps are short. The loss, signals "
        "and checkpoints are handled after them (default: 1)",
    )
    add(
        "--distribute",
        nargs="?",
        type=int,
        const=0,
        metavar="N",
        help="train on all devices, with jax or tensorflow; N splits the "
        "processor into N devices, to try it without accelerators",
    )
    add(
        "--quiet",
        action="store_true",
        help="print a line for each epoch instead of a progress bar",
    )
    options = parser.parse_args(arguments)
    for flag, value, least in (
        ("--seed", options.seed, 0),
        ("--save-every", options.save_every, 1),
        ("--evaluate-every", options.evaluate_every, 1),
        ("--steps-per-execution", options.steps_per_execution, 1),
        ("--distribute", options.distribute, 0),
    ):
        if value is not None and value < least:
            parser.error(
                f"{flag} should be at least {least}. Received: {flag} {value}"
            )
    return options


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
    """The recipe with the options' changes."""
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
    """Builds the run, with Keras, which is imported by now."""
    from training.run import distribution, run_folder, session

    devices = None
    if options.distribute is not None:
        devices = distribution.start(options.distribute)
    folder = options.run_dir or run_folder.default_folder(recipe.name)
    return session.prepare(
        recipe,
        folder,
        options.seed,
        options.data_dir,
        devices,
        options.save_every,
        options.steps_per_execution,
        options.evaluate_every,
    )


def note_precision(precision):
    """Warns where bfloat16 costs time instead of saving it."""
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
    """Trains to the end; what may stop a run ends in a line."""
    from training.images import reading
    from training.run import loop, run_folder
    from training.run.description import (
        check_same_run,
        note_other_environment,
    )

    # One of many processes writes, and keeps the folder for all of them.
    first = run.devices.first
    try:
        with run_folder.lock_folder(run.folder) if first else nullcontext():
            with command_line.exit_on_error("train.py"):
                if first:  # again: another may have begun here meanwhile
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
