"""Weights saved on one backend give the same logits on the others.

Each backend reads what the next one has written: the three runs of the suite
compare all pairs.
"""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np

from families import images, predict
from write_networks import networks

NEXT = {"tensorflow": "jax", "jax": "torch", "torch": "tensorflow"}


def test_logits_of_another_backend(tmp_path):
    other = NEXT[keras.backend.backend()]
    script = pathlib.Path(__file__).parents[1] / "support" / "write_networks.py"
    subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": other},
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "backend.txt").read_text() == other
    x = images(4, (16, 16, 3))
    compared = 0
    for name, model in networks():
        model.load_weights(tmp_path / f"{name}.weights.h5")
        logits = np.load(tmp_path / f"{name}.npy")
        assert logits.std() > 0.1
        np.testing.assert_allclose(predict(model, x), logits, atol=1e-4)
        compared += 1
    assert compared == len(list(tmp_path.glob("*.npy"))) == 10
