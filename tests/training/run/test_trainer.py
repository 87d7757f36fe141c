"""The loss, the average and the loop around `fit`."""

import itertools
import json
import math
import signal

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

import disks
import runs
from keras_resfam.pretrained.files import WEIGHTS
from torch_compiler import TORCH, with_compiler
from training import recipes, train
from training.images import augmentation
from training.run import checkpoints, description, loop, reports, session
from training.run.network import build_network
from training.run.trainer import Trainer

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 8, 8, 1), dtype="uint8")
LABELS = RNG.integers(0, 10, 8).astype("int32")
RECIPE = recipes.find("digits").replace(batch_size=8)


class Linear(keras.layers.Layer):
    """A network as small as can be: logits linear in the pixels."""

    scale = 1.0
    regularizer = None

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(64, 10), regularizer=self.regularizer, name="kernel"
        )

    def call(self, x):
        return keras.ops.reshape(x / 255, (-1, 64)) @ self.kernel * self.scale


def trainer_of(recipe, **options):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((8, 8, 1)), Linear(**options)])
    trainer = Trainer(network, recipe, 10)
    trainer.compile_recipe(steps=1)
    return trainer


def log_softmax(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_training_loss_is_of_smoothed_and_mixed_labels():
    recipe = RECIPE.replace(label_smoothing=0.1, mixup=0.5, crop=0)
    trainer = trainer_of(recipe)
    draws = augmentation.draw(RNG, 8, mixup=0.5)
    kernel = np.array(trainer.network.get_weights()[0], "float64")
    history = trainer.fit(
        [IMAGES, draws],
        LABELS,
        batch_size=8,
        shuffle=False,
        verbose=0,
    )
    share = draws[:, augmentation.MIX, None].astype("float64")
    swap = np.arange(8) ^ 1
    pixels = IMAGES.reshape(8, 64) / 255
    pixels = share * pixels + (1 - share) * pixels[swap]
    targets = np.eye(10)[LABELS]
    targets = share * targets + (1 - share) * targets[swap]
    targets = 0.9 * targets + 0.1 / 10
    expected = -(targets * log_softmax(pixels @ kernel)).sum(axis=1).mean()
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"flip": True},
        {"crop": 2},
        {"crop": 2, "padding": "reflect"},
        {"jitter": 0.4},
        {"lighting": 0.1},
        {"cutout": 3},
    ],
    ids=str,
)
def test_training_images_are_changed_as_the_recipe_says(change):
    recipe = RECIPE.replace(flip=False, crop=0).replace(**change)
    network = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    fill = [10.0, 20.0, 30.0]
    trainer = Trainer(network, recipe, 10, fill=fill)
    pixels = RNG.integers(0, 256, (8, 8, 8, 3), dtype="uint8")
    draws = augmentation.draw(RNG, 8)
    found, expected = (
        keras.ops.convert_to_numpy(images)
        for images in (
            trainer.augment(pixels, draws),
            augmentation.augment(pixels, draws, fill=np.array(fill), **change),
        )
    )
    np.testing.assert_array_equal(found, expected)
    assert (found != pixels).any()


def test_evaluation_loss_is_of_the_labels_alone(monkeypatch):
    monkeypatch.setattr(Linear, "regularizer", keras.regularizers.L2(0.1))
    trainer = trainer_of(RECIPE.replace(label_smoothing=0.1, mixup=0.5))
    assert len(trainer.losses) == 1
    kernel = np.array(trainer.network.get_weights()[0], "float64")
    logs = log_softmax(IMAGES.reshape(8, 64) / 255 @ kernel)
    result = trainer.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    expected = -logs[np.arange(8), LABELS].mean()
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    right = (logs.argmax(axis=1) == LABELS).mean()
    assert result["accuracy"] == pytest.approx(right)


