"""Compares complete runs: a row of a table for each setting."""

import dataclasses
import pathlib
import statistics

from keras_resfam.models import families
from keras_resfam.pretrained.files import RECIPE
from training.run import description, reports, run_folder

# What a log has to have, and what is taken from it.
_COLUMNS = "accuracy", "val_accuracy", "seconds"
_RESULTS = "error", "training_error", "minutes", "moment_ratio"


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """The settings and the results of a complete run.

    Args:
        folder: Path.
        settings: dict. The fields of its recipe that the result depends on,
            and `arguments.<name>` for each argument of its builder.
        seed: int.
        error: float. Percent, in the last row of the log.
        training_error: float. Percent, of augmented images, in the last row.
        minutes: float.
        moment_ratio: float or `None`. In the last row, with `log_moments`.
    """

    folder: pathlib.Path
    settings: dict
    seed: int
    error: float
    training_error: float
    minutes: float
    moment_ratio: float | None


def read(folders):
    """Reads the complete runs among some folders.

    Args:
        folders: list of paths, of runs or of folders of `weights/`.

    Returns:
        A pair: a list of `FinishedRun`, and a list of strings that say which
        folders are left out, and why.

    Raises:
        ValueError: If a folder is no run, or a file in it is damaged.
    """
    runs, left_out = [], []
    for folder in map(pathlib.Path, folders):
        if not (folder / RECIPE).is_file():
            raise ValueError(
                f"each of `runs` should be a folder with a {RECIPE}, as "
                f"train.py writes it. Received: {folder}"
            )
        if not run_folder.is_complete(folder):
            left_out.append(f"{folder} is not complete")
            continue
        run = _read(folder)
        same = [x.folder for x in runs if _key(x) == _key(run)]
        if same:
            left_out.append(f"{folder} repeats {same[0]}, seed {run.seed}")
        else:
            runs.append(run)
    return runs, left_out


def _read(folder):
    recipe = description.read(folder / RECIPE)
    if "seed" not in recipe:
        raise ValueError(
            f"{folder / RECIPE} should have the seed of the run. Received: no "
            "`seed`"
        )
    log = reports.read(folder, _COLUMNS)
    last = log[-1]
    return FinishedRun(
        folder,
        _settings(recipe),
        recipe["seed"],
        error=100 * (1 - last["val_accuracy"]),
        training_error=100 * (1 - last["accuracy"]),
        minutes=sum(row["seconds"] for row in log) / 60,
        moment_ratio=last.get("moment_ratio"),
    )


def _settings(recipe):
    fields = description.fields(recipe)
    arguments = families.defaults(recipe["builder"]) | fields.pop("arguments")
    return {
        **fields,
        **{f"arguments.{name}": value for name, value in arguments.items()},
    }


def _key(run):
    return run.settings, run.seed


def table(runs):
    """Returns a table in Markdown, a row for each setting.

    Args:
        runs: list of `FinishedRun`.
    """
    groups = _groups(runs)
    names = _columns([group[0].settings for group in groups])
    moments = all(run.moment_ratio is not None for run in runs)
    header = [*names, "seeds", f"{_images(runs)}error", "training error"]
    header += ["minutes", *["moment ratio"] * moments]
    lines = [header, ["---"] * len(header)]
    lines += [_row(group, names, moments) for group in groups]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(runs, names, moments):
    """Returns the cells of the runs of one setting."""
    columns = {
        field: [getattr(run, field) for run in runs] for field in _RESULTS
    }
    cells = [str(runs[0].settings.get(name, "–")) for name in names]
    cells += [
        ", ".join(str(run.seed) for run in runs),
        _spread(columns["error"]),
        _spread(columns["training_error"]),
        f"{statistics.fmean(columns['minutes']):.0f}",
    ]
    if moments:
        cells.append(
            f"{statistics.geometric_mean(columns['moment_ratio']):.2g}"
        )
    return cells


def _groups(runs):
    """Returns lists of the runs of one setting each, in their order."""
    groups = []
    for run in runs:
        for group in groups:
            if group[0].settings == run.settings:
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def _columns(settings):
    """Returns the names of the settings that distinguish the rows.

    These are the recipe's name, where there are several, and what differs
    between the rows of one recipe. Two recipes differ in too many fields for
    a table.
    """
    recipes = {}
    for setting in settings:
        recipes.setdefault(setting["name"], []).append(setting)
    columns = ["name"] if len(recipes) > 1 else []
    for rows in recipes.values():
        for name, value in rows[0].items():
            differs = any(row.get(name) != value for row in rows)
            if differs and name not in columns:
                columns.append(name)
    return columns


def _images(runs):
    """Returns what all errors were measured on, or "" if that differs."""
    names = {
        "held-out " if run.settings["validation"] else "test " for run in runs
    }
    return names.pop() if len(names) == 1 else ""


def _spread(errors):
    """Returns the mean in percent, and the standard deviation of several."""
    text = f"{statistics.fmean(errors):.2f}"
    if len(errors) > 1:
        text += f" ± {statistics.stdev(errors):.2f}"
    return f"{text} %"


def write(path, runs):
    """Writes a row for each run to a CSV file.

    Args:
        path: Path.
        runs: list of `FinishedRun`.
    """
    names = _columns([run.settings for run in runs])
    rows = [
        {
            "folder": run.folder,
            **{name: run.settings.get(name) for name in names},
            "seed": run.seed,
            **{field: getattr(run, field) for field in _RESULTS},
        }
        for run in runs
    ]
    reports.write_csv(path, rows)
