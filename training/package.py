"""Makes the folder that is published of a training run.

    python training/package.py runs/digits

The folder, `weights/<name>/`, has exactly the files of its Hub repository, and
the registry of keras_resfam learns of it. It is measured as it is published,
its kernels rounded, on the test split of its data set. Nothing in it is typed
by hand: made again from the same run on the same machine, by the same versions
and backend, it is the same byte for byte. (Its date is that of the run's file
of weights.)
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import sys
import tempfile
import time
import zipfile

import h5py
import keras
import numpy as np

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

import keras_resfam
from keras_resfam._files import read_json, write_json
from keras_resfam.datasets import DATASETS
from keras_resfam.models import families
from keras_resfam.pretrained import fingerprint, registry, sources
from keras_resfam.pretrained.files import FINGERPRINT, WEIGHTS, describe
from training import evaluate
from training.networks import model_card
from training.recipes.recipe import differences
from training.startup import command_line

FROM_RUN = ("recipe.json", "log.csv", WEIGHTS)
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
# A GPU's TensorFloat-32 stays within it, and another graph does not.
LOGITS = {"rtol": 1e-3, "atol": 1e-2}

SHORT_NAMES = {
    "WideResNet": "wrn",
    "OrthoPlainNet": "ortho_plain",
    "svhn_cropped": "svhn",
    "imagenet2012": "imagenet",
}


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    parser.add_argument("run", type=pathlib.Path, help="the run's folder")
    parser.add_argument(
        "--suffix",
        default="",
        help="names a variant of a network that is already in weights/",
    )
    parser.add_argument("--data-dir", metavar="PATH", help="as for train.py")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.in_a_line("Not packaged"):
        folder = package(options.run, options.suffix, options.data_dir)
    print(folder)
    print(*(n for n in registry.read() if n.name == folder.name))


def package(run, suffix="", data_dir=None):
    """Writes `weights/<name>/` of a run, and registers it.

    Args:
        run: Path. A folder as `train.py` leaves it.
        suffix: String. Added to the name, for a variant.
        data_dir: See `reading.load`.

    Returns:
        The folder's path.

    Raises:
        ValueError: If the run lacks something, or a file is too large.
    """
    for file in FROM_RUN:
        if not (run / file).is_file():
            raise ValueError(
                "`run` should be the folder of a run that train.py has "
                f"finished; {file} not found. Received: run={run}"
            )
    recipe = read_json(run / "recipe.json")
    if recipe["dataset"] not in DATASETS or recipe.get("weights"):
        raise ValueError(
            "A network that is published should have been trained from "
            "random weights on a data set of keras_resfam, whose channel "
            f"moments it has. Received: dataset={recipe['dataset']!r}, "
            f"weights={recipe.get('weights')!r}"
        )
    name = name_of(recipe, suffix)
    target = sources.CHECKOUT / "weights" / name
    check_same_recipe(target, recipe)
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")

    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent) / name
        folder.mkdir()
        shutil.copyfile(run / "log.csv", folder / "log.csv")
        for part in (recipe, *recipe.get("continued", ())):
            part["command"] = without_local_paths(part["command"])
        write_json(folder / "recipe.json", recipe)
        saved = time.gmtime((run / WEIGHTS).stat().st_mtime)
        trained = build(recipe, str(run / WEIGHTS))
        save(without_training_parts(trained, name), folder, saved)
        opened = keras.saving.load_model(folder)
        logits = logits_of(opened, recipe)
        write_json(folder / "result.json", measure(opened, recipe, data_dir))
        (folder / "README.md").write_text(model_card.render(folder))
        write_fingerprint(folder, opened, logits)
        check(folder)
        replace(target, folder)
    register(entry(target))
    return target


def measure(model, recipe, data_dir):
    """What evaluate.py will say of a published network.

    Args:
        model: `keras.Model`. Gives logits, and has the network's name.
        recipe: Dict.
        data_dir: See `reading.load`.
    """
    return evaluate.measure(
        model,
        recipe,
        dataset=recipe["dataset"],
        split=recipe["test_split"],
        data_dir=data_dir,
        command=f"python training/evaluate.py weights/{model.name}",
    )


def check_same_recipe(target, recipe):
    """Refuses to put a network in the place of one that is another."""
    if not target.exists():
        return
    there = read_json(target / "recipe.json")
    changed = differences(there, recipe)
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
    """Puts a copy of a folder in the place of another, when it is whole."""
    fresh = target.with_name(f".{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder, fresh)
    if target.exists():
        shutil.rmtree(target)
    os.replace(fresh, target)


def without_local_paths(command):
    """A command whose absolute paths are cut to their last names."""

    def cut(found):
        return found[1] + re.split(r"[/\\]", found[2].rstrip("/\\"))[-1]

    absolute = re.compile(r"(^|=)((?:/|[A-Za-z]:[/\\]|\\\\).*)", re.S)
    words = shlex.split(command)
    return shlex.join(absolute.sub(cut, word, count=1) for word in words)


def name_of(recipe, suffix=""):
    """Names a network: family, depth, width, what else, data set, variant.

    A variant's suffix may also be the end of the recipe's own name.
    """
    usual = families.defaults(recipe["builder"])
    chosen = usual | recipe["arguments"]
    family, number = re.match(r"(\D+)(.*)", recipe["builder"]).groups()
    depth, width = chosen.pop("depth", number), chosen.pop("width", 1)
    parts = [SHORT_NAMES.get(family, family), depth]
    # 1 goes without saying, but where another is the default.
    if (width, usual.get("width", 1)) != (1, 1):
        parts.append(width)
    for argument, value in chosen.items():
        if value == usual[argument]:
            continue
        if isinstance(value, bool) or argument in families.TRAINING_ARGUMENTS:
            parts.append(argument if value else f"no_{argument}")
        else:
            parts += [argument, value]
    dataset = recipe["dataset"]
    name = _joined(*parts, SHORT_NAMES.get(dataset, dataset))
    if recipe["name"].startswith(f"{name}_"):
        name = recipe["name"]
    return _joined(name, suffix) if suffix else name


def _joined(*parts):
    text = "_".join(map(str, parts)).lower()
    return re.sub(r"[^a-z0-9]+", "_", text).strip("_")


def build(recipe, weights, **options):
    """Builds a recipe's network without the parts that act in training."""
    builder = families.get(recipe["builder"])
    own = {**families.defaults(recipe["builder"]), **recipe["arguments"]}
    off = {k: v for k, v in families.TRAINING_ARGUMENTS.items() if k in own}
    return builder(
        **own | off,
        weights=weights,
        classes=recipe["classes"],
        input_shape=tuple(recipe["input_shape"]),
        include_preprocessing=recipe["dataset"],
        **options,
    )