def test_weights_of_nothing_do_not_count():
    trainer = trainer_of(RECIPE)
    plain = trainer.evaluate(
        IMAGES[:5], LABELS[:5], verbose=0, return_dict=True
    )
    # 1 on average, as `batches.InOrder` makes them.
    weights = np.array([8 / 5] * 5 + [0] * 3, "float32")
    weighted = trainer.evaluate(
        IMAGES, LABELS, sample_weight=weights, verbose=0, return_dict=True
    )
    assert weighted["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert weighted["accuracy"] == pytest.approx(plain["accuracy"])


def test_average_follows_the_weights_that_steps_start_from():
    recipe = RECIPE.replace(average=0.75, crop=0, warmup=0, epochs=100)
    trainer = trainer_of(recipe)
    draws = augmentation.draw(RNG, 8)
    (weight,) = trainer.network.weights
    expected = np.array(keras.ops.convert_to_numpy(weight), "float64")
    for _ in range(4):
        start = np.array(keras.ops.convert_to_numpy(weight), "float64")
        expected += 0.25 * (start - expected)
        trainer.fit(
            [IMAGES, draws], LABELS, batch_size=8, shuffle=False, verbose=0
        )
    (average,) = trainer.averages
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(average), expected, rtol=1e-4, atol=1e-6
    )
    last = np.array(keras.ops.convert_to_numpy(weight))
    trainer.swap_averages()
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(weight), expected, rtol=1e-4, atol=1e-6
    )
    trainer.swap_averages()
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), last)


def test_float16_keeps_gradients_that_it_cannot_hold(monkeypatch):
    monkeypatch.setattr(Linear, "scale", 2.0**-20)
    draws = augmentation.draw(RNG, 8)
    steps = []
    for precision in ("float32", "mixed_float16"):
        trainer = trainer_of(
            RECIPE.replace(
                precision=precision,
                crop=0,
                learning_rate=1e4,
                weight_decay=0.0,
                schedule="steps",
                warmup=0,
            ),
            dtype=precision,
        )
        start = trainer.network.get_weights()[0]
        trainer.fit(
            [IMAGES, draws], LABELS, batch_size=8, shuffle=False, verbose=0
        )
        steps.append(trainer.network.get_weights()[0] - start)
    assert abs(steps[0]).max() > 1e-4
    np.testing.assert_allclose(steps[1], steps[0], rtol=0.05, atol=1e-5)


# A network that compiles fast.
SMALL = {"builder": "ResNet", "arguments": {"depth": 8}}


def prepared(folder, steps_per_execution=1, seed=0, **changes):
    recipe = (
        recipes.find("digits").with_epochs(1).replace(**{**SMALL, **changes})
    )
    return session.prepare(
        recipe, folder, seed, steps_per_execution=steps_per_execution
    )


def test_a_folder_says_by_what_its_run_is_trained(tmp_path):
    """Also where nothing is left of what was begun by other means."""
    run = prepared(tmp_path)
    path = tmp_path / "recipe.json"
    now = json.loads(path.read_text())
    path.write_text(json.dumps({**now, "backend": "mxnet", "command": "begun"}))
    description.note_other_environment(run)
    assert json.loads(path.read_text()) == now
    begun = {**now, "keras": "3.0", "command": "begun"}
    path.write_text(json.dumps(begun))
    run.epoch, run.batch = 0, 2
    description.note_other_environment(run)
    told = json.loads(path.read_text())
    (continued,) = told.pop("continued")
    assert told == begun
    assert (continued["batch"], continued["keras"]) == (2, keras.__version__)


