"""Lesion studies: the error of a network without some of its blocks."""

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
    """Measures a network's error with blocks deleted, swapped or repeated.

    These are the experiments of Veit et al. 2016, section 4. Shortcuts stay,
    the network is not fine-tuned, and its statistics are not changed.

    - `"intact"`: the network as it is.
    - `"deletion"`: each block deleted by itself (figure 3).
    - `"branch"`: each branch of the blocks that have several, by itself.
    - `"deletions"`: `count` random blocks deleted (figure 5a, which leaves out
      the trials that touch the first block of a stage).
    - `"swaps"`: `count` random swaps in sequence, each of two blocks of one
      stage (figure 5b). As in the authors' code, neither the first block nor
      blocks that change the shape are swapped.
    - `"repetitions"`: `count` random blocks run twice, neither the first block
      nor blocks that change the shape.

    In a plain network, layers are deleted, swapped and repeated (see
    `plain_layers`).

    Blocks are compiled once for all lesions, and single deletions share the
    intact inputs of their block. Each trial has its own random generator,
    which depends on `seed`, the study, the count and the trial. A study can
    therefore be interrupted, resumed and extended.

    Args:
        model: functional `keras.Model` with an output of shape
            `(batch, classes)`.
        data: pair of arrays `(images, labels)`, or an iterable of such
            batches, which are concatenated in memory. Labels are ints, or
            one-hot rows.
        max_deletions: int. The largest number of random blocks to delete.
            Each number from 1 is measured. With 0, the study is left out.
            Defaults to `20`.
        max_swaps: int. Likewise for swaps. Defaults to `10`.
        max_repetitions: int. Likewise for repetitions. Defaults to `10`.
        trials: int. The number of random trials for each count. Defaults to
            `10`.
        branches: bool. Whether single branches are deleted too. Defaults to
            `False`.
        batch_size: int. In a network of `n` blocks, the activations of
            `n + 1` batches are in memory at a time. Defaults to `100`.
        seed: int, at least 0. Defaults to `0`.
        output: str or path of a CSV file. Each record is written to it as soon
            as it is known. Records that it already has are not measured again.
            Single deletions become known together. Until then, their counts
            are in a file beside it. Defaults to `None`, no file.
        name: str. The name of the network in the records. Defaults to `None`,
            the model's name.
        verbose: 0 or 1. Whether a progress bar is shown. Defaults to `1`.

    Returns:
        A list of dicts, the records. Their keys are `network`; `weights` and
        `data` (the start of their SHA-256); `study`, `count` and `trial`;
        `blocks` (names separated by spaces; for swaps, pair by pair; for a
        branch, the names of the block and the branch); `kendall_tau` (of the
        blocks' order, 1.0 without swaps); `error` (top-1, in percent);
        `examples` and `seed`.

    Raises:
        ValueError: If an argument is invalid, or if `output` has records of
            another network, other weights or data, or another seed.

    Example:

    ```python
    records = lesion_study(model, (x_test, y_test), output="lesions.csv")
    ```
    """
    most = {
        "deletions": max_deletions,
        "swaps": max_swaps,
        "repetitions": max_repetitions,
    }
    _check_arguments(most, trials, branches, batch_size, seed, verbose)
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
    if done:  # keeps the name in the file
        common["network"] = next(iter(done.values()))["network"]
    plans = list(_plans(chain, most, trials, branches, seed))
    for plan in plans:
        _check_blocks(plan, done.get(key(plan), plan), output)
    todo = [plan for plan in plans if key(plan) not in done]
    scorer = _Scorer(chain, images, labels, batch_size)
    for row in _measure_plans(todo, scorer, common, output, verbose):
        done[key(row)] = row
    return sorted((done[key(plan)] for plan in plans), key=_key_order)


def _check_arguments(most, trials, branches, batch_size, seed, verbose):
    for study, count in most.items():
        check_integer(f"max_{study}", count, 0)
    check_integer("trials", trials)
    check_integer("batch_size", batch_size)
    check_integer("seed", seed, 0)
    check_flag("branches", branches)
    check_choice("verbose", verbose, (0, 1))


def _measure_plans(todo, scorer, common, output, verbose):
    """Yields the record of each plan, after writing it to `output`."""
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


def _plans(chain, most, trials, branches, seed):
    """Yields what is measured, as dicts.

    A plan has the columns of a record that identify it, and what to run: the
    `"lesion"` of a single block, or else the `"layout"` of all blocks.

    Args:
        chain: `Chain`.
        most: dict from the studies of random blocks to the largest counts.
        trials, branches, seed: See `lesion_study`.
    """
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
        limit = most[study] if candidates else 0
        if study != "swaps":  # which may repeat
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
    """Yields the plans that delete one of several branches of a block."""
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
    """Returns the positions of blocks that keep the shape, except the first."""
    return [k for k, unit in enumerate(units) if k and unit.block.keeps_shape]


def _swappable(units):
    """Returns the positions of blocks in groups that can be swapped."""
    groups = {}
    for k in _movable(units):
        like = units[k].block.stage, units[k].block.input_shapes
        groups.setdefault(like, []).append(k)
    return [group for group in groups.values() if len(group) > 1]


def _kendall_tau(order):
    """Returns Kendall's rank correlation of a permutation with the identity."""
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
        """Returns the error of a layout."""
        wrong = 0
        for images, labels in self:
            outputs = self.runner.predict(images, plan["layout"])
            wrong += _mistakes(outputs, labels, plan)
            bar.add(1)
        return _percent(wrong, self.labels)

    def single_errors(self, plans, bar, tally):
        """Returns the errors of lesions of single blocks."""
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
        """Yields batches of one size. The last one is padded with copies."""
        for start in range(0, len(self.labels), self.batch_size):
            images = self.images[start : start + self.batch_size]
            labels = self.labels[start : start + self.batch_size]
            missing = self.batch_size - len(labels)
            if missing:
                filling = np.repeat(images[-1:], missing, axis=0)
                images = np.concatenate([images, filling])
            yield keras.ops.convert_to_tensor(images, self.dtype), labels


def _mistakes(outputs, labels, plan):
    """Counts the outputs of a plan whose largest value is another class's."""
    outputs = keras.ops.convert_to_numpy(outputs)[: len(labels)]
    done = f"{plan['study']} {plan['blocks']}".rstrip()
    check_outputs(outputs, f"a network ({done})")
    return int(np.sum(np.argmax(outputs, axis=-1) != labels))


def _percent(wrong, labels):
    return round(100.0 * int(wrong) / len(labels), 6)


def _check_blocks(plan, row, output):
    """Checks that a record is of the blocks that the plan has."""
    if row["blocks"] != plan["blocks"]:
        raise ValueError(
            "`output` should have records of the same blocks, "
            f"{plan['blocks']!r} for {key(plan)}. Received: output={output} "
            f"with {row['blocks']!r}"
        )
