"""What a person sees of the backends when a command starts."""

import csv
import json
import os
import subprocess
import sys

import keras
import pytest

from training.startup import backend

TENSORFLOWS = (
    "WARNING: All log messages before absl::InitializeLog() is called are "
    "written to STDERR\n"
    "I0000 00:00:1796077346.837042   18459 cudart_stub.cc:31] Could not find "
    "cuda drivers on your machine, GPU will not be used.\n"
    "2026-01-31 12:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN "
    "custom operations are on.\n"
    "To enable the following instructions: AVX2 FMA, in other operations, "
    "rebuild TensorFlow with the appropriate compiler flags.\n"
)
WARNING = "library.py:3: FutureWarning: something changes\n"


@pytest.mark.parametrize(
    ("level", "seen"),
    [(None, WARNING), ("3", WARNING), ("0", TENSORFLOWS + WARNING)],
)
def test_only_the_log_is_kept_back(level, seen, monkeypatch, capfd):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    with backend.quiet():
        os.write(2, (TENSORFLOWS + WARNING).encode())
    os.write(2, b"later\n")
    assert capfd.readouterr().err == seen + "later\n"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == (level or "3")


def test_stderr_is_back_after_an_error(monkeypatch, capfd):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with pytest.raises(ImportError), backend.quiet():
        os.write(2, WARNING.encode())
        raise ImportError
    os.write(2, b"later\n")
    assert capfd.readouterr().err == WARNING + "later\n"


def run(arguments, root, home, **environment):
    """Runs a command as users do, with a keras.json of theirs."""
    home.mkdir(exist_ok=True)
    config = {"image_data_format": "channels_first"}
    (home / "keras.json").write_text(json.dumps(config))
    environment = {**os.environ, "KERAS_HOME": str(home), **environment}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_a_first_run_prints_nothing_but_its_own(tmp_path, pytestconfig):
    """Also where a user's images are channels first."""
    root, folder = pytestconfig.rootpath, tmp_path / "run"
    options = (
        *("--epochs=1", "--quiet", "--set=train_split=train[:128]"),
        *("--set=builder=ResNet", "--set=arguments={'depth': 8}"),
    )
    trained = run(
        ["-m", "training.train", f"--run-dir={folder}", *options],
        root,
        tmp_path / "home",
    )
    assert (trained.returncode, trained.stderr) == (0, "")
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["command"].startswith("python -m training.train --run-dir=")
    measured = run(
        ["training/evaluate.py", str(folder)], root, tmp_path / "home"
    )
    assert (measured.returncode, measured.stderr) == (0, "")
    with open(folder / "log.csv") as file:
        (row,) = csv.DictReader(file)
    assert json.loads(measured.stdout)["accuracy"] == pytest.approx(
        100 * float(row["val_accuracy"]), abs=0.3
    )


def test_commands_are_channels_last():
    keras.config.set_image_data_format("channels_first")
    try:
        backend.start()
        assert keras.config.image_data_format() == "channels_last"
    finally:
        keras.config.set_image_data_format("channels_last")


WITHOUT_TENSORFLOW = """
import runpy, sys
sys.modules["tensorflow"] = None  # importing it fails
module, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "command",
    [
        ("training.train",),
        ("training.evaluate", "runs/digits"),
        ("training.analyse", "runs/digits", "--benchmark"),
        ("training.package", "runs/digits"),
        ("training.publish", "weights/dmrnet_8_digits"),
        ("training.benchmarks.input_pipeline", "--recipe=digits"),
    ],
)
def test_a_backend_that_is_missing_ends_in_a_line(
    command, tmp_path, pytestconfig
):
    done = run(
        ["-c", WITHOUT_TENSORFLOW, *command],
        pytestconfig.rootpath,
        tmp_path / "home",
        KERAS_BACKEND="",
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert '".[tensorflow]", ".[jax]", ".[torch]"' in line
    assert "Received: backend=tensorflow" in line