def prepared_on_arrays(folder, **changes):
    """Eight classes in arrays of 8x8 pixels, some of which are changed."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{letter}_{part}": array
        for part in ("train", "test")
        for letter, array in (
            ("x", rng.integers(0, 256, (32, 8, 8, 1), "uint8")),
            ("y", np.arange(32) % 8),
        )
    }
    np.savez(folder / "mine.npz", **{**arrays, **changes})
    recipe = recipes.find("digits").with_epochs(1)
    recipe = recipe.replace(**SMALL, dataset="mine", batch_size=16)
    return session.prepare(recipe, folder / "run", data_dir=folder)


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    prepared_on_arrays(tmp_path)
    prepared_on_arrays(tmp_path)
    labels = np.arange(32)[::-1] % 8
    with pytest.raises(ValueError, match="a run with training_data=.*Received"):
        prepared_on_arrays(tmp_path, y_train=labels)
    with pytest.raises(ValueError, match="with evaluation_data=.*Received"):
        prepared_on_arrays(tmp_path, y_test=labels)
    images = np.zeros((32, 8, 8, 1), "uint8")
    with pytest.raises(ValueError, match="with evaluation_data=.*Received"):
        prepared_on_arrays(tmp_path, x_test=images)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": "1"},
        {"epoch": 9},
        {"batch": -1},
        {"batch": 10**6},
        {"seconds": None},
        {"meters": [1.0]},
        {"meters": None},
        {"rows": [{}]},
        {"rows": [3]},
        {"rows": [{"epoch": 1, "val_accuracy": "high"}]},
    ],
)
def test_a_forged_state_is_refused(tmp_path, changes):
    run = prepared(tmp_path)
    meters = [float(m) for m in run.trainer.meters()]
    state = {"epoch": 0, "batch": 1, "seconds": 1.0, "meters": meters}
    state["rows"] = []
    before = run.step
    arrays = run.state()
    with pytest.raises(checkpoints.CheckpointError, match="not written by tra"):
        run._set_state(arrays, state | changes)
    with pytest.raises(checkpoints.CheckpointError, match="another network"):
        run._set_state([a.astype("U") for a in arrays], state)
    assert run.step == before
    run._set_state(arrays, state)
    assert run.step == 1


@pytest.mark.parametrize(
    "text",
    ["", "epoch\n1\n", "epoch,val_accuracy\n1,high\n", "epoch,val_accuracy\n1"],
)
def test_an_edited_log_is_a_line(tmp_path, text):
    run = prepared(tmp_path)
    (run.folder / WEIGHTS).touch()
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(SystemExit, match="log.csv should be as train.py wrote"):
        train.train(run, verbose=0)


@pytest.mark.parametrize("complete", [False, True])
def test_the_folder_is_looked_at_again_under_its_lock(tmp_path, complete):
    """Another process has begun a run there, or ended one."""
    mine = prepared(tmp_path / "mine")
    other = prepared(tmp_path / "other", seed=1)
    path = tmp_path / "mine" / "recipe.json"
    path.write_text((tmp_path / "other" / "recipe.json").read_text())
    if complete:
        (mine.folder / WEIGHTS).touch()
        (mine.folder / "log.csv").write_text("epoch,val_accuracy\n1,1.0\n")
    with pytest.raises(SystemExit, match="has a run with seed=1"):
        train.train(mine, verbose=0)
    assert other.step == mine.step == 0


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        (np.zeros(32, int), "up to 0$"),
        (1 + np.arange(32) % 8, "up to 8, but none of 0$"),
        (10 * (np.arange(32) % 2), "up to 10, but none of 1, 2, 3, 4, 5, ...$"),
        (
            (2**31 - 1) * (np.arange(32) % 2),
            "up to 2147483647, but none of 1, 2, 3, 4, 5, ...$",
        ),
        (np.arange(32) % 8 + 2**32, "from 4294967296 to"),
        (np.arange(32) % 8 - 1, "from -1 to"),
    ],
)
def test_labels_that_do_not_count_classes_are_refused(
    tmp_path, labels, received
):
    with pytest.raises(ValueError, match=f"labels.*Received: .*{received}"):
        prepared_on_arrays(tmp_path, y_train=labels, y_test=labels)
    assert not (tmp_path / "run").exists()


def test_a_description_that_is_cut_off_is_named(tmp_path):
    prepared_on_arrays(tmp_path)
    path = tmp_path / "run/recipe.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="run/recipe.json.*Received"):
        prepared_on_arrays(tmp_path)


def test_test_images_of_another_shape_are_refused(tmp_path):
    larger = np.zeros((32, 9, 9, 1), "uint8")
    with pytest.raises(ValueError, match=r"of test .*\(8, 8, 1\).*\(9, 9, 1\)"):
        prepared_on_arrays(tmp_path, x_test=larger)
    assert not (tmp_path / "run").exists()


def prepared_for_three(folder, evaluate_every=1):
    """A run of three epochs of five steps."""
    recipe = recipes.find("digits").replace(**SMALL, batch_size=256)
    return session.prepare(
        recipe.with_epochs(3), folder, evaluate_every=evaluate_every
    )


def note_saves(run, monkeypatch):
    """Returns a list that the steps of a run's checkpoints will be added to."""
    steps, save = [], run.save

    def noted(arrays):
        steps.append(run.step)
        save(arrays)

    monkeypatch.setattr(run, "save", noted)
    return steps


