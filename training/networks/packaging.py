"""Writes the folder of a training run that is published."""

import json
import os
import pathlib
import re
import shlex
import shutil
import tempfile
import time
import zipfile

import h5py
import keras
import numpy as np

import keras_resfam
from keras_resfam._files import read_json, write_json
from keras_resfam.datasets import DATASETS
from keras_resfam.models import families
from keras_resfam.pretrained import fingerprint, registry, sources
from keras_resfam.pretrained.files import FINGERPRINT, RECIPE, WEIGHTS, describe
from training.images import evaluation, reading
from training.networks import accuracy, model_card
from training.run import run_folder
from training.run.description import differences
from training.run.description import read as read_description

FROM_RUN = (RECIPE, run_folder.LOG, WEIGHTS)
FILES = (
    "README.md",
    "config.json",
    "fingerprint.json",
    "log.csv",
    "metadata.json",
    "model.weights.h5",
    "recipe.json",
    "result.json",
)
OTHERS = tuple(file for file in FILES if file != FINGERPRINT)
LARGEST_FILE = 90_000_000  # bytes, in git
# TensorFloat-32 on GPUs is within these tolerances, and another graph is not.
LOGITS = {"rtol": 1e-3, "atol": 1e-2}

SHORT_NAMES = {
    "WideResNet": "wrn",
    "OrthoPlainNet": "ortho_plain",
    "svhn_cropped": "svhn",
    "imagenet2012": "imagenet",
}


def package(run, suffix="", data_dir=None):
    """Writes `weights/<name>/` of a run, and registers it.

    Args:
        run: Path. A folder as `train.py` leaves it.
        suffix: str. Added to the name, for a variant.
        data_dir: See `reading.load`.

    Returns:
        The folder's path.

    Raises:
        ValueError: If a file of the run is missing, or a file is too large.
    """
    for file in FROM_RUN:
        if not (run / file).is_file():
            raise ValueError(
                "`run` should be the folder of a run that train.py has "
                f"finished; {file} not found. Received: run={run}"
            )
    description = published_description(run)
    name = name_of(description, suffix)
    target = sources.CHECKOUT / "weights" / name
    restore(target)
    check_same_recipe(target, description)
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")

    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent) / name
        folder.mkdir()
        shutil.copyfile(run / run_folder.LOG, folder / run_folder.LOG)
        write_json(folder / RECIPE, description)
        saved = time.gmtime((run / WEIGHTS).stat().st_mtime)
        trained = build(description, str(run / WEIGHTS))
        save(without_training_parts(trained, name), folder, saved)
        opened = keras.saving.load_model(folder)
        logits = logits_of(opened, description)
        write_json(
            folder / run_folder.RESULT,
            measure_published(opened, description, data_dir),
        )
        (folder / "README.md").write_text(model_card.render(folder))
        write_fingerprint(folder, opened, logits)
        check(folder)
        with registry.lock():
            check_same_recipe(target, description)  # again: of another process
            replace(target, folder)
            register(entry(target))
    return target


def published_description(run):
    """Returns a run's recipe.json without the paths of its machine."""
    description = read_description(run / RECIPE)
    for part in (description, *description.get("continued", ())):
        part["command"] = without_local_paths(part["command"])
    if description.get("weights"):
        description["weights"] = without_local_path(description["weights"])
    record = reading.record_of(description["dataset"])
    if record is not None:  # without a version of TFDS
        description["dataset"] = record.name
    return description


def measure_published(model, description, data_dir):
    """Measures a network as evaluate.py will measure the published one.

    Args:
        model: `keras.Model`. Gives logits, and has the network's name.
        description: dict. What the run's recipe.json holds.
        data_dir: See `reading.load`.
    """
    dataset = description["dataset"]
    command = f"python training/evaluate.py weights/{model.name}"
    if data_dir is not None and reading.record_of(dataset) is None:
        # Other users need the option too, but not the folders above it.
        place = without_local_path(str(data_dir))
        command += f" --data-dir {shlex.quote(place)}"
    return accuracy.result(
        model,
        description,
        dataset=dataset,
        split=evaluation.own_split(description, dataset, data_dir),
        data_dir=data_dir,
        command=command,
    )


def check_update(network, is_own):
    """Checks that `--update` may write the measured numbers into a folder.

    Args:
        network: str. The `network` argument of evaluate.py.
        is_own: bool. Whether the network's own test images are measured.
    """
    folder = pathlib.Path(network).absolute()
    known = sources.CHECKOUT / "weights" / folder.name
    if folder != known or not (folder / FINGERPRINT).is_file() or not is_own:
        raise ValueError(
            "`--update` should come with a folder of weights/, measured on "
            f"the test images of its own data set. Received: {network}"
        )


