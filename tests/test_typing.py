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
"""


def test_the_stub_is_that_of_the_signatures():
    """If not: `python tests/support/write_stub.py`."""
    written, made = write_stub.STUB.read_text(), write_stub.stub()
    assert ast.dump(ast.parse(written)) == ast.dump(ast.parse(made))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", None),
        ("keras_resfam.DMRNet(deph=14)", "deph"),
        ('keras_resfam.DMRNet(depth="14")', "depth"),
        ("keras_resfam.WideResNet51_2()", "WideResNet51_2"),
    ],
)
def test_a_users_program_is_checked(line, complaint, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    program = folder / "program.py"
    program.write_text(f"{USER}{line}\n")
    cache = folder / "mypy"  # the first case fills it for the others
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", f"--cache-dir={cache}", str(program)],
        cwd=write_stub.PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    if complaint is None:
        assert checked.returncode == 0, checked.stdout
    else:
        assert checked.returncode == 1
        assert complaint in checked.stdout.splitlines()[0]