class Clock:
    """Time that passes by one second at each look."""

    def __init__(self):
        self.perf_counter = itertools.count().__next__


def test_evaluations_some_epochs_apart(tmp_path, monkeypatch):
    """The second and the last of three epochs have one, and a checkpoint."""
    monkeypatch.setattr(loop, "time", Clock())
    often = prepared_for_three(tmp_path / "often")
    seldom = prepared_for_three(tmp_path / "seldom", evaluate_every=2)
    saved = note_saves(seldom, monkeypatch)
    rows, kept = often.train(verbose=0), seldom.train(verbose=0)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["epoch"] for row in kept] == [2, 3]
    assert saved == [2 * 5, 3 * 5]
    for row, same in zip(rows[1:], kept, strict=True):
        assert same["val_loss"] == row["val_loss"]
        assert same["loss"] == row["loss"]
    # A look at each of 5 steps and at the end; the row is of two epochs.
    assert [row["seconds"] for row in kept] == [2 * 6, 6]
    for one, other in zip(often.state(), seldom.state(), strict=True):
        np.testing.assert_array_equal(other, one)


def test_a_stop_between_evaluations_is_saved(tmp_path, monkeypatch):
    undisturbed = prepared_for_three(tmp_path / "undisturbed")
    undisturbed.train(verbose=0)
    run = prepared_for_three(tmp_path / "run", evaluate_every=3)

    def at_the_end_of_an_epoch():
        run.signal = signal.SIGTERM
        return run.batch == 0

    monkeypatch.setattr(run, "asked_to_stop", at_the_end_of_an_epoch)
    with pytest.raises(loop.Interrupted, match="epoch 2, batch 0"):
        run.train(verbose=0)
    again = prepared_for_three(tmp_path / "run", evaluate_every=3)
    again.restore()
    assert (again.epoch, again.batch, again.rows) == (1, 0, [])
    assert again.seconds > 0
    (row,) = again.train(verbose=0)
    assert row["val_loss"] == undisturbed.rows[-1]["val_loss"]


@pytest.mark.skipif(TORCH, reason="Keras has it on TensorFlow and JAX alone")
def test_steps_of_one_execution_are_the_same_steps(tmp_path, monkeypatch):
    """Of 22 steps, ten at a time: then two are left."""
    alone = prepared(tmp_path / "alone")
    together = prepared(tmp_path / "together", steps_per_execution=10)
    together.save_every = 3
    saved = note_saves(together, monkeypatch)
    (row,), (same,) = alone.train(verbose=0), together.train(verbose=0)
    assert alone.epochs.steps == 22
    assert saved == [10, 20, 22]
    for name in ("loss", "accuracy", "val_loss", "learning_rate"):
        assert same[name] == pytest.approx(row[name], rel=1e-4)
    for one, other in zip(alone.state(), together.state(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not TORCH, reason="of PyTorch")
def test_steps_of_one_execution_are_refused_on_torch(tmp_path):
    with pytest.raises(ValueError, match="Received: steps_per_execution=2"):
        prepared(tmp_path / "run", steps_per_execution=2)
    assert not (tmp_path / "run").exists()


def test_non_finite_loss_stops_with_its_place(tmp_path):
    run = prepared(tmp_path, learning_rate=1e30, warmup=0)
    with pytest.raises(loop.NonFiniteLoss, match="after step [2-9] .epoch 1"):
        run.train(verbose=0)
    assert not list(tmp_path.glob("checkpoints/*"))
    assert not (tmp_path / "model.weights.h5").exists()


def test_an_evaluation_that_is_not_finite_stops_too(tmp_path, monkeypatch):
    run = prepared(tmp_path)
    found = {"accuracy": 0.1, "loss": float("nan")}
    monkeypatch.setattr(run.trainer, "evaluate", lambda *_, **__: found)
    with pytest.raises(loop.NonFiniteLoss, match="evaluation loss is nan"):
        run.train(verbose=0)
    assert not (tmp_path / "log.csv").exists()
    assert not (tmp_path / "model.weights.h5").exists()


def test_weights_spoilt_by_the_last_step_are_not_kept(tmp_path):
    """The loss of an epoch's only step is that before it."""
    run = prepared(
        tmp_path,
        batch_size=1437,
        learning_rate=3e38,
        weight_decay=10,
        warmup=0,
    )
    run.choose = True
    with pytest.raises(loop.NonFiniteLoss, match="after step 1 .epoch 1"):
        run.train(verbose=0)
    assert not list(tmp_path.glob("checkpoints/*"))
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.parametrize("what", ["reports.write", "save_weights"])
def test_disk_without_room_stops_the_run_in_a_line(tmp_path, monkeypatch, what):
    name = what.split(".")[-1]
    place = loop.reports if "." in what else loop
    write = getattr(place, name)

    def without_room(*arguments):
        with disks.room_for(10_000):
            write(*arguments)

    run = prepared(tmp_path, batch_size=1437)
    monkeypatch.setattr(place, name, without_room)
    with pytest.raises(checkpoints.CheckpointError, match="a full disk"):
        run.train(verbose=0)
    assert not list(tmp_path.glob("*.h5"))


def test_complete_run_is_left_as_it_is(tmp_path):
    rows = prepared(tmp_path, batch_size=1437).train(verbose=0)
    for checkpoint in tmp_path.glob("checkpoints/*"):
        checkpoint.write_bytes(b"damaged")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    again = prepared(tmp_path, batch_size=1437)
    again.restore()
    assert again.train(verbose=0) == [pytest.approx(row) for row in rows]
    after = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    assert after == before


def test_records_behind_one_that_found_no_room_are_read(tmp_path):
    for epoch in (1, 2):
        reports.write_events(tmp_path, {"epoch": epoch, "loss": 0.5})
    path = next(tmp_path.glob("events*"))
    with disks.room_for(path.stat().st_size + 20), pytest.raises(OSError):
        reports.write_events(tmp_path, {"epoch": 3, "loss": 0.5})
    for epoch in (3, 4):
        reports.write_events(tmp_path, {"epoch": epoch, "loss": 0.5})
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4]


