"""Lesion studies: what a network can lose, swap or repeat (Veit, section 4)."""

import keras
import numpy as np

from keras_resfam._checks import (
    check_choice,
    check_file,
    check_flag,
    check_integer,
    check_outputs,
    check_text,
)
from keras_resfam.analysis import surgery
from keras_resfam.analysis.data import (
    check_classifier,
    check_fit,
    class_numbers,
    digest,
    digest_data,
    read_data,
)
from keras_resfam.analysis.execution import BlockRunner
from keras_resfam.analysis.plain import chain_of
from keras_resfam.analysis.records import TYPES, Tally, Writer, key, resume

_STUDIES = ("intact", "deletion", "branch", "deletions", "swaps", "repetitions")


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
    check_flag("branches", branches)
    check_choice("verbose", verbose, (0, 1))
    if output is not None:
        check_file("output", output)
    if name is not None:
        check_text("name", name)
    images, labels = read_data(data)
    chain = chain_of(model, images.shape[1:])
    check_fit("data", images, model)
    check_classifier(chain)
    labels = class_numbers("data", labels, chain)
    common = {
        "network": name or model.name,
        "weights": digest(model.get_weights()),
        "data": digest_data(images, labels, chain),
        "examples": len(labels),
        "seed": seed,
    }
    done = resume(output, common, named=name is not None)
    if done:  # goes by the name that the file has
        common["network"] = next(iter(done.values()))["network"]
    asked = list(
        _plans(
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
        _check_blocks(plan, done.get(key(plan), plan), output)
    todo = [plan for plan in asked if key(plan) not in done]
    scorer = _Scorer(chain, images, labels, batch_size)
    for row in _measure_plans(todo, scorer, common, output, verbose):
        done[key(row)] = row
    return sorted((done[key(plan)] for plan in asked), key=_key_order)


def _measure_plans(todo, scorer, common, output, verbose):
    """Yields the record of each plan, which `output` has by then."""
    singles = [plan for plan in todo if "lesion" in plan]
    others = [plan for plan in todo if "layout" in plan]
    blocks = len(scorer.runner.chain.units)
    steps = scorer.batches * (len(others) + bool(singles) * blocks)
    bar = keras.utils.Progbar(max(steps, 1), verbose=verbose)
    lesions = [plan["lesion"] for plan in singles]
    identity = {**common, "batch_size": scorer.batch_size}
    tally = Tally(output, identity, lesions)
    with Writer(output) as write:
        for plan in others:
            error = scorer.error(plan, bar)
            yield write(_record_of(plan, error, common))
        if singles:
            errors = scorer.single_errors(singles, bar, tally)
            for plan, error in zip(singles, errors, strict=True):
                yield write(_record_of(plan, error, common))
        tally.remove()


def _key_order(row):
    return _STUDIES.index(row["study"]), row["count"], row["trial"]


def _record_of(plan, error, common):
    row = {name: plan[name] for name in TYPES if name in plan}
    row = {**row, **common, "error": error}
    return {name: row[name] for name in TYPES}


def _plans(chain, *, seed, trials, branches, **most):
    """All that a study measures: dicts of what is done and how it is known."""
    units = chain.units
    yield _plan("intact", 0, 0, (), layout=surgery.intact(chain))
    for k, unit in enumerate(units):
        yield _plan("deletion", 1, k, [unit.block.name], lesion=(k, ()))
    if branches:
        yield from _single_branches(units)
    for study, draw, candidates in (
        ("deletions", _draw_deletions, range(len(units))),
        ("swaps", _draw_swaps, _swappable(units)),
        ("repetitions", _draw_repetitions, _movable(units)),
    ):
        limit = most[f"max_{study}"] if candidates else 0
        if study != "swaps":
            limit = min(limit, len(candidates))
        for count in range(1, limit + 1):
            for trial in range(trials):
                entropy = [seed, _STUDIES.index(study), count, trial]
                random = np.random.default_rng(entropy)
                drawn = draw(chain, candidates, count, random)
                yield _plan(study, count, trial, **drawn)


def _plan(study, count, trial, blocks, tau=1.0, **work):
    return {
        "study": study,
        "count": count,
        "trial": trial,
        "blocks": " ".join(blocks),
        "kendall_tau": tau,
        **work,
    }


def _single_branches(units):
    trial = 0
    for k, unit in enumerate(units):
        names = list(unit.block.branches)
        for name in names if len(names) > 1 else ():
            kept = tuple(other for other in names if other != name)
            blocks = [unit.block.name, name]
            yield _plan("branch", 1, trial, blocks, lesion=(k, kept))
            trial += 1


def _draw_deletions(chain, candidates, count, random):
    chosen = random.choice(candidates, count, replace=False)
    names = [chain.units[k].block.name for k in sorted(chosen)]
    return {"blocks": names, "layout": surgery.deletion(chain, names)}


def _draw_repetitions(chain, candidates, count, random):
    chosen = sorted(random.choice(candidates, count, replace=False))
    return {
        "blocks": [chain.units[k].block.name for k in chosen],
        "layout": surgery.duplication(chain, chosen),
    }


def _draw_swaps(chain, candidates, count, random):
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
        "tau": _kendall_tau(order),
        "layout": surgery.permutation(order),
    }


def _movable(units):
    """The positions of all blocks that keep the shape but the first."""
    return [k for k, unit in enumerate(units) if k and unit.block.keeps_shape]


def _swappable(units):
    """Groups of the positions of blocks that could take each other's place."""
    groups = {}
    for k in _movable(units):
        like = units[k].block.stage, units[k].block.input_shapes
        groups.setdefault(like, []).append(k)
    return [group for group in groups.values() if len(group) > 1]


def _kendall_tau(order):
    """Kendall's rank correlation of a permutation with the sorted order."""
    order = np.asarray(order)
    later, earlier = np.tril_indices(len(order), -1)
    return float(np.mean(np.sign(order[later] - order[earlier])))


class _Scorer:
    """Measures top-1 errors, in percent, over all batches of a data set."""

    def __init__(self, chain, images, labels, batch_size):
        self.runner = BlockRunner(chain)
        self.images, self.labels = images, labels
        self.batch_size = min(batch_size, len(labels))
        self.dtype = chain.graph.inputs[0].dtype
        self.batches = -(-len(labels) // self.batch_size)

    def error(self, plan, bar):
        wrong = 0
        for images, labels in self:
            outputs = self.runner.predict(images, plan["layout"])
            wrong += _mistakes(outputs, labels, plan)
            bar.add(1)
        return _percent(wrong, self.labels)

    def single_errors(self, plans, bar, tally):
        lesions = [plan["lesion"] for plan in plans]
        done, wrong = tally.read()
        for number, (images, labels) in enumerate(self, start=1):
            if number > done:
                outputs = self.runner.predict_single_deletions(images, lesions)
                found = (
                    _mistakes(y, labels, plan)
                    for y, plan in zip(outputs, plans, strict=True)
                )
                wrong = [a + b for a, b in zip(wrong, found, strict=True)]
                tally.write(number, wrong)
            bar.add(len(self.runner.chain.units))
        return [_percent(count, self.labels) for count in wrong]

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


def _mistakes(outputs, labels, plan):
    """How many outputs of a plan, a dict of `_plans`, are of another class."""
    outputs = keras.ops.convert_to_numpy(outputs)[: len(labels)]
    done = f"{plan['study']} {plan['blocks']}".rstrip()
    check_outputs(outputs, f"a network ({done})")
    return int(np.sum(np.argmax(outputs, axis=-1) != labels))


def _percent(wrong, labels):
    return round(100.0 * int(wrong) / len(labels), 6)


def _check_blocks(plan, row, output):
    if row["blocks"] != plan["blocks"]:
        raise ValueError(
            "`output` should hold records of the same blocks, "
            f"{plan['blocks']!r} for {key(plan)}. Received: output={output} "
            f"with {row['blocks']!r}"
        )
