"""Writes a web page on which visitors take a trained network apart.

    python training/demo.py weights/<name> --out site
    python -m http.server --directory site

writes a folder of static files. The page runs the network in the visitor's
browser: a click deletes or swaps blocks, and the error changes. Any web server
can host it, and `publish.py --space` publishes it as a Space.

Networks for scikit-learn's digits have these as sample images. For others, they
come from `--data-dir`. Without it, the page has only the visitor's images. With
`--study`, the page shows the charts of a folder that analyse.py has written.
"""

import os
import pathlib
import sys
from importlib.util import find_spec

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.startup import backend, command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    command_line.add_network(add)
    add(
        "--out",
        type=pathlib.Path,
        metavar="PATH",
        required=True,
        help="the folder to write: new, empty or written by this command",
    )
    command_line.add_data_dir(add)
    add("--split", help="of the data set (default: its test split)")
    add(
        "--examples",
        type=command_line.positive,
        default=200,
        help="the number of images, the first ones (default: 200)",
    )
    add(
        "--study",
        type=pathlib.Path,
        metavar="PATH",
        help="a folder that analyse.py has written of this network",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("demo.py"):
        start_torch()
        make_page(options)
    print(
        f"Written: {options.out}. To look at it: "
        f"python -m http.server --directory {options.out}"
    )


def start_torch():
    """Imports Keras with PyTorch, which is needed to export the network."""
    chosen = os.environ.get("KERAS_BACKEND", "torch")
    if chosen != "torch":
        raise ValueError(
            "`KERAS_BACKEND` should be torch or unset, because PyTorch exports "
            f"the network. Received: KERAS_BACKEND={chosen}"
        )
    missing = [name for name in ("torch", "onnx") if not find_spec(name)]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} should be installed to export the "
            'network: pip install -e ".[demo]"'
        )
    backend.start("torch")


def make_page(options):
    """Loads the network, its images and its study, and writes the page."""
    from training.networks import loading
    from training.page import site
    from training.studies.study import name_of

    site.check_folder(options.out)
    model, description = loading.load_network(options)
    data, names = site.load_samples(description, options)
    study = options.study and site.read_study(options.study, description)
    with site.new_folder(options.out) as folder:
        site.write_site(
            model,
            folder,
            title=name_of(options.network, description),
            about=site.describe(model, description, data),
            names=names,
            data=data,
            drawing=description["dataset"] == "digits",
            study=study,
        )


if __name__ == "__main__":
    command_line.run(main)
