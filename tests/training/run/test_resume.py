"""Runs that are killed, stopped or damaged, and go on."""

import json
import signal

import keras
import pytest

import runs
from torch_compiler import torch_only
from training.run import reports


def log(folder):
    rows = reports.read(folder)
    for row in rows:
        del row["seconds"]
    return rows


# Besides momentum, averages and augmentation: the state of random layers.
OPTIONS = (
    *runs.TINY,
    "--set=builder=WideResNet",
    "--set=arguments={'depth': 10, 'width': 1, 'dropout': 0.3}",
    "--set=drop_blocks={'active': 2}",
)


def test_interrupted_run_ends_as_an_undisturbed_one(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    undisturbed = runs.start(whole, *OPTIONS)

    process = runs.start(broken, *OPTIONS)
    runs.wait_for_step(process, broken, 10)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    process = runs.start(broken, *OPTIONS)
    runs.wait_for_step(process, broken, runs.STEPS + 1)
    process.send_signal(signal.SIGTERM)
    output = runs.finish(process, code=128 + signal.SIGTERM)
    assert "Continuing from epoch 1, batch" in output
    assert "SIGTERM: stopped and saved at epoch 2, batch" in output
    newest = max((broken / "checkpoints").glob("*-*.npz"))
    saved = int(newest.name.partition("-")[0])
    assert f"saved at epoch 2, batch {saved - runs.STEPS};" in output

    # Damage the newest: the run goes on from the one before.
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    output = runs.finish(runs.start(broken, *OPTIONS))
    assert f"{newest} is damaged" in output
    assert "% of the test images are classified correctly" in output

    runs.finish(undisturbed)
    runs.assert_same_weights(
        whole / "model.weights.h5", broken / "model.weights.h5"
    )
    assert log(whole) == log(broken)


def test_a_run_goes_on_with_another_backend(tmp_path):
    backends = ["jax", "tensorflow", "torch", "jax"]
    here = keras.backend.backend()
    elsewhere = backends[backends.index(here) + 1]
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    options = (*runs.TINY, "--batch-size=64")  # few steps to drift apart in
    undisturbed = runs.start(whole, *options)
    process = runs.start(moved, *options, KERAS_BACKEND=elsewhere)
    runs.wait_for_step(process, moved, 10)
    process.send_signal(signal.SIGTERM)
    runs.finish(process, code=128 + signal.SIGTERM)
    begun = json.loads((moved / "recipe.json").read_text())
    output = runs.finish(runs.start(moved, *options))
    assert "Continuing from epoch 1, batch" in output
    runs.finish(undisturbed)
    told = json.loads((moved / "recipe.json").read_text())
    (continued,) = told.pop("continued")
    assert told == begun and begun["backend"] == elsewhere
    assert continued["backend"] == here
    assert f"epoch 1, batch {continued['batch']}." in output
    assert "continued" not in json.loads((whole / "recipe.json").read_text())
    for there, row in zip(log(moved), log(whole), strict=True):
        for name, value in row.items():
            assert float(there[name]) == pytest.approx(float(value), rel=0.02)


@torch_only
def test_killed_compiled_run_ends_as_an_undisturbed_one(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = (*runs.TINY, "--set=compiled=True")
    undisturbed = runs.start(whole, *options)
    process = runs.start(broken, *options)
    runs.wait_for_step(process, broken, 10)
    process.kill()
    process.communicate()
    output = runs.finish(runs.start(broken, *options))
    assert "Continuing from epoch 1, batch" in output
    runs.finish(undisturbed)
    runs.assert_same_weights(
        whole / "model.weights.h5", broken / "model.weights.h5"
    )