def update(folder, result):
    """Writes new numbers into a folder of weights/, its card and the registry.

    In its fingerprint, only the checksums of the two files change.

    Args:
        folder: Path. A folder that `check_update` accepts.
        result: dict. As `accuracy.result` returns it.

    Raises:
        ValueError: If the folder is incomplete or was changed.
    """
    check(folder)
    words = shlex.split(without_local_paths(result["command"]))
    words.remove("--update")
    contents = read_json(folder / FINGERPRINT)
    with tempfile.TemporaryDirectory() as parent:
        changed = pathlib.Path(parent) / folder.name
        shutil.copytree(folder, changed)
        published = result | {"command": shlex.join(words)}
        if "out_of_distribution" in result:  # may have names of folders
            published["out_of_distribution"] = {
                without_local_path(name): found
                for name, found in result["out_of_distribution"].items()
            }
        write_json(changed / run_folder.RESULT, published)
        (changed / "README.md").write_text(model_card.render(changed))
        contents["files"] = describe_files(changed, OTHERS)
        (changed / FINGERPRINT).write_text(fingerprint.text(contents))
        with registry.lock():
            replace(folder, changed)
            register(entry(folder))


def check_same_recipe(target, description):
    """Checks that a folder does not have a network of another recipe."""
    if not target.exists():
        return
    there = read_description(target / RECIPE)
    changed = differences(there, description)
    if changed:
        old, new = (
            ", ".join(f"{key}={pair[k]!r}" for key, pair in changed.items())
            for k in (0, 1)
        )
        raise ValueError(
            f"{target} holds a network of another recipe, with {old}: name "
            f"this one by `--suffix`, or remove that folder. Received: {new}"
        )


def replace(target, folder):
    """Replaces a folder by a copy of another.

    The caller holds the registry's lock. If the process is killed, the old
    folder or the new one is in place, or else the old one has the name that
    `restore` looks for.
    """
    fresh, old = _beside(target, "new"), _beside(target, "old")
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    shutil.copytree(folder, fresh)
    if target.exists():
        os.replace(target, old)
    os.replace(fresh, target)
    shutil.rmtree(old, ignore_errors=True)


def restore(target):
    """Puts back a folder that a killed `replace` has moved."""
    with registry.lock():
        old = _beside(target, "old")
        if old.exists() and not target.exists():
            os.replace(old, target)


def _beside(target, what):
    return target.with_name(f".{target.name}.{what}")


def without_local_paths(command):
    """Returns a command with absolute paths replaced by their last parts."""
    return shlex.join(map(without_local_path, shlex.split(command)))


def without_local_path(word):
    """Returns a word with an absolute path replaced by its last part."""

    def cut(found):
        return found[1] + re.split(r"[/\\]", found[2].rstrip("/\\"))[-1]

    absolute = re.compile(r"(^|=)((?:/|[A-Za-z]:[/\\]|\\\\).*)", re.S)
    return absolute.sub(cut, word, count=1)


def name_of(description, suffix=""):
    """Returns the name of a network.

    It consists of the family, the depth, the width, other arguments, the data
    set and the suffix. The suffix may also be the end of the recipe's name.
    """
    usual = families.defaults(description["builder"])
    chosen = usual | description["arguments"]
    family, number = re.match(r"(\D+)(.*)", description["builder"]).groups()
    depth, width = chosen.pop("depth", number), chosen.pop("width", 1)
    parts = [SHORT_NAMES.get(family, family), depth]
    # A width of 1 is left out, unless another is the default.
    if (width, usual.get("width", 1)) != (1, 1):
        parts.append(width)
    for argument, value in chosen.items():
        if value == usual[argument]:
            continue
        of_training = argument in families.TRAINING_ARGUMENTS
        is_text = isinstance(value, str)
        if isinstance(value, bool) or (of_training and not is_text):
            parts.append(argument if value else f"no_{argument}")
        else:
            parts += [argument, value]
    dataset = description["dataset"]
    parts.append(SHORT_NAMES.get(dataset, dataset))
    if description.get("weights"):
        parts.append("fine_tuned")
    name = _joined(*parts)
    if description["name"].startswith(f"{name}_"):
        name = description["name"]
    return _joined(name, suffix) if suffix else name


def _joined(*parts):
    text = "_".join(map(str, parts)).lower()
    return re.sub(r"[^a-z0-9]+", "_", text).strip("_")


def build(description, weights, **options):
    """Builds a run's network without the parts that act in training."""
    builder = families.get(description["builder"])
    own = {
        **families.defaults(description["builder"]),
        **description["arguments"],
    }
    off = {k: v for k, v in families.TRAINING_ARGUMENTS.items() if k in own}
    return builder(
        **own | off,
        weights=weights,
        classes=description["classes"],
        input_shape=tuple(description["input_shape"]),
        include_preprocessing=description["preprocessing"],
        **options,
    )


