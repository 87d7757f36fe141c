"""Lesion studies: what a network can lose, swap or repeat (Veit, section 4)."""

import csv
import hashlib
import json
import pathlib
import re

import keras
import numpy as np

from keras_resfam.analysis import surgery
from keras_resfam.analysis.blocks import chain_of
from keras_resfam.analysis.execution import BlockRunner
from keras_resfam.checks import check_integer
from keras_resfam.files import replacing

TYPES = {
    "network": str,
    "weights": str,
    "data": str,
    "study": str,
    "count": int,
    "trial": int,
    "blocks": str,
    "kendall_tau": float,
    "error": float,
    "examples": int,
    "seed": int,
}
STUDIES = ("intact", "deletion", "branch", "deletions", "swaps", "repetitions")


def lesion_study(
    model,
    data,
    *,
    max_deletions=20,
    max_swaps=10,
    max_repetitions=10,
    trials=10,
    branches=False,
    batch_size=100,
    seed=0,
    output=None,
    name=None,
    verbose=1,
):
    """Measures a network's error with its blocks deleted, swapped, repeated.

    The protocols of Veit et al. 2016, section 4: no fine-tuning, statistics
    untouched, shortcuts kept.

    - `"intact"`: the network as it is.
    - `"deletion"`: every block by itself (figure 3).
    - `"branch"`: every branch of the blocks that have several, by itself.
    - `"deletions"`: `count` random blocks at once (figure 5a, which leaves
      out the trials that touch the first block of a stage).
    - `"swaps"`: `count` random swaps, one after another, each of two blocks
      of one stage (figure 5b). Neither the first block takes part nor those
      that change the shape, as in the authors' code.
    - `"repetitions"`: `count` random blocks of those run twice.

    A plain network is studied by deleting, swapping and repeating its layers
    (see `plain_layers`).

    Blocks are compiled once, for all lesions; the single deletions start from
    the intact inputs of their block. Every trial has a random generator of
    its own, made from `seed`, the study, the count and the trial, so that a
    study can be stopped, resumed and extended at will.

    Example:

    ```python
    records = lesion_study(model, (x_test, y_test), output="lesions.csv")
    ```

    Args:
        model: functional `keras.Model` that classifies: its output is of
            shape `(batch, classes)`.
        data: tuple `(images, labels)` of arrays, or an iterable of such
            batches, which are put together in memory. Labels are ints, or
            one-hot rows.
        max_deletions: int. Random deletions are made of 1, 2, ... blocks up
            to this many. 0 leaves the study out. Defaults to `20`.
        max_swaps: int, likewise. Defaults to `10`.
        max_repetitions: int, likewise. Defaults to `10`.
        trials: int. Random trials for each count. Defaults to `10`.
        branches: bool. Whether single branches are deleted too. Defaults to
            `False`.
        batch_size: int. Memory for the activations of `n + 1` such batches
            is needed in a network of `n` blocks. Defaults to `100`.
        seed: int, at least 0. Defaults to `0`.
        output: path or `None`. A CSV file that takes a row for each record
            as soon as it is known. Rows that it already has are not measured
            again. What has been counted of the single deletions, which become
            known together, is in a file beside it until then. Defaults to
            `None`.
        name: str or `None`. What the records call the network. Defaults to
            the model's name.
        verbose: 0 or 1. Whether a progress bar is shown. Defaults to `1`.

    Returns:
        A list of dicts with the keys `network`, `weights` and `data` (the
        start of their SHA-256), `study`, `count`, `trial`, `blocks` (names
        with spaces between; of swaps, pair by pair; of a branch, its block's
        and its own), `kendall_tau` (of the
        blocks' order against the network's own; 1.0 unless swapped), `error`
        (top-1, in percent), `examples` and `seed`.

    Raises:
        ValueError: If an argument is not allowed, or if `output` holds records
            of another network, other weights or data, or another seed.
    """
    for argument, value, minimum in (
        ("max_deletions", max_deletions, 0),
        ("max_swaps", max_swaps, 0),
        ("max_repetitions", max_repetitions, 0),
        ("trials", trials, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        check_integer(argument, value, minimum)
    images, labels = read_data(data)
    chain = chain_of(model, images.shape[1:])
    check_classifier(chain)
    labels = class_numbers(labels, chain)
    common = {
        "network": name or model.name,
        "weights": digest(model.get_weights()),
        "data": digest_data(images, labels, chain),
        "examples": len(labels),
        "seed": seed,
    }
    done = resume(output, common, named=name is not None)
    for row in done.values():
        common["network"] = row["network"]
    asked = list(
        plans(
            chain,
            max_deletions=max_deletions,
            max_swaps=max_swaps,
            max_repetitions=max_repetitions,
            trials=trials,
            branches=branches,
            seed=seed,
        )
    )
    for plan in asked:
        check_blocks(plan, done.get(key(plan), plan), output)
    todo = [plan for plan in asked if key(plan) not in done]
    scorer = Scorer(chain, images, labels, batch_size)
    singles = [plan for plan in todo if "lesion" in plan]
    others = [plan for plan in todo if "layout" in plan]
    steps = scorer.batches * (len(others) + bool(singles) * len(chain.units))
    bar = keras.utils.Progbar(max(steps, 1), verbose=verbose)
    lesions = [plan["lesion"] for plan in singles]
    tally = Tally(output, {**common, "batch_size": batch_size}, lesions)
    with Writer(output) as write:
        for plan in others:
            error = scorer.error(plan["layout"], bar)
            done[key(plan)] = write(record(plan, error, common))
        if singles:
            errors = scorer.single_errors(lesions, bar, tally)
            for plan, error in zip(singles, errors, strict=True):
                done[key(plan)] = write(record(plan, error, common))
        tally.remove()
    return sorted((done[key(plan)] for plan in asked), key=key_order)


def key(row):
    return row["study"], row["count"], row["trial"]


def key_order(row):
    return STUDIES.index(row["study"]), row["count"], row["trial"]


def record(plan, error, common):
    row = {name: plan[name] for name in TYPES if name in plan}
    row = {**row, **common, "error": error}
    return {name: row[name] for name in TYPES}


def plans(chain, *, seed, trials, branches, **most):
    """All that a study measures: dicts of what is done and how it is known."""
    units = chain.units
    yield plan("intact", 0, 0, (), layout=surgery.intact(chain))
    for k, unit in enumerate(units):
        yield plan("deletion", 1, k, [unit.block.name], lesion=(k, ()))
    if branches:
        yield from single_branches(units)
    for study, draw, candidates in (
        ("deletions", draw_deletions, range(len(units))),
        ("swaps", draw_swaps, swappable(units)),
        ("repetitions", draw_repetitions, movable(units)),
    ):
        limit = most[f"max_{study}"] if candidates else 0
        if study != "swaps":
            limit = min(limit, len(candidates))
        for count in range(1, limit + 1):
            for trial in range(trials):
                entropy = [seed, STUDIES.index(study), count, trial]
                random = np.random.default_rng(entropy)
                drawn = draw(chain, candidates, count, random)
                yield plan(study, count, trial, **drawn)


def plan(study, count, trial, blocks, tau=1.0, **work):
    return {
        "study": study,
        "count": count,
        "trial": trial,
        "blocks": " ".join(blocks),
        "kendall_tau": tau,
        **work,
    }


def single_branches(units):
    trial = 0
    for k, unit in enumerate(units):
        names = list(unit.block.branches)
        for name in names if len(names) > 1 else ():
            kept = tuple(other for other in names if other != name)
            blocks = [unit.block.name, name]
            yield plan("branch", 1, trial, blocks, lesion=(k, kept))
            trial += 1


def draw_deletions(chain, candidates, count, random):
    chosen = random.choice(candidates, count, replace=False)
    names = [chain.units[k].block.name for k in sorted(chosen)]
    return {"blocks": names, "layout": surgery.deletion(chain, names)}


def draw_repetitions(chain, candidates, count, random):
    chosen = sorted(random.choice(candidates, count, replace=False))
    return {
        "blocks": [chain.units[k].block.name for k in chosen],
        "layout": surgery.duplication(chain, chosen),
    }


def draw_swaps(chain, candidates, count, random):
    order = list(range(len(chain.units)))
    sizes = np.array([len(group) for group in candidates])
    swapped = []
    for _ in range(count):
        group = random.choice(len(candidates), p=sizes / sizes.sum())
        a, b = sorted(random.choice(candidates[group], 2, replace=False))
        swapped += [chain.units[order[k]].block.name for k in (a, b)]
        order[a], order[b] = order[b], order[a]
    return {
        "blocks": swapped,
        "tau": kendall_tau(order),
        "layout": surgery.permutation(order),
    }


def movable(units):
    """The positions of all blocks that keep the shape but the first."""
    return [k for k, unit in enumerate(units) if k and unit.block.keeps_shape]


def swappable(units):
    """Groups of the positions of blocks that could take each other's place."""
    groups = {}
    for k in movable(units):
        like = units[k].block.stage, units[k].block.input_shapes
        groups.setdefault(like, []).append(k)
    return [group for group in groups.values() if len(group) > 1]


def kendall_tau(order):
    """Kendall's rank correlation of a permutation with the sorted order."""
    order = np.asarray(order)
    later, earlier = np.tril_indices(len(order), -1)
    return float(np.mean(np.sign(order[later] - order[earlier])))


def check_classifier(chain):
    shape = chain.graph.outputs[0].shape
    if len(shape) != 2 or shape[-1] == 1:
        raise ValueError(
            "`model` should have an output of shape (batch, classes), of two "
            f"classes at least. Received: output shape={shape}"
        )


class Scorer:
    """Measures top-1 errors, in percent, over all batches of a data set."""

    def __init__(self, chain, images, labels, batch_size):
        self.runner = BlockRunner(chain)
        self.images, self.labels = images, labels
        self.batch_size = min(batch_size, len(labels))
        self.dtype = chain.graph.inputs[0].dtype
        self.batches = -(-len(labels) // self.batch_size)

    def error(self, layout, bar):
        wrong = 0
        for images, labels in self:
            outputs = self.runner.predict(images, layout)
            wrong += mistakes(outputs, labels)
            bar.add(1)
        return percent(wrong, self.labels)

    def single_errors(self, lesions, bar, tally):
        done, wrong = tally.read()
        for number, (images, labels) in enumerate(self, start=1):
            if number > done:
                outputs = self.runner.predict_single_deletions(images, lesions)
                found = (mistakes(y, labels) for y in outputs)
                wrong = [a + b for a, b in zip(wrong, found, strict=True)]
                tally.write(number, wrong)
            bar.add(len(self.runner.chain.units))
        return [percent(count, self.labels) for count in wrong]

    def __iter__(self):
        """Yields batches of one size: the last is filled up with copies."""
        for start in range(0, len(self.labels), self.batch_size):
            images = self.images[start : start + self.batch_size]
            labels = self.labels[start : start + self.batch_size]
            missing = self.batch_size - len(labels)
            if missing:
                filling = np.repeat(images[-1:], missing, axis=0)
                images = np.concatenate([images, filling])
            yield keras.ops.convert_to_tensor(images, self.dtype), labels


def mistakes(outputs, labels):
    outputs = keras.ops.convert_to_numpy(outputs)[: len(labels)]
    return int(np.sum(np.argmax(outputs, axis=-1) != labels))


def percent(wrong, labels):
    return round(100.0 * int(wrong) / len(labels), 6)


def arrays(data, chain):
    """Images, and labels as the numbers of a chain's classes."""
    images, labels = read_data(data)
    return images, class_numbers(labels, chain)


def class_numbers(labels, chain):
    """Labels as integers, which may be one-hot rows.

    Raises:
        ValueError: If they are something else, or not of the classes.
    """
    classes = chain.graph.outputs[0].shape[-1]
    if labels.ndim == 2 and labels.shape[1] == classes:
        labels = labels.argmax(-1)
    numbers = labels.reshape(-1)
    if len(numbers) != len(labels) or not np.all(
        (0 <= numbers) & (numbers < classes) & (numbers == np.floor(numbers))
    ):
        raise ValueError(
            f"Labels should be integers within 0 and {classes - 1}, the "
            "classes of `model`, or one-hot rows of as many. Received: labels "
            f"of shape {labels.shape} from {labels.min()} to {labels.max()}"
        )
    return numbers.astype("int64")


def read_data(data):
    """Images and labels as two arrays."""
    pair = isinstance(data, tuple) or (
        isinstance(data, list) and all(hasattr(x, "shape") for x in data)
    )
    if pair and len(data) == 2:
        images, labels = (keras.ops.convert_to_numpy(part) for part in data)
    else:
        batches = [
            [keras.ops.convert_to_numpy(part) for part in batch[:2]]
            for batch in data
        ]
        images, labels = (
            np.concatenate([batch[k] for batch in batches] or [[]])
            for k in range(2)
        )
    if not len(images) or len(images) != len(labels):
        raise ValueError(
            "There should be as many images as labels, at least one. "
            f"Received: {len(images)} images, {len(labels)} labels"
        )
    return images, labels


def digest(arrays):
    """The start of the SHA-256 of some arrays, in their order."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def digest_data(images, labels, chain):
    """The digest of data as the network takes them, whatever their type."""
    dtype = chain.graph.inputs[0].dtype
    if dtype == "bfloat16":  # which NumPy does not know
        dtype = "float32"
    return digest([*(image.astype(dtype) for image in images), labels])


def read_records(path):
    """Reads the records that `lesion_study` wrote to a CSV file.

    Args:
        path: path of the file.

    Returns:
        A list of dicts, as `lesion_study` returns it.

    Raises:
        ValueError: If the file has other columns.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames not in (None, list(TYPES)):
            raise ValueError(
                f"`path` should be a file with the columns {', '.join(TYPES)}. "
                f"Received: {path} with {', '.join(rows.fieldnames)}"
            )
        return [
            {name: kind(row[name]) for name, kind in TYPES.items()}
            for row in rows
        ]


def check_blocks(plan, row, output):
    if row["blocks"] != plan["blocks"]:
        raise ValueError(
            "`output` should hold records of the same blocks, "
            f"{plan['blocks']!r} for {key(plan)}. Received: output={output} "
            f"with {row['blocks']!r}"
        )


def resume(path, common, named=True):
    """The records that a file already holds, by key.

    Args:
        path: path or `None`.
        common: dict. What records of the study have in common.
        named: bool. Whether the network's name is the user's: of one of
            Keras's the number behind it does not count. Defaults to `True`.
    """

    def identity(row):
        network = row["network"]
        if not named:
            network = re.sub(r"_\d+$", "", network)
        return {**{name: row[name] for name in common}, "network": network}

    if path is None or not pathlib.Path(path).exists():
        return {}
    drop_half_line(pathlib.Path(path))
    rows = read_records(path)
    for row in rows:
        if identity(row) != identity(common):
            raise ValueError(
                f"`output` should hold records of {identity(common)}, or not "
                f"exist. Received: output={path} with records of "
                f"{identity(row)}"
            )
    return {key(row): row for row in rows}


def drop_half_line(path):
    """Removes what a full disk or a power cut left of a record."""
    text, header = path.read_bytes(), ",".join(TYPES).encode()
    whole = text[: text.rfind(b"\n") + 1]
    if text != whole and (text.startswith(header) or header.startswith(text)):
        path.write_bytes(whole)


class Tally:
    """Mistakes counted so far, in a file beside the records while it lasts.

    Args:
        output: path of the records, or `None` for no file.
        study: dict. What is measured: counts of another are of no use.
        lesions: list. What the counts are of.
    """

    def __init__(self, output, study, lesions):
        self.path = output and pathlib.Path(f"{output}.partial")
        study = json.dumps({**study, "lesions": lesions}, default=int)
        self.study = json.loads(study)

    def read(self):
        """Returns how many batches were counted, and the counts."""
        if self.path and self.path.exists():
            kept = json.loads(self.path.read_text())
            if kept["study"] == self.study:
                return kept["batches"], kept["wrong"]
        return 0, [0] * len(self.study["lesions"])

    def write(self, batches, wrong):
        if self.path:
            kept = {"study": self.study, "batches": batches, "wrong": wrong}
            with replacing(self.path) as partial:
                partial.write_text(json.dumps(kept))

    def remove(self):
        if self.path:
            self.path.unlink(missing_ok=True)


class Writer:
    """Appends records to a CSV file, one by one, if there is a path."""

    def __init__(self, path):
        self.path = path and pathlib.Path(path)

    def __enter__(self):
        self.file = None
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists() or not self.path.stat().st_size
            self.file = open(self.path, "a", newline="", encoding="utf-8")
            self.rows = csv.DictWriter(self.file, list(TYPES))
            if new:
                self.rows.writeheader()
        return self.write

    def write(self, row):
        if self.file:
            self.rows.writerow(row)
            self.file.flush()
        return row

    def __exit__(self, *_):
        if self.file:
            self.file.close()
