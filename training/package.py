"""Writes the folder that publishes a training run.

    python training/package.py runs/digits

The folder, `weights/<name>/`, has exactly the files of its Hub repository, and
is added to the registry of keras_resfam. The network is measured in its
published form, with kernels rounded to float16, on the test split of its data
set. Nothing in the folder is written by hand: the same run on the same machine,
with the same versions and backend, gives the same folder, byte for byte. (Its
date is that of the run's file of weights.)

    python training/package.py --table

updates the tables of trained networks in README.md and weights/README.md from
the folders.
"""

import pathlib
import sys

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.startup import backend, command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "run", type=pathlib.Path, nargs="?", help="the run's folder"
    )
    parser.add_argument(
        "--table",
        action="store_true",
        help="update the tables of all networks in the documents",
    )
    parser.add_argument(
        "--suffix",
        default="",
        help="the end of the name, for a variant of a network in weights/",
    )
    command_line.add_data_dir(parser.add_argument)
    command_line.add_backend(parser.add_argument)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("Not packaged"):
        if options.run is None and not options.table:
            raise ValueError(
                "The folder of a run, or `--table`, is required. Received: none"
            )
        backend.start(options.backend)
        from keras_resfam.pretrained import registry
        from training.networks import packaging, tables

        if options.run is not None:
            folder = packaging.package(
                options.run, options.suffix, options.data_dir
            )
            print(folder)
            print(*(n for n in registry.read() if n.name == folder.name))
        if options.table:
            print(*tables.write(), sep="\n")


if __name__ == "__main__":
    command_line.run(main)
