"""Looks inside a trained network: lesions, path lengths, gradients by length.

    python training/analyse.py weights/<name> --out analysis/<name>

writes lesions.csv, path_lengths.csv, gradients.csv, charts as SVG, and
index.html, which shows all of them. An interrupted run can be continued by the
same command. The network can be any residual Keras model:

    python training/analyse.py mine.keras --dataset flowers \\
        --data-dir flowers --out analysis/mine

    python training/analyse.py untrained --builder ResNet --set depth=110 \\
        --benchmark

only prints the cost of all single deletions, which depends neither on the
weights nor on the images.
"""

import importlib.util
import pathlib
import sys

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.startup import backend, command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument

    def count(name, default, text):
        text = f"{text} (default: {default})"
        add(name, type=command_line.positive, default=default, help=text)

    def most(name, default, text):
        text = f"{text} (default: {default}; 0: none)"
        add(name, type=command_line.at_least(0), default=default, help=text)

    command_line.add_network(add)
    add(
        "--out",
        type=pathlib.Path,
        metavar="PATH",
        help="the folder to write to",
    )
    command_line.add_data_dir(add)
    add("--split", help="of the data set (default: its test split)")
    add(
        "--examples",
        type=command_line.positive,
        help="the number of images, the first ones (default: all)",
    )
    count("--gradient-examples", 100, "images for the gradients by path length")
    count("--gradient-samples", 10, "draws of paths for each of these images")
    most("--deletions", 20, "most random blocks to delete at once")
    most("--swaps", 10, "most random pairs of blocks to swap")
    most("--repetitions", 10, "most random blocks to run twice")
    count("--trials", 10, "random trials of each number up to these")
    count("--batch-size", 100, "images at a time")
    add(
        "--seed",
        type=command_line.at_least(0),
        default=0,
        help="of all draws (default: 0)",
    )
    command_line.add_backend(add)
    add("--benchmark", action="store_true", help="print costs and stop")
    options = parser.parse_args(arguments)
    if not options.benchmark and options.out is None:
        parser.error("--out is required (or --benchmark)")
    if options.out is not None and options.out.is_file():
        parser.error(f"--out should be a folder. Received: --out {options.out}")
    return options


def main(arguments=None):
    options = parse_arguments(arguments)
    if not (options.benchmark or importlib.util.find_spec("matplotlib")):
        sys.exit(
            "analyse.py: charts need matplotlib, which is not installed: "
            'pip install -e ".[plots]"'
        )
    with command_line.exit_on_error("analyse.py"):
        backend.start(options.backend)
        if options.benchmark:
            from training.benchmarks.deletions import print_costs

            print_costs(network_to_time(options), options.batch_size)
        else:
            analyse(options)
            print(f"Written: {options.out / 'index.html'}")


def network_to_time(options):
    """Returns the network that is named, or an untrained one."""
    from training.networks import loading

    if options.network != "untrained":
        return loading.load_network(options)[0]
    builder = loading.find_builder(options.builder, options.network)
    return builder(**loading.builder_arguments(options))


def analyse(options):
    """Loads the network and the images, and runs the studies."""
    from training.images import evaluation
    from training.networks import loading
    from training.studies import study

    model, description = loading.load_network(options)
    dataset = options.dataset or description["dataset"]
    data_dir = options.data_dir
    own_split = evaluation.own_split(description, dataset, data_dir)
    batches, _ = evaluation.load_data(
        dataset, options.split or own_split, description, data_dir
    )
    images, labels = evaluation.first_examples(batches, options.examples)
    options.out.mkdir(parents=True, exist_ok=True)
    description = {**description, "dataset": dataset}
    study.run_studies(model, description, images, labels, options)


if __name__ == "__main__":
    command_line.run(main)
