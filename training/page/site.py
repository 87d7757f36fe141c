"""The folder of a page: the network, its images, its study, and the page."""

import contextlib
import math
import os
import pathlib
import shutil
import tempfile

import keras
import numpy as np

from keras_resfam import analysis
from keras_resfam._checks import check_outputs
from keras_resfam._files import write_json
from keras_resfam.analysis.data import digest
from keras_resfam.datasets import DATASETS
from keras_resfam.pretrained import registry
from training.images import evaluation
from training.networks import loading
from training.page import runtime
from training.page.charts import charts
from training.page.network import write_network
from training.studies.records import number_columns, read_rows

PAGE = pathlib.Path(__file__).parent
NETWORK = "network.json"  # in each folder that this module has written


def check_folder(folder):
    """Checks that a folder has no files that something else has written."""
    if folder.is_file() or (
        folder.is_dir()
        and any(folder.iterdir())
        and not (folder / NETWORK).is_file()
    ):
        raise ValueError(
            "`--out` should be a folder that is new, empty or written by this "
            f"command, which replaces all of it. Received: --out {folder}"
        )


@contextlib.contextmanager
def new_folder(path):
    """Context manager that yields a new folder, which then replaces `path`.

    If anything fails, `path` is not changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as partial:
        folder = pathlib.Path(partial) / "site"
        folder.mkdir()
        yield folder
        if path.exists():
            os.replace(path, pathlib.Path(partial) / "old")
        os.replace(folder, path)


def load_samples(description, options):
    """Loads the sample images of a network.

    Returns:
        A pair: `(images, labels)`, or `None` if there are none; and the names
        of the classes, or `None` if they are unknown.
    """
    dataset, data_dir = description["dataset"], options.data_dir
    if dataset != "digits" and data_dir is None:
        known = DATASETS.get(dataset)
        return None, known and known.class_names
    own_split = evaluation.own_split(description, dataset, data_dir)
    batches, names = evaluation.load_data(
        dataset, options.split or own_split, description, data_dir
    )
    return evaluation.first_examples(batches, options.examples), names


def describe(model, description, data):
    """Returns a sentence about a network."""
    call = loading.title(model, description)
    title = registry.title(description["dataset"])
    images = f" The page has {len(data[1]):,} test images." if data else ""
    return (
        f"{call}: {model.count_params():,} parameters, trained on {title}."
        f"{images}"
    )


def read_study(folder, description):
    """Reads the files that analyse.py has written.

    Returns:
        A dict of `weights` (the digest of the network's weights), `charts`, and
        `effective` (the lengths of the paths that carry 95 % of the gradient,
        or `None` if they were not measured).
    """
    records = analysis.read_records(folder / "lesions.csv")
    if not records:
        raise ValueError(
            "`--study` should be a folder that analyse.py has written. "
            f"Received: --study {folder}, whose lesions.csv has no records"
        )
    lengths = _read_columns(folder / "path_lengths.csv")
    gradients = _read_columns(folder / "gradients.csv")
    # The authors' numbers are of a residual network.
    published = description["dataset"] == "cifar10" and lengths is not None
    effective = gradients and analysis.effective_lengths(gradients)
    return {
        "weights": records[0]["weights"],
        "charts": charts(records, lengths, gradients, published),
        "effective": effective and [int(length) for length in effective],
    }


def _read_columns(path):
    """Returns the columns of numbers of a table, or `None` without rows."""
    rows = read_rows(path, common={})
    return number_columns(rows, ("weights", "data")) if rows else None


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
        model: functional `keras.Model`. A classifier of images of 0 to 255,
            residual or plain.
        folder: Path of an empty folder.
        title: str. The name of the network.
        about: str. A sentence about it. Defaults to `""`.
        names: sequence of the classes' names. Defaults to their numbers.
        data: `(images, labels)` that errors are measured on, or `None`.
        drawing: bool. Whether visitors may draw an image. Defaults to
            `False`.
        study: dict, as `read_study` returns it for this network, or `None`.
    """
    if study and study["weights"] != digest(model.get_weights()):
        raise ValueError(
            "`study` should be of this network. Received: a study of the "
            f"weights {study['weights']}"
        )
    (folder / "parts").mkdir()
    runtime.write_runtime(folder)
    record = write_network(model, folder / "parts")
    record |= {
        "runtimes": runtime.RUNTIMES,
        "probe": _probe(model, record["softmax"]),
        "title": title,
        "about": about,
        "classes": list(names or map(str, range(model.output_shape[-1]))),
        "labels": [],
        "drawing": drawing,
        "effective": study and study["effective"],
        "study": bool(study),
    }
    if data:
        record |= _write_samples(model, data, folder)
    if study:
        write_json(folder / "study.json", study["charts"])
    for path in PAGE.iterdir():
        if path.suffix in (".html", ".css", ".js"):
            shutil.copyfile(path, folder / path.name)
    write_json(folder / NETWORK, record | {"sizes": _sizes(folder)})


def _probe(model, softmax):
    """Keras's probabilities of an image that `engine.js` makes too.

    Args:
        softmax: bool. Whether the network's outputs are logits.
    """
    shape = model.input_shape[1:]
    image = 97.0 * np.arange(math.prod(shape)) % 256
    outputs = model.predict_on_batch(image.reshape(1, *shape))
    check_outputs(outputs, "a network")
    if softmax:
        outputs = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    return outputs[0].tolist()


def _write_samples(model, data, folder):
    """Writes the sample images, and measures the network on them.

    Returns:
        A dict of `labels`, and in percent `intact`, the error of the network,
        and `costs`, the error after the deletion of each block.
    """
    images = np.clip(np.rint(data[0]), 0, 255).astype("uint8")
    labels = np.asarray(data[1]).reshape(-1)
    (folder / "images.bin").write_bytes(images.tobytes())
    intact, *deletions = analysis.lesion_study(
        model,
        (images, labels),
        max_deletions=0,
        max_swaps=0,
        max_repetitions=0,
    )
    return {
        "labels": labels.tolist(),
        "intact": intact["error"],
        "costs": [row["error"] for row in deletions],
    }


def _sizes(folder):
    """Returns the sizes of the files that the page loads, by name."""
    paths = [
        *sorted((folder / "parts").iterdir()),
        *(folder / runtime.FOLDER).glob("*.wasm"),
        *folder.glob("images.bin"),
    ]
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in paths
    }
