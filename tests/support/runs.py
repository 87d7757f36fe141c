"""Real runs of `training/train.py`, in processes of their own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).parents[2]

# With momentum, moving averages, and augmentation, of a network that compiles
# fast; with enough steps that a signal comes in time.
TINY = (
    "--quiet",
    "--epochs=2",
    "--batch-size=16",
    "--save-every=5",
    "--set=builder=ResNet",
    "--set=arguments={'depth': 8}",
    "--set=average=0.9",
    "--set=mixup=0.2",
)

STEPS = 1437 // 16  # an epoch


def start(folder, *options, **environment):
    """Starts train.py, on one thread, under the backend of the tests."""
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "training" / "train.py"),
            f"--run-dir={folder}",
            *options,
        ],
        env={
            **os.environ,
            "XLA_FLAGS": "",  # compiled as for users
            "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code=0):
    """Waits for a process; returns what it printed."""
    output, _ = process.communicate(timeout=900)
    assert process.returncode == code, output
    return output


def wait_for_step(process, folder, step):
    """Waits until a checkpoint of that step, or of a later one, is there."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        names = [p.name for p in Path(folder).glob("checkpoints/*-*.npz")]
        if any(int(name.partition("-")[0]) >= step for name in names):
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    raise TimeoutError(f"no checkpoint of step {step} in {folder}")


def weights(path):
    """Every array of a `.weights.h5` file, by its place in it."""
    arrays = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = np.asarray(item)

    with h5py.File(path) as file:
        file.visititems(collect)
    return arrays


def assert_same_weights(first, second):
    """The two files hold the same bits."""
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert first
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
