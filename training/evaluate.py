"""Measures a trained network on a test set.

    python training/evaluate.py runs/digits
    python training/evaluate.py runs/digits/best.weights.h5
    python training/evaluate.py weights/dmrnet_8_digits
    python training/evaluate.py cifar10 --builder DMRNet --set depth=14
    python training/evaluate.py mine.keras --dataset flowers --data-dir flowers

The network is a training run, a file of its weights, a folder of `weights/`, a
model that Keras has saved, or what a builder takes as `weights`. The numbers of
a run are also written to its result.json. The model card of a folder has the
numbers of its network, which `--update` replaces:

    python training/evaluate.py weights/dmrnet_14_cifar10_short --calibrate \
        --corruptions --examples 1000 --ood cifar100 --update
"""

import functools
import json
import pathlib
import sys

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.startup import backend, command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    command_line.add_network(add)
    add("--split", help="of the data set (default: its test split)")
    command_line.add_data_dir(add)
    command_line.add_backend(add)
    add(
        "--output",
        type=pathlib.Path,
        metavar="PATH",
        help="a file for the numbers (default: the run's result.json, if it is "
        "measured on its test split)",
    )
    add_questions(add)
    add(
        "--update",
        action="store_true",
        help="write the numbers into the network's folder of weights/, its "
        "card and the registry",
    )
    return parser.parse_args(arguments)


def add_questions(add):
    """Adds the options that measure more than the error."""
    add(
        "--calibrate",
        action="store_true",
        help="fit a temperature on images that the run has held out, or else "
        "on every second image, and measure it on the others",
    )
    add(
        "--fit-on",
        metavar="SPLIT",
        help="the images for --calibrate",
    )
    add(
        "--corruptions",
        action="store_true",
        help="measure the error with noise, blur, fog and others of "
        "CIFAR-10-C, for images of 32 x 32 pixels",
    )
    add(
        "--examples",
        type=command_line.positive,
        help="the number of corrupted images, the first ones (default: all)",
    )
    add(
        "--ood",
        action="append",
        default=[],
        metavar="DATASET",
        help="measure how well the network's confidence separates its images "
        "from those of a data set of other classes, or in a folder; may be "
        "repeated",
    )
    add(
        "--reliability",
        type=pathlib.Path,
        metavar="PATH",
        help="a file for the reliability diagram, in SVG",
    )


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("evaluate.py"):
        command_line.check_file("--output", options.output)
        command_line.check_file("--reliability", options.reliability)
        backend.start(options.backend)
        from keras_resfam._files import write_json
        from training.images import evaluation
        from training.networks import accuracy, loading, packaging, questions
        from training.run import run_folder

        model, description = loading.load_network(options)
        own_dataset = description["dataset"]
        dataset = options.dataset or own_dataset
        own_split = evaluation.own_split(description, dataset, options.data_dir)
        split = options.split or own_split
        is_own = (dataset, split) == (own_dataset, own_split)
        questions.check(options, model, dataset, split)
        if options.update:
            packaging.check_update(options.network, is_own)
        weights = loading.describe_weights(options)
        result = accuracy.result(
            model,
            description,
            dataset,
            split,
            options.data_dir,
            command_line.invocation(),
            functools.partial(
                questions.ask, options, model, description, dataset, split
            ),
        )
        result |= weights
        print(json.dumps(result, indent=2))
        output = options.output
        if output is None and is_own and run_folder.is_run(options.network):
            output = pathlib.Path(options.network) / run_folder.RESULT
        if output is not None:
            write_json(output, result)
        if options.update:
            packaging.update(pathlib.Path(options.network), result)


if __name__ == "__main__":
    command_line.run(main)
