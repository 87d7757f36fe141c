"""What editors and type checkers know of the package."""

import ast
import subprocess
import sys

import pytest

import write_stub

pytestmark = pytest.mark.backend_independent

USER = """\
import keras

import keras_resfam
from keras_resfam import analysis

model: keras.Model = keras_resfam.DMRNet(depth=14, weights="cifar10")
backbone = keras_resfam.WideResNet(16, 4, include_top=False, pooling="avg")
fast = keras_resfam.compiled(keras_resfam.fold_batch_norm(model))
names = keras_resfam.decode_predictions(model.predict([]), "cifar10", top=1)
lengths = analysis.path_lengths(model)
trained = keras_resfam.list_weights("DMRNet")
triple = keras_resfam.WideResNet(40, 2, block=(3, 3, 3), blocks=4)
plain = keras_resfam.OrthoPlainNet(modulation=2.0)
"""


def test_the_stub_is_that_of_the_signatures():
    """If not: `python tests/support/write_stub.py`."""
    written, made = write_stub.STUB.read_text(), write_stub.stub()
    assert ast.dump(ast.parse(written)) == ast.dump(ast.parse(made))


MISTAKES = {
    "deph": "keras_resfam.DMRNet(deph=14)",
    "depth": 'keras_resfam.DMRNet(depth="14")',
    "WideResNet51_2": "keras_resfam.WideResNet51_2()",
}


def test_users_programs_are_checked(tmp_path):
    """One without a mistake, and one with each, in a run of mypy."""
    for name, line in {"right": "", **MISTAKES}.items():
        (tmp_path / f"program_{name}.py").write_text(f"{USER}{line}\n")
    programs = sorted(map(str, tmp_path.glob("program_*.py")))
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--no-error-summary"),
            *(f"--cache-dir={tmp_path / 'mypy'}", *programs),
        ],
        cwd=write_stub.PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 1, checked.stderr
    errors = [x for x in checked.stdout.splitlines() if ": error: " in x]
    assert len(errors) == len(MISTAKES), checked.stdout
    last = len(USER.splitlines()) + 1
    for name in MISTAKES:
        (error,) = (x for x in errors if f"program_{name}.py:{last}:" in x)
        assert name in error.partition(": error: ")[2]
