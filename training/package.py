"""Makes the folder that is published of a training run.

    python training/package.py runs/digits

The folder, `weights/<name>/`, has exactly the files of its Hub repository, and
the registry of keras_resfam lists it. The network is measured as it is
published, its kernels rounded to float16, on the test split of its data set.
Nothing in the folder is typed by hand: the same run on the same machine, with
the same versions and backend, gives the same folder, byte for byte. (Its date
is that of the run's file of weights.)

    python training/package.py --table

writes the tables of trained networks in README.md and weights/README.md anew,
from the folders.
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
        help="writes the documents' tables, of all networks",
    )
    parser.add_argument(
        "--suffix",
        default="",
        help="to name a variant of a network that is already in weights/",
    )
    command_line.add_data_dir(parser.add_argument)
    command_line.add_backend(parser.add_argument)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("Not packaged"):
        if options.run is None and not options.table:
            raise ValueError(
                "There should be a run's folder, or `--table`. Received: none"
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