def test_folder_of_another_run_is_refused(tmp_path):
    prepared(tmp_path)
    with pytest.raises(ValueError, match="has a run with mixup=0.0"):
        prepared(tmp_path, mixup=0.2)


def test_a_restart_leaves_the_network_of_its_first_cycle(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    changes = {"average": 0.5, "batch_size": 256, "warmup": 0}
    prepared(one, **changes).train(verbose=0)
    prepared(two, **changes, epochs=2, restarts=(1,)).train(verbose=0)
    runs.assert_same_weights(
        one / "model.weights.h5", two / "epoch_1.weights.h5"
    )


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only PyTorch has such orders"
)
def test_all_variables_are_contiguous(tmp_path):
    """PyTorch's fused kernel wants so; a restored checkpoint leaves them so."""
    prepared(tmp_path, average=0.5, batch_size=256).train(verbose=0)
    (tmp_path / "model.weights.h5").unlink()
    run = prepared(tmp_path, average=0.5, batch_size=256)
    run.restore()
    assert run.epoch == 1
    for variable in [*run.trainer.variables, *run.trainer.optimizer.variables]:
        assert variable.value.is_contiguous(), variable.path


@with_compiler
def test_a_compiled_run_learns_the_same(tmp_path):
    """Penalties, modulation, averages and evaluation take part."""
    changes = {
        "builder": "OrthoPlainNet",
        "arguments": {"depth": 8, "orthonormality": 0.1},
        "batch_size": 256,
        "average": 0.5,
        "warmup": 0,
    }
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        prepared(folder, compiled=compiled, **changes).train(verbose=0)
    (rows, weights), (fast_rows, fast_weights) = (
        (reports.read(folder), runs.weights(folder / "model.weights.h5"))
        for folder in (tmp_path / "False", tmp_path / "True")
    )
    for key in ("loss", "val_loss"):
        assert fast_rows[0][key] == pytest.approx(rows[0][key], rel=1e-3)
    for name, array in weights.items():
        np.testing.assert_allclose(fast_weights[name], array, atol=2e-3)


ENDING = {
    "builder": "OrthoPlainNet",
    "arguments": {"depth": 8, "orthonormality": 0.1, "initializer": "he"},
    "batch_size": 256,
    "warmup": 0,
    "epochs": 2,
    "modulation_epochs": 1,
    "penalty_schedule": ((1, 0.0),),
    "log_moments": True,
}


