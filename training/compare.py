"""Compares training runs: the error of each setting, over its seeds.

    python training/compare.py runs/wrn_28_10_*
    python training/compare.py runs/* --csv runs.csv

Prints a table in Markdown. Runs that differ only in their seeds share a row,
with the mean and the standard deviation of their errors. A row begins with the
name of the recipe and with what `--set` and other options changed in it. The
errors are those of the last epoch in each log.csv: on the images that the run
held out, or, without any, on its test split. Incomplete runs, and those that
repeat another one, are named and left out.
"""

import pathlib
import sys

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.startup import backend, command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        type=pathlib.Path,
        help="folders of runs, or of weights/",
    )
    parser.add_argument(
        "--csv",
        type=pathlib.Path,
        metavar="PATH",
        help="a file for the numbers of each run",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("compare.py"):
        command_line.check_file("--csv", options.csv)
        backend.start()
        from training.run import comparison

        runs, left_out = comparison.read(options.runs)
        for reason in left_out:
            print(f"compare.py: left out: {reason}", file=sys.stderr)
        if not runs:
            raise ValueError("there is no complete run to compare")
        print(comparison.table(runs))
        if options.csv is not None:
            comparison.write(options.csv, runs)


if __name__ == "__main__":
    command_line.run(main)
