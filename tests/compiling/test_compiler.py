"""What PyTorch has compiled, and kept on disk, for another processor."""

import os
import pathlib
import subprocess
import sys

import pytest

import keras_resfam
from keras_resfam.compiling import compiler
from torch_compiler import torch_only

SCRIPT = """
import keras
import numpy as np

import keras_resfam

keras.utils.set_random_seed(0)
layers = [
    keras.Input((6, 6, 3)),
    keras_resfam.layers.Conv2D(8, 3),
    keras.layers.GlobalAveragePooling2D(),
    keras.layers.Dense(4, "softmax"),
]
model = keras.Sequential(layers)
x = np.random.default_rng(0).normal(size=(3, 6, 6, 3)).astype("float32")
expected = model.predict_on_batch(x)
found = keras_resfam.compiled(model).predict_on_batch(x)
np.testing.assert_allclose(found, expected, rtol=1e-4)
"""


@torch_only
def test_programs_are_kept_by_instruction_set_and_threads(tmp_path):
    """And each is found again, of which there would be none to share."""

    def programs(capability, threads):
        """Predicts in a process of its own; then, how many there are."""
        settings = {
            "ATEN_CPU_CAPABILITY": capability,
            "OMP_NUM_THREADS": threads,
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        }
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, **settings},
            check=True,
        )
        return len(list(tmp_path.glob("fxgraph/*/*")))

    kinds = [("avx2", "1"), ("default", "1"), ("avx2", "2"), ("avx2", "1")]
    assert [programs(*kind) for kind in kinds] == [1, 2, 3, 3]


@torch_only
@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_the_width_is_what_pytorch_would_choose(capability, monkeypatch):
    """By a name of PyTorch's that may move."""
    from torch._inductor import config, cpu_vec_isa

    monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    chosen = cpu_vec_isa.pick_vec_isa()
    with config.patch({"cpp.simdlen": compiler.vector_width()}):
        assert cpu_vec_isa.pick_vec_isa() == chosen


def test_all_that_is_compiled_goes_one_way():
    package = pathlib.Path(keras_resfam.__file__).parent
    calls = [
        path.name
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if "torch.compile(" in line
    ]
    assert calls == ["compiler.py"]