def arrays_of(run):
    return [keras.ops.convert_to_numpy(w) for w in run.trainer.network.weights]


def test_modulation_and_penalties_end(tmp_path):
    """As if the run went on with a network that never had them.

    And a run that is stopped there goes on without them.
    """
    run = prepared(tmp_path / "whole", **ENDING)
    first = []
    save = run.save

    def noted(arrays):
        first.append([np.array(a) for a in arrays])
        save(arrays)

    run.save = noted
    run.train(verbose=0)
    assert run.trainer.network.losses and not run.trainer.losses
    ratios = [row["moment_ratio"] for row in run.rows]
    assert 0 < min(ratios) and ratios[0] != ratios[1]

    never = ENDING | {"modulation_epochs": None, "penalty_schedule": ()}
    without = {"orthonormality": 0.0, "modulation": False}
    never["arguments"] = ENDING["arguments"] | without
    other = prepared(tmp_path / "never", **never)
    state = {"epoch": 1, "batch": 0, "seconds": 0.0}
    state |= {"meters": [0.0] * 4, "rows": run.rows[:1]}
    other._set_state(first[0], state)
    other.train(verbose=0)
    for a, b in zip(arrays_of(run), arrays_of(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert run.rows[1]["loss"] == pytest.approx(other.rows[1]["loss"], rel=1e-4)

    again = prepared(tmp_path / "again", **ENDING)
    again._set_state(first[0], state)
    again.train(verbose=0)
    for a, b in zip(arrays_of(run), arrays_of(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_best_epoch_is_not_the_last(tmp_path, monkeypatch):
    run = prepared_for_three(tmp_path)
    run.choose = True
    scores = iter([0.5, 0.8, 0.6])
    monkeypatch.setattr(
        run.trainer,
        "evaluate",
        lambda *arguments, **options: {"loss": 1.0, "accuracy": next(scores)},
    )
    written, save = [], run.save_result

    def noted(name):
        written.append((name, run.rows[-1]["epoch"]))
        save(name)

    monkeypatch.setattr(run, "save_result", noted)
    run.train(verbose=0)
    best, last = "best.weights.h5", "model.weights.h5"
    assert written == [(best, 1), (best, 2), (last, 3)]


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_noted_for_the_end_of_a_step(tmp_path, kind):
    run = prepared(tmp_path)
    before = signal.getsignal(kind)
    with run._recording_signals():
        signal.raise_signal(kind)
        assert run.signal == kind
    assert signal.getsignal(kind) is before
    with pytest.raises(loop.Interrupted, match=f"^{kind.name}: .* batch 1;"):
        run.train(verbose=0)


def test_held_out_examples_choose_the_best_epoch(tmp_path):
    recipe = recipes.find("digits").replace(
        **SMALL,
        epochs=2,
        batch_size=256,
        validation=200,
        average=0.5,
        precision="mixed_bfloat16",
    )
    run = session.prepare(recipe, tmp_path)
    assert run.epochs.steps == (1437 - 200) // 256
    rows = run.train(verbose=0)
    keras.config.set_dtype_policy("float32")
    network = build_network(
        recipe.builder, recipe.arguments, 10, (8, 8, 1), "digits"
    )
    best = max(range(2), key=lambda epoch: rows[epoch]["val_accuracy"])
    files = {"best.weights.h5": best, "model.weights.h5": 1}
    for file, epoch in files.items():
        network.load_weights(tmp_path / file)
        logits = network.predict(run.evaluation.images, verbose=0)
        accuracy = (logits.argmax(axis=1) == run.evaluation.labels).mean()
        # bfloat16 may turn an answer or two.
        assert accuracy == pytest.approx(rows[epoch]["val_accuracy"], abs=0.011)
    description = json.loads((tmp_path / "recipe.json").read_text())
    assert description["seed"] == 0
    assert description["input_shape"] == [8, 8, 1]
    assert math.isfinite(rows[-1]["loss"])
    for name in ("log.csv", "curves.png"):
        assert (tmp_path / name).exists(), name
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    told = [(event.step, event.value) for event in events.Scalars("loss")]
    assert told == [(k + 1, pytest.approx(rows[k]["loss"])) for k in range(2)]
