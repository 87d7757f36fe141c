"""Reads and writes a run's `recipe.json`."""

import dataclasses
import json

import keras

from keras_resfam._files import write_json
from keras_resfam.pretrained.files import RECIPE
from keras_resfam.pretrained.recipe import check, is_text, parse
from training.recipes.recipe import Recipe, check_type
from training.run import checkpoints, run_folder
from training.startup import command_line

# The fields of a recipe that evaluate.py and model cards need.
NEEDED = "name", "test_split", "epochs", "source", "error", "note"

# The fields of recipe.json that may differ while the run stays the same.
FREE = {
    *("backend", "command", "compiled", "continued", "keras"),
    *("error", "note", "source"),
}


def describe(recipe, seed, task, preprocessing):
    """Returns the contents of a run's `recipe.json`."""
    description = {
        **dataclasses.asdict(recipe),
        "classes": task.classes,
        "input_shape": list(task.input_shape),
        "steps_per_epoch": task.epochs.steps,
        "preprocessing": preprocessing,
        **({"class_names": task.class_names} if task.class_names else {}),
        "seed": seed,
        **environment(recipe),
        "training_data": task.checksum,
        "evaluation_data": task.evaluation_checksum,
    }
    # As JSON returns it: tuples become lists.
    return json.loads(json.dumps(description))


def read(path):
    """Reads a recipe.json, of a run or in a folder of weights/.

    Args:
        path: Path.

    Returns:
        A dict. It has what `pretrained.recipe.parse` returns, "classes",
        "preprocessing" and the `NEEDED` fields of a recipe. All fields of a
        recipe in it have their types; a seed is an int.

    Raises:
        ValueError: If it does not. The message names the file and the field.
    """
    try:
        description = parse(path.read_bytes())
        for field in ("classes", "preprocessing", *NEEDED):
            check(description, field, lambda value: True, "given")
        if "seed" in description:
            check(description, "seed", lambda v: type(v) is int, "an integer")
        for field in dataclasses.fields(Recipe):
            if field.name in description:
                value = description[field.name]
                check_type(field.name, field.type, value)
        for part in [description, *_continued(description)]:
            check(part, "command", is_text, "a command")
        if description.get("validation"):
            check(description, "train_split", is_text, "a split")
    except ValueError as error:
        raise ValueError(
            f"{path} should be as train.py writes it. {error}"
        ) from error
    return description


def _continued(description):
    """Returns the parts of a run that were trained in other environments."""
    parts = description.get("continued", [])
    if not isinstance(parts, list) or not all(
        isinstance(part, dict)
        and type(part.get("epoch")) is type(part.get("batch")) is int
        for part in parts
    ):
        raise ValueError(
            "`continued` should be a list of objects with the epoch and the "
            f"batch from which the run continued. Received: continued={parts!r}"
        )
    return parts


def environment(recipe):
    """Returns what a run is trained with, which may change when it resumes."""
    return {
        "backend": keras.backend.backend(),
        "compiled": recipe.compiled,
        "keras": keras.__version__,
        "command": command_line.invocation(),
    }


def fields(description):
    """Returns what the weights of a run depend on, besides its seed.

    If the file is older than a field, it has the default of the field.

    Args:
        description: dict, as in recipe.json.
    """
    names = {field.name for field in dataclasses.fields(Recipe)}
    names |= {"training_data", "evaluation_data"}
    return {
        name: value
        for name, value in _with_defaults(description).items()
        if name in names - FREE
    }


def differences(begun, now):
    """Compares two recipe.json by the fields that identify a run.

    If a file is older than a field, it has the default of the field.

    Args:
        begun, now: dicts, as in recipe.json.

    Returns:
        A dict from the names of the fields that differ to pairs of values.
    """
    begun, now = _with_defaults(begun), _with_defaults(now)
    return {
        name: (begun[name], now[name])
        for name in sorted((begun.keys() & now.keys()) - FREE)
        if begun[name] != now[name]
    }


def _with_defaults(description):
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(Recipe)
        if field.default is not dataclasses.MISSING
    }
    # As JSON has them: tuples become lists.
    return json.loads(json.dumps(defaults)) | description


def check_same_run(folder, description):
    """Checks that a folder does not have another run."""
    path = folder / RECIPE
    if not path.exists():
        return
    begun = read(path)
    for key, (there, here) in differences(begun, description).items():
        raise ValueError(
            f"{folder} has a run with {key}={there!r}: give the same command "
            f"to continue it, or another `--run-dir`. Received: {key}={here!r}"
        )


def write_description(folder, description):
    """Writes `recipe.json` at the start of a run."""
    if not (folder / RECIPE).exists():
        _write_description(folder, description)


def note_other_environment(run):
    """Adds the environment to `recipe.json` if it has changed.

    It consists of the backend, the version of Keras, and whether the network is
    compiled. If no step was saved before, it replaces the old one.
    """
    if run_folder.is_complete(run.folder):
        return
    path = run.folder / RECIPE
    description = read(path)
    continued = description.pop("continued", []) if run.step else []
    before, now = [description, *continued][-1], environment(run.trainer.recipe)
    if all(before.get(key) == now[key] for key in now.keys() - {"command"}):
        return
    if run.step:
        place = {"epoch": run.epoch + 1, "batch": run.batch}
        description["continued"] = [*continued, {**place, **now}]
    else:
        description |= now
    _write_description(run.folder, description)


def _write_description(folder, description):
    with checkpoints.writing(RECIPE, folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECIPE, description)
