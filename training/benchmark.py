"""Measures this package beside its peers, on this machine.

    python training/benchmark.py --csv benchmark.csv
    python training/benchmark.py --networks dmrnet-56 --precisions bfloat16
    python training/benchmark.py --quick

It measures training steps (`fit`, from NumPy arrays) and inference
(`predict_on_batch` of the folded model, from NumPy to NumPy) on each backend
that is installed; on torch also compiled (inference by `predictor`); and
inference of the folded model in ONNX Runtime. It compares them with PyTorch
(pytorchcv's networks, torchvision's and timm's ImageNet forms, and an
implementation of DMRNet), ONNX Runtime and tf2cv. Implementations that are not
installed, or do not have the network, are reported as absent.

Each implementation runs in its own process, with the network and its variants.
The processes take turns, one sample each, while the others wait, so that other
work of the machine slows all of them alike. Samples do not include compilation
and warm-up. A figure is the median of all rounds, followed by the distance
between the quartiles in percent. Ctrl-C or SIGTERM ends the benchmark with the
figures measured so far.

    python -m training.benchmarks.input_pipeline --data-dir DIR

measures whether training waits for its data.

    python -m training.benchmarks.growth

measures how the cost of a network grows with its depth and its width.
"""

import argparse
import csv
import pathlib
import signal
import sys

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.benchmarks import contenders, tables
from training.benchmarks.sampling import measure_in_turns
from training.startup import command_line

DEFAULTS = {
    "precisions": ["float32", "bfloat16"],
    "batch": 128,
    "rounds": 9,
    "seconds": 1.0,
}

QUICK = {"precisions": ["float32"], "batch": 8, "rounds": 2, "seconds": 0.05}


def parse_arguments(arguments=None):
    summary, _, rest = __doc__.partition("\n")
    parser = command_line.parser(summary, epilog=rest)
    add = parser.add_argument
    add(
        "--networks",
        nargs="+",
        choices=contenders.NETWORKS,
        default=["wrn-16-4"],
        help="several take hours on a CPU (default: wrn-16-4)",
    )
    for option, known in (
        ("--backends", contenders.OURS),
        ("--peers", contenders.PEERS),
    ):
        add(option, nargs="*", choices=known, default=[*known])
    add("--precisions", nargs="+", choices=("float32", "bfloat16"))
    add("--batch", type=command_line.positive, help="images a step")
    add("--rounds", type=command_line.positive, help="samples of each figure")
    add("--seconds", type=duration, help="least duration of a sample")
    add(
        "--quick",
        action="store_true",
        help="a trial of the benchmark itself: shallow networks, few images",
    )
    add(
        "--profile",
        action="store_true",
        help="also print the operations that take the time of a step, for our "
        "own backends, on a CPU, and with JAX on a GPU",
    )
    add("--csv", type=pathlib.Path, help="file to write all figures to")
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    try:
        command_line.check_file("--csv", options.csv)
    except ValueError as error:
        parser.error(str(error))
    return options


def duration(text):
    """The argument type of seconds, above 0."""
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"should be above 0. Received: {text}")
    return float(text)


def main(arguments=None):
    options = parse_arguments(arguments)
    lines, failed = [], False
    for name in options.networks:
        for precision in options.precisions:
            field = contenders.line_up(name, options)
            whole = measure_in_turns(field, precision, options)
            title = f"{name}, {precision}" + ", shallow" * options.quick
            tables.print_header(field, title)
            tables.print_table(field, options.batch)
            tables.print_ratios(field, options.batch)
            tables.print_peak(field, options.batch)
            tables.print_profiles(field)
            lines += tables.rows(field, name, precision, options)
            if options.csv:
                with open(options.csv, "w", newline="") as file:
                    writer = csv.DictWriter(file, tables.CSV_FIELDS)
                    writer.writeheader()
                    writer.writerows(lines)
            if not whole:
                return 128 + signal.SIGINT
            failed |= any(c.ours and "failed" in c.report for c in field)
    return int(failed)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    command_line.run(main)
