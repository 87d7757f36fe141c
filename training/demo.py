"""Makes a page on which anyone takes a trained network apart.

    python training/demo.py weights/<name> --out site
    python -m http.server --directory site

writes a folder of static files. The page runs the network in the visitor's
browser: blocks are clicked away or swapped, and the error moves. Any web
server or file host serves it; `publish.py --space` makes it a Space.

Sample images are scikit-learn's digits, or come from `--data-dir`; without
them the page takes the visitor's own. `--study` is a folder that analyse.py
has written: its charts are on the page too.
"""

import contextlib
import csv
import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.startup import backend, command_line

PAGE = pathlib.Path(__file__).with_name("page")
NETWORK = "network.json"  # what a folder has that this command wrote


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    command_line.add_network(add)
    add(
        "--out",
        type=pathlib.Path,
        required=True,
        help="the folder to write: new, empty or written by this command",
    )
    command_line.add_data_dir(add)
    add("--split", help="of the data set (default: its test split)")
    add(
        "--examples",
        type=command_line.positive,
        default=200,
        help="the first so many images (default: 200)",
    )
    add(
        "--study",
        type=pathlib.Path,
        metavar="FOLDER",
        help="what analyse.py wrote of this network",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("demo.py"):
        choose_torch()
        check_folder(options.out)
        backend.start()
        from training.networks import loading
        from training.studies.study import name_of

        model, description = loading.load_network(options)
        data, names = load_samples(description, options)
        study = None
        if options.study:
            study = read_study(options.study, description)
        with new_folder(options.out) as folder:
            write_site(
                model,
                folder,
                title=name_of(options.network, description),
                about=about(model, description, data),
                names=names,
                data=data,
                drawing=description["dataset"] == "digits",
                study=study,
            )
    print(
        f"Written: {options.out}. To look at it: "
        f"python -m http.server --directory {options.out}"
    )


def choose_torch():
    """Has Keras run on PyTorch, which exports the network."""
    chosen = os.environ.setdefault("KERAS_BACKEND", "torch")
    if chosen != "torch":
        raise ValueError(
            "`KERAS_BACKEND` should be torch, or not be set: PyTorch writes "
            f"the network for the browser. Received: KERAS_BACKEND={chosen}"
        )
    missing = [x for x in ("torch", "onnx") if not importlib.util.find_spec(x)]
    if missing:
        raise ValueError(
            f"The network is written by {' and '.join(missing)}, not "
            'installed: pip install -e ".[demo]"'
        )


def check_folder(folder):
    """Refuses a folder whose files something else has written."""
    if folder.is_file() or (
        folder.is_dir()
        and any(folder.iterdir())
        and not (folder / NETWORK).is_file()
    ):
        raise ValueError(
            "`--out` should be a folder that is new, empty or written by this "
            f"command: all that is in it is replaced. Received: --out {folder}"
        )


@contextlib.contextmanager
def new_folder(path):
    """Gives a folder to write to, and then puts it in the place of `path`.

    If anything fails, `path` is what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as partial:
        folder = pathlib.Path(partial) / "site"
        folder.mkdir()
        yield folder
        if path.exists():
            shutil.rmtree(path)
        os.replace(folder, path)


def load_samples(description, options):
    """The sample images with their labels, or `None`; the classes' names."""
    from keras_resfam.datasets import DATASETS
    from training.images import evaluation

    dataset, data_dir = description["dataset"], options.data_dir
    if dataset != "digits" and data_dir is None:
        known = DATASETS.get(dataset)
        return None, known and known.class_names
    own_split = evaluation.own_split(description, dataset, data_dir)
    batches, names = evaluation.load_data(
        dataset, options.split or own_split, description, data_dir
    )
    return evaluation.first_examples(batches, options.examples), names


def read_study(folder, description):
    """What analyse.py has written of a network.

    Returns:
        Dict. `weights` (the digest of the network's), `charts`, and
        `effective` (the lengths of the paths that carry 95 % of the gradient;
        `None` where that is not measured).
    """
    from keras_resfam import analysis
    from training.page import charts

    records = analysis.read_records(folder / "lesions.csv")
    lengths, gradients = (
        read_columns(folder / name)
        for name in ("path_lengths.csv", "gradients.csv")
    )
    # The authors' numbers are of a residual network.
    published = description["dataset"] == "cifar10" and lengths is not None
    effective = gradients and analysis.effective_lengths(gradients)
    return {
        "weights": records[0]["weights"],
        "charts": charts.charts(records, lengths, gradients, published),
        "effective": effective and [int(length) for length in effective],
    }


def read_columns(path):
    """The columns of a table of numbers by their names, if there is one."""
    import numpy as np

    if not path.exists():
        return None
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = [x for x in rows[0] if x not in ("weights", "data")]
    return {x: np.array([float(row[x]) for row in rows]) for x in names}


def write_site(
    model,
    folder,
    *,
    title,
    about="",
    names=None,
    data=None,
    drawing=False,
    study=None,
):
    """Writes the page of a network.

    Args:
        model: functional `keras.Model` from images of 0 to 255 to classes,
            with residual blocks or plain.
        folder: Path of a folder that exists.
        title: String. What the network is called.
        about: String. A sentence about it. Defaults to `""`.
        names: Sequence of the classes' names. Defaults to their numbers.
        data: `(images, labels)` to measure errors on, or `None`.
        drawing: Boolean. Whether the visitor may draw the image. Defaults to
            `False`.
        study: Dict as `read_study` gives it, of this network, or `None`.
    """
    from keras_resfam._files import write_json
    from keras_resfam.analysis.data import digest
    from training.page import runtime
    from training.page.network import write_network

    if study and study["weights"] != digest(model.get_weights()):
        raise ValueError(
            "`study` should be of this network. Received: one of the weights "
            f"{study['weights']}"
        )
    for name in ("parts", "onnxruntime"):
        (folder / name).mkdir()
    runtime.write_runtime(folder / "onnxruntime")
    record = write_network(model, folder / "parts")
    record |= {
        "title": title,
        "about": about,
        "classes": list(names or map(str, range(model.output_shape[-1]))),
        "labels": [],
        "drawing": drawing,
        "effective": study and study["effective"],
        "study": bool(study),
    }
    if data:
        record |= write_samples(model, record, data, folder)
    if study:
        write_json(folder / "study.json", study["charts"])
    for path in PAGE.iterdir():
        if path.suffix in (".html", ".css", ".js"):
            shutil.copyfile(path, folder / path.name)
    record["sizes"] = sizes(folder)
    write_json(folder / NETWORK, record)


def write_samples(model, record, data, folder):
    """Writes sample images, and what the loss of each block costs on them."""
    import numpy as np

    from keras_resfam.analysis import lesion_study

    images = np.clip(np.rint(data[0]), 0, 255).astype("uint8")
    labels = np.asarray(data[1]).reshape(-1)
    (folder / "images.bin").write_bytes(images.tobytes())
    none = dict.fromkeys(("max_deletions", "max_swaps", "max_repetitions"), 0)
    records = lesion_study(model, (images, labels), **none)
    errors = {row["blocks"]: row["error"] for row in records}
    for unit in record["units"]:
        unit["cost"] = errors[unit["name"]]
    return {"labels": labels.tolist(), "intact": errors[""]}


def sizes(folder):
    """The bytes of the files that run the network, by their names."""
    paths = [
        *sorted((folder / "parts").iterdir()),
        *(folder / "onnxruntime").glob("*.wasm"),
        *folder.glob("images.bin"),
    ]
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in paths
    }


def about(model, description, data):
    """A sentence about a network."""
    from keras_resfam.models import families
    from keras_resfam.pretrained import registry

    call = families.call(description["builder"], description["arguments"])
    images = f", {len(data[1]):,} of whose test images are here" if data else ""
    return (
        f"{call}: {model.count_params():,} parameters, trained on "
        f"{registry.title(description['dataset'])}{images}."
    )


if __name__ == "__main__":
    command_line.run(main)
