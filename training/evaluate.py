"""Measures a trained network on a test set.

    python training/evaluate.py runs/digits
    python training/evaluate.py runs/digits/best.weights.h5
    python training/evaluate.py weights/dmrnet_8_digits
    python training/evaluate.py cifar10 --builder DMRNet --set depth=14
    python training/evaluate.py mine.keras --dataset flowers --data-dir flowers

The network is a training run, a file of its weights, a folder of `weights/`, a
model that Keras has saved, or what a builder takes as `weights`. The numbers of
a run are also written to its result.json. The model card of a folder shows the
numbers of its network.
"""

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
        help="a file for the numbers (default: the run's result.json, if a "
        "run is measured on its test split)",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("evaluate.py"):
        command_line.check_file("--output", options.output)
        backend.start(options.backend)
        from keras_resfam._files import write_json
        from training.images import evaluation
        from training.networks import accuracy, loading
        from training.run import run_folder

        model, description = loading.load_network(options)
        own_dataset = description["dataset"]
        dataset = options.dataset or own_dataset
        own_split = evaluation.own_split(description, dataset, options.data_dir)
        split = options.split or own_split
        weights = loading.describe_weights(options)
        result = accuracy.result(
            model,
            description,
            dataset,
            split,
            options.data_dir,
            command_line.invocation(),
        )
        result |= weights
        print(json.dumps(result, indent=2))
        output = options.output
        is_own = (dataset, split) == (own_dataset, own_split)
        if output is None and is_own and run_folder.is_run(options.network):
            output = pathlib.Path(options.network) / run_folder.RESULT
        if output is not None:
            write_json(output, result)


if __name__ == "__main__":
    command_line.run(main)