def without_training_parts(model, name):
    """Returns a model of Keras's own layers, with rounded values."""
    copy = keras_resfam.to_stock_layers(model)
    plain = keras.Model(copy.input, copy.output, name=name)
    for layer in plain.layers:
        layer.set_weights([fingerprint.stored(v) for v in layer.get_weights()])
    return plain


def save(model, folder, date):
    """Writes Keras's own three files, with kernels in float16.

    Args:
        model: `keras.Model`.
        folder: Path.
        date: `time.struct_time`. When the values were trained.
    """
    archive = folder / "model.keras"
    model.save(archive)
    with zipfile.ZipFile(archive) as parts:
        parts.extractall(folder)
    archive.unlink()
    metadata = read_json(folder / "metadata.json")
    metadata["date_saved"] = time.strftime("%Y-%m-%d@%H:%M:%S", date)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    weights = folder / WEIGHTS
    full = weights.rename(folder / "full.h5")
    with h5py.File(full) as source, h5py.File(weights, "w") as target:
        _copy_rounded(source, target)
    full.unlink()


def _copy_rounded(source, target):
    for name, value in source.attrs.items():
        target.attrs[name] = value
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _copy_rounded(item, target.create_group(name))
        else:
            target.create_dataset(name, data=fingerprint.stored(item[()]))


def logits_of(model, description):
    """Returns the logits of a whole network for the fixed images."""
    model.get_layer("predictions").activation = keras.activations.linear
    return fingerprint.logits(model, tuple(description["input_shape"]))


def write_fingerprint(folder, model, logits):
    contents = {
        "files": describe_files(folder, OTHERS),
        "variables": fingerprint.describe(model),
        "logits": logits.tolist(),
    }
    path = folder / FINGERPRINT
    path.write_text(fingerprint.text(contents))


def describe_files(folder, names=FILES):
    """Returns the size and SHA-256 of a folder's files, by name."""
    return {name: describe((folder / name).read_bytes()) for name in names}


def check(folder):
    """Checks that a weights folder is complete, and that its network is intact.

    Raises:
        ValueError: If it is not.
    """
    found = sorted(os.listdir(folder)) if folder.is_dir() else ["nothing"]
    if found != sorted(FILES):
        raise ValueError(
            f"A weights folder should have {', '.join(FILES)}, and nothing "
            f"else. Received: {folder} with {', '.join(found)}"
        )
    size = (folder / WEIGHTS).stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(
            f"{WEIGHTS} should have at most {LARGEST_FILE:,} bytes. "
            f"Received: {size:,} bytes"
        )
    if "keras_resfam" in (folder / "config.json").read_text():
        raise ValueError(
            "A published network should have Keras's own layers only. "
            f"Received: {folder}/config.json with parts of keras_resfam"
        )
    published = read_json(folder / FINGERPRINT)
    for name, described in describe_files(folder, OTHERS).items():
        if described != published["files"].get(name):
            raise ValueError(
                f"{name} should be as package.py wrote it, with "
                f"{published['files'].get(name)}. Received: {described}"
            )
    description = read_description(folder / RECIPE)
    logits = logits_of(build(description, str(folder)), description)
    if not np.allclose(logits, published["logits"], **LOGITS):
        raise ValueError(
            f"The network in {folder} should give the logits of its "
            "fingerprint for the fixed images. "
            f"Received: {logits.tolist()}"
        )


def entry(folder, repository=None, commit=None):
    """Returns a folder's `Network` for the registry.

    Args:
        folder: Path.
        repository: str. Defaults to the project's own on the Hub.
        commit: str. `None` if it has not been published.
    """
    description = read_description(folder / RECIPE)
    result = read_json(folder / run_folder.RESULT)
    return registry.Network(
        name=folder.name,
        builder=description["builder"],
        arguments=families.architecture(
            description["builder"], description["arguments"]
        ),
        dataset=description["dataset"],
        classes=description["classes"],
        input_shape=list(description["input_shape"]),
        accuracy=round(100 - result["error"], 4),
        repository=repository or registry.repository(folder.name),
        commit=commit,
        files=describe_files(folder),
    )


def register(network):
    """Adds a network to the registry, or replaces its entry.

    A published commit stays pinned as long as the files are the same.

    Raises:
        ValueError: If its name is that of a data set.
    """
    with registry.lock():
        networks = {known.name: known for known in registry.read()}
        datasets = {known.dataset for known in networks.values()}
        if network.name in datasets | {network.dataset, *DATASETS}:
            raise ValueError(
                "A network's folder should not have the name of a data set, "
                "which selects the most accurate network for it. "
                f"Received: {network.name}"
            )
        known = networks.get(network.name)
        if network.commit is None and known and known.files == network.files:
            return
        networks[network.name] = network
        registry.write(networks.values())
