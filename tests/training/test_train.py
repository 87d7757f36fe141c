"""The command, as a user gives it."""

import json
import re
import subprocess
import sys

import pytest

import runs
from training import recipes, train
from training.run import run_folder

COMMANDS = (
    *("train", "evaluate", "analyse", "package", "publish", "demo"),
    "benchmark",
)


def test_default_reads_digits_above_99_percent(tmp_path, capsys):
    output = runs.finish(runs.start(tmp_path))
    last = output.strip().splitlines()[-1]
    found = re.fullmatch(
        r"(\d+\.\d+) % of the test images are classified correctly\. "
        r"The run is in (.+)",
        last,
    )
    assert float(found[1]) > 99
    assert found[2] == str(tmp_path)
    assert "Epoch 20/20" in output
    assert "22/22" in output  # the progress bar
    description = json.loads((tmp_path / "recipe.json").read_text())
    assert description["command"].endswith(f"--run-dir={tmp_path}")
    assert (tmp_path / "model.weights.h5").is_file()

    # Complete, it is not trained again.
    train.main([f"--run-dir={tmp_path}"])
    again = capsys.readouterr().out.strip().splitlines()
    assert again[-1] == last
    assert not any(line.startswith("Epoch") for line in again)


def test_list_shows_every_recipe(capsys):
    train.main(["--list"])
    printed = capsys.readouterr().out
    for name in recipes.RECIPES:
        assert f"\n{name} " in printed
    train.main(["--list", "dmrnet_14"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 5
    assert all(row.startswith("dmrnet_14_") for row in rows)


@pytest.mark.parametrize("script", COMMANDS)
def test_backend_is_chosen_before_keras_is_imported(script, pytestconfig):
    code = f"import sys, training.{script}; assert 'keras' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=pytestconfig.rootpath,
        check=True,
    )


def test_options_change_the_recipe():
    options = train.parse_arguments(
        "--recipe wrn_28_10_cifar10 --epochs 3 --batch-size 32 "
        "--precision mixed_bfloat16 --set arguments.width=1".split()
    )
    recipe = train.chosen_recipe(options)
    assert (recipe.epochs, recipe.batch_size) == (3, 32)
    assert recipe.precision == "mixed_bfloat16"
    assert recipe.arguments == {"depth": 28, "width": 1}


def test_another_length_keeps_the_shape_of_the_schedule():
    recipe = recipes.find("dmrnet_56_cifar10")
    assert recipe.drops == (200, 300, 350)
    assert recipe.with_epochs(40).drops == (20, 30, 35)
    assert recipe.with_epochs(1).drops == ()
    options = train.parse_arguments(
        "--recipe dmrnet_56_cifar10 --epochs 8".split()
    )
    assert train.chosen_recipe(options).drops == (4, 6, 7)
    digits = recipes.find("digits")
    assert (digits.epochs, digits.warmup) == (20, 2)
    assert digits.with_epochs(1).warmup == pytest.approx(0.1)
    assert digits.replace(restarts=(10,)).with_epochs(8).restarts == (4,)


@pytest.mark.parametrize("epochs", [1, 2, 300])
def test_another_length_leaves_as_much_of_the_random_weights(epochs):
    recipe = recipes.find("dmrnet_14_cifar10_short")
    other = recipe.with_epochs(epochs)
    left = other.average ** (epochs * 390)
    assert left == pytest.approx(recipe.average ** (80 * 390), rel=1e-6)
    assert (
        recipes.find("digits").replace(average=0.0).with_epochs(1).average == 0
    )


def test_a_folder_in_which_another_trains_is_left(tmp_path):
    small = ["--set=builder=ResNet", "--set=arguments={'depth': 8}"]
    with (
        run_folder.lock_folder(tmp_path),
        pytest.raises(SystemExit, match="Another process trains in"),
    ):
        train.main([f"--run-dir={tmp_path}", *small])
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--recipe", "wrn"], "Received: --recipe wrn"),
        (["--epochs", "0"], "Received: epochs=0"),
        (["--epochs", "-2"], "Received: epochs=-2"),
        (["--set=arguments=3", "--set=arguments.depth=8"], "arguments=3"),
        (["--set=validation=2000"], "Received: validation=2000"),
        (["--set=train_split=train[2000:]"], "train.2000:. of digits, with no"),
        (["--set", "width=2"], "Received: width=2"),
        (["--set", "arguments.depth=9"], "Received: depth=9"),
        (["--set", "dataset=digits", "--set", "test_split=x"], "split=x"),
        (["--recipe", "wrn_16_4_cifar10", "--data-dir=no.npz"], "not exist"),
        (["--recipe", "wrn_16_4_cifar10", "--data-dir=no"], "=no, which does"),
        (["--set", "arguments.widht=2"], "'widht': 2"),
        (["--set", "epochs=ten"], "of the type int. Received: epochs='ten'"),
        (["--set", "arguments={[]: 1}"], "type dict. Received: arguments='{"),
        (["--set", "drops=5"], "of the type tuple. Received: drops=5"),
        (["--set", "flip=1"], "of the type bool. Received: flip=1"),
        (["--batch-size=63", "--set=mixup=0.2"], "Received: batch_size=63 on"),
        (["--set", "weights=nowhere"], "Received: weights='nowhere'"),
        (["--set=schedule=steps"], "0 with .*'steps'. Received: warmup=2"),
        (["--set=drops=(5,)"], r"\(\) with 'cosine'. Received: drops=\(5,\)"),
        (["--set=restarts=(20,)"], r"0 and 20. Received: restarts=\(20,\)"),
        (["--data-dir=."], "Received: data_dir=."),
    ],
)
def test_mistakes_end_in_a_line_and_leave_nothing(arguments, told, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit, match=f"train.py: .*{told}"):
        train.main([*arguments, "--run-dir", str(folder)])
    assert not folder.exists()


def test_unknown_options_are_errors(capsys):
    with pytest.raises(SystemExit):
        train.main(["--recipee", "digits"])
    assert "--recipee" in capsys.readouterr().err
    for option in ("save-every", "evaluate-every", "steps-per-execution"):
        with pytest.raises(SystemExit):
            train.main([f"--{option}", "0"])
        told = f"--{option}: should be at least 1. Received: 0"
        assert told in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main(["--seed", "-1"])
    assert "--seed: should be at least 0. Received: -1" in (
        capsys.readouterr().err
    )


def test_default_folder_does_not_touch_a_complete_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("digits", "digits-2", "digits-3"):
        folder = run_folder.default_folder("digits")
        assert str(folder) == f"runs/{expected}"
        folder.mkdir(parents=True)
        assert run_folder.default_folder("digits") == folder
        (folder / "model.weights.h5").touch()


def test_home_folders_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    options = train.parse_arguments(["--data-dir=~/x.npz"])
    assert options.data_dir == "/home/someone/x.npz"