def without_training_parts(model, name):
    """A model of stock Keras layers only, with the same values, rounded."""
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


def logits_of(model, recipe):
    """The logits of a whole network for the fixed images."""
    model.get_layer("predictions").activation = keras.activations.linear
    return fingerprint.logits(model, tuple(recipe["input_shape"]))


def write_fingerprint(folder, model, logits):
    contents = {
        "files": describe_files(folder, OTHERS),
        "variables": fingerprint.describe(model),
        "logits": logits.tolist(),
    }
    path = folder / FINGERPRINT
    path.write_text(json.dumps(contents, indent=1) + "\n")


def describe_files(folder, names):
    return {name: describe((folder / name).read_bytes()) for name in names}


def check(folder):
    """Checks that a folder is whole and loads as what it says it is.

    Raises:
        ValueError: If it does not.
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
    recipe = read_json(folder / "recipe.json")
    logits = logits_of(build(recipe, str(folder)), recipe)
    if not np.allclose(logits, published["logits"], **LOGITS):
        raise ValueError(
            f"The network in {folder} should give the logits of its "
            "fingerprint for the fixed images. "
            f"Received: {logits.tolist()}"
        )


def entry(folder, repository=None, commit=None):
    """A folder's `Network` for the registry.

    Args:
        folder: Path.
        repository: String. Defaults to the project's own on the Hub.
        commit: String. `None` if it has not been published.
    """
    recipe = read_json(folder / "recipe.json")
    result = read_json(folder / "result.json")
    return registry.Network(
        name=folder.name,
        builder=recipe["builder"],
        arguments=families.architecture(recipe["builder"], recipe["arguments"]),
        dataset=recipe["dataset"],
        classes=recipe["classes"],
        input_shape=list(recipe["input_shape"]),
        accuracy=round(100 - result["error"], 4),
        repository=repository or registry.repository(folder.name),
        commit=commit,
        files=describe_files(folder, FILES),
    )


def register(network):
    """Puts a network into the registry, in place of its last state.

    A published commit stays pinned as long as the files are those.
    """
    networks = {known.name: known for known in registry.read()}
    known = networks.get(network.name)
    if network.commit is None and known and known.files == network.files:
        return
    networks[network.name] = network
    registry.write(networks.values())


if __name__ == "__main__":
    command_line.run(main)
