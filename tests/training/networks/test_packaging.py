"""The folder that is made of a run, and that plain Keras opens it."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from huggingface_hub import ModelCard

import hub
import keras_resfam
import photographs
import tiny_run
from keras_resfam.pretrained import fingerprint, hdf5, registry
from keras_resfam.pretrained.files import WEIGHTS, describe
from training import evaluate
from training.images import reading
from training.networks import loading, model_card, packaging

FAMILIES = {
    "DMRNet": {"depth": 8},
    "WideResNet": {"depth": 10, "width": 1, "dropout": 0.3},
    "OrthoPlainNet": {"depth": 8},
    "ResNet": {"depth": 8, "preactivation": True},
}


@pytest.fixture(scope="module")
def folders(empty_checkout):
    """A weights folder of each family."""
    return {
        family: packaging.package(
            tiny_run.make(empty_checkout / "runs" / family, family, arguments)
        )
        for family, arguments in FAMILIES.items()
    }


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_the_files_and_their_names(folders):
    assert [folder.name for folder in folders.values()] == [
        "dmrnet_8_digits",
        "wrn_10_1_dropout_digits",
        "ortho_plain_8_digits",
        "resnet_8_preactivation_digits",
    ]
    for folder in folders.values():
        assert sorted(os.listdir(folder)) == sorted(packaging.FILES)


@pytest.mark.parametrize(
    ("builder", "arguments", "recipe", "suffix", "name"),
    [
        ("DMRNet", {}, "x", "", "dmrnet_56_cifar10"),
        ("WideResNet", {}, "x", "", "wrn_28_10_cifar10"),
        ("WideResNet", {"width": 0.5}, "x", "", "wrn_28_0_5_cifar10"),
        (
            "WideResNet",
            {"dropout": 0.3},
            "x",
            "b",
            "wrn_28_10_dropout_cifar10_b",
        ),
        ("DMRNet", {"branches": 3}, "x", "", "dmrnet_56_branches_3_cifar10"),
        (
            "OrthoPlainNet",
            {"modulation": False},
            "x",
            "",
            "ortho_plain_44_no_modulation_cifar10",
        ),
        (
            "ResNet",
            {"preactivation": True},
            "x",
            "",
            "resnet_110_preactivation_cifar10",
        ),
        (
            "DMRNet",
            {"depth": 14},
            "dmrnet_14_cifar10_short",
            "",
            "dmrnet_14_cifar10_short",
        ),
        ("WideResNet50_2", {}, "x", "", "wrn_50_2_cifar10"),
        # Of a width that is not the default, 10.
        (
            "WideResNet",
            {"depth": 40, "width": 1},
            "wrn_40_1_cifar10_short",
            "",
            "wrn_40_1_cifar10_short",
        ),
    ],
)
def test_names(builder, arguments, recipe, suffix, name):
    recipe = {
        "name": recipe,
        "builder": builder,
        "arguments": arguments,
        "dataset": "cifar10",
    }
    assert packaging.name_of(recipe, suffix) == name


def test_values_are_the_runs_with_kernels_in_half_precision(
    folders, empty_checkout
):
    stored = hdf5.read((folders["WideResNet"] / WEIGHTS).read_bytes())
    run = empty_checkout / "runs" / "WideResNet" / "model.weights.h5"
    trained = hdf5.read(run.read_bytes())
    assert list(stored) == list(trained)
    for name, values in trained.items():
        for ours, full in zip(stored[name], values, strict=True):
            assert ours.dtype == ("float16" if full.ndim > 1 else "float32")
            np.testing.assert_array_equal(ours, full.astype(ours.dtype))


def test_the_fingerprint_is_of_what_is_stored(folders):
    folder = folders["DMRNet"]
    record = read(folder, "fingerprint.json")
    kernel = hdf5.read((folder / WEIGHTS).read_bytes())["stem_conv"][0]
    assert record["variables"]["stem_conv/kernel"] == {
        "dtype": "float16",
        "shape": [3, 3, 1, 16],
    }
    assert (kernel.dtype, kernel.shape) == ("float16", (3, 3, 1, 16))
    assert set(record["files"]) == set(packaging.FILES) - {"fingerprint.json"}
    model = keras_resfam.DMRNet(
        depth=8, weights=folder, classifier_activation=None
    )
    np.testing.assert_allclose(
        fingerprint.logits(model, (8, 8, 1)), record["logits"], rtol=1e-5
    )


def test_it_is_measured_as_its_own_recipe_says(folders):
    folder = folders["DMRNet"]
    _, recipe = loading.load_network(evaluate.parse_arguments([str(folder)]))
    assert recipe == read(folder, "recipe.json")


@pytest.mark.parametrize("family", FAMILIES)
def test_its_result_is_what_evaluate_measures_of_it(folders, family, capsys):
    """And not of the run, whose kernels are not rounded."""
    folder = folders[family]
    evaluate.main([str(folder)])
    measured = json.loads(capsys.readouterr().out)
    for key in ("nll", "calibration_error"):
        measured[key] = pytest.approx(measured[key], rel=1e-6)
    command = f"python training/evaluate.py weights/{folder.name}"
    assert read(folder, "result.json") == measured | {"command": command}


def test_new_numbers_change_nothing_else(
    folders, monkeypatch, capsys, tmp_path
):
    folder = folders["ResNet"]
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    monkeypatch.setattr(sys, "argv", ["training/evaluate.py", "--update"])
    monkeypatch.setattr(
        packaging.accuracy, "_percent", lambda chosen: 12.5, raising=True
    )
    images = photographs.write(tmp_path / "others", test=2)
    evaluate.main([str(folder), "--update", f"--ood={images}"])
    measured = json.loads(capsys.readouterr().out)
    found = measured.pop("out_of_distribution")[str(images)]
    published = {
        "command": "python training/evaluate.py",
        "out_of_distribution": {"others": found},
    }
    assert read(folder, "result.json") == measured | published
    assert measured["error"] == 12.5
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"README.md", "result.json", "fingerprint.json"}
    fingerprints = [
        json.loads(contents["fingerprint.json"]) for contents in (before, after)
    ]
    files = [printed.pop("files") for printed in fingerprints]
    assert fingerprints[0] == fingerprints[1]
    assert {n for n in files[0] if files[0][n] != files[1][n]} == {
        "README.md",
        "result.json",
    }
    packaging.check(folder)
    (network,) = (n for n in registry.read() if n.name == folder.name)
    assert network == packaging.entry(folder)
    assert network.accuracy == 87.5


def test_a_card_says_what_else_was_asked(folders, tmp_path):
    folder = tmp_path / "net"
    shutil.copytree(folders["DMRNet"], folder)
    numbers = {"nll": 0.25, "calibration_error": 2.0}
    told = read(folder, "result.json") | {
        "calibration": {
            "temperature": 0.8123,
            "fitted_on": {"split": "test[::2]", "examples": 180},
            "measured_on": {"split": "test[1::2]", "examples": 179},
            "before": numbers,
            "after": numbers | {"nll": 0.125},
        },
        "corruptions": {
            "examples": 50,
            "seed": 0,
            "mean_error": 30.5,
            "errors": {"shot_noise": [1.0, 2.0, 3.0, 4.0, 5.0]},
        },
        "out_of_distribution": {
            "cifar100": {
                "examples": 70,
                "auroc_probability": 91.0,
                "auroc_energy": 92.0,
            }
        },
    }
    (folder / "result.json").write_text(json.dumps(told))
    text = " ".join(model_card.render(folder).split())
    for words in (
        "with_temperature(model, 0.812)` divides",
        "the 180 images of `test[::2]`, since all training images were used",
        "On the other 179, `test[1::2]`",
        "0.25 | 0.125 nats",
        "the mean error is 30.5 %. By corruption, in percent: shot noise: 3.",
        "70 test images of CIFAR-100: the AUROC is 91 % by the largest",
        "and 92 % by the energy",
    ):
        assert words in text, words


def test_packed_again_it_is_the_same_byte_for_byte(folders, empty_checkout):
    folder = folders["WideResNet"]
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    registered = registry.PATH.read_bytes()
    assert packaging.package(empty_checkout / "runs" / "WideResNet") == folder
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert registry.PATH.read_bytes() == registered


def test_the_registry(folders):
    networks = {n.name: n for n in registry.list_weights()}
    network = networks["wrn_10_1_dropout_digits"]
    assert network.builder == "WideResNet"
    assert network.arguments == {
        "depth": 10,
        "width": 1,
        "block": [3, 3],
        "blocks": None,
    }
    assert network.accuracy == 10.5556  # 38 of 360, of an untrained network
    assert network.commit is None
    assert network.repository == "keras-resfam/wrn_10_1_dropout_digits"
    for name, described in network.files.items():
        contents = (folders["WideResNet"] / name).read_bytes()
        assert described == describe(contents)
    assert set(network.files) == set(packaging.FILES)


def test_a_published_commit_stays_pinned_while_the_files_do(folders, tmp_path):
    folder = tmp_path / folders["WideResNet"].name
    shutil.copytree(folders["WideResNet"], folder)
    packaging.register(packaging.entry(folder, "org/name", "a" * 40))
    packaging.register(packaging.entry(folder))
    assert registry.list_weights("WideResNet")[0].commit == "a" * 40
    log = folder / "log.csv"
    log.write_text(log.read_text() + "2,0.4,0.98\n")
    packaging.register(packaging.entry(folder))
    assert registry.list_weights("WideResNet")[0].commit is None
    packaging.register(packaging.entry(folders["WideResNet"]))


REGISTER = """
import dataclasses, pathlib, sys
from keras_resfam.pretrained import registry
from training.networks import packaging
registry.PATH = pathlib.Path(sys.argv[1])
(network,) = (n for n in registry.read() if n.name == "first")
print("ready", flush=True)
sys.stdin.readline()
for index in range(20):
    name = f"{sys.argv[2]}_{index}"
    packaging.register(dataclasses.replace(network, name=name))
"""


def test_processes_that_register_at_once(folders, tmp_path, monkeypatch):
    network = packaging.entry(folders["WideResNet"])
    monkeypatch.setattr(registry, "PATH", tmp_path / "registry.json")
    registry.write([dataclasses.replace(network, name="first")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER, registry.PATH, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert len(registry.read()) == 41
    assert not list(tmp_path.glob("partial-*"))


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_a_folder_is_not_registered_under_a_data_sets_name(folders, name):
    network = dataclasses.replace(packaging.entry(folders["DMRNet"]), name=name)
    before = registry.PATH.read_bytes()
    with pytest.raises(ValueError, match=f"Received: {name}"):
        packaging.register(network)
    assert registry.PATH.read_bytes() == before


@pytest.mark.parametrize("call", [1, 2])
def test_a_kill_while_a_folder_is_replaced(
    folders, empty_checkout, monkeypatch, call
):
    folder = folders["OrthoPlainNet"]
    before = tiny_run.contents(folder)
    calls, replace = [], os.replace

    def killed(source, target):
        if str(target).startswith(str(folder.parent)):
            calls.append(target)
            if len(calls) == call:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    run = empty_checkout / "runs" / "OrthoPlainNet"
    with pytest.raises(KeyboardInterrupt):
        packaging.package(run)
    monkeypatch.setattr(os, "replace", replace)
    packaging.restore(folder)
    assert tiny_run.contents(folder) == before
    assert packaging.package(run) == folder
    assert tiny_run.contents(folder) == before
    beside = {path.name for path in folder.parent.iterdir()}
    assert beside == {path.name for path in folders.values()}


def test_the_model_card(folders):
    folder = folders["WideResNet"]
    card = ModelCard.load(folder / "README.md")
    data = card.data
    assert data.library_name == "keras"
    assert data.license == "apache-2.0"
    assert data.pipeline_tag == "image-classification"
    values = {r.metric_type: r.metric_value for r in data.eval_results}
    assert (values["accuracy"], values["error"]) == (10.5556, 89.4444)
    result = read(folder, "result.json")
    for key in ("accuracy", "error", "top5_error", "nll"):
        assert values.pop(key) == pytest.approx(result[key], abs=1e-4)
        assert f" | {result[key]:.4g} " in card.text
    ece = result["calibration_error"]
    assert values == {"ece": pytest.approx(ece, abs=1e-4)}
    assert {r.dataset_split for r in data.eval_results} == {"test"}
    call = f'WideResNet(depth=10, width=1, weights="{folder.name}")'
    assert f"model = keras_resfam.{call}" in card.text
    assert "https://arxiv.org/abs/1605.07146" in card.text
    assert f"by\n\n    {result['command']}\n\non the weights" in card.text
    assert "is 2.25 %, in 200 epochs: this schedule" in card.text
    there, here = tiny_run.COMMANDS
    assert f"1 epoch, by\n\n    {there}\n\n" in card.text
    went_on = f"from epoch 1, batch 5 on by\n\n    {here}"
    assert went_on.replace("/somewhere/", "") in card.text
    assert "(batch, 8, 8, 1), 0 to 255" in card.text
    code = card.text.split("```python\n")[1].split("```")[0]
    call = code.split("model = ")[1].splitlines()[0]
    assert isinstance(eval(call, {"keras_resfam": keras_resfam}), keras.Model)


@pytest.mark.parametrize(
    "note, told",
    [
        ("in 2 epochs", "is 2.25 %, in 2 epochs: this schedule is shorter."),
        ("in 1 epochs", "is 2.25 %, in 1 epochs."),
    ],
)
def test_a_card_calls_a_schedule_shorter_if_it_is(tmp_path, note, told):
    run = tiny_run.make(tmp_path / "run")
    recipe = {**read(run, "recipe.json"), "note": note}
    assert told in model_card._training(run, recipe)


def test_a_card_has_the_words_of_a_run_as_words(folders, tmp_path):
    folder = tmp_path / "net"
    shutil.copytree(folders["DMRNet"], folder)
    evil = "<script>alert(1)</script>\n\n# A heading\n\n[link](x) in 9 epochs"
    told = read(folder, "recipe.json") | {"note": evil, "command": evil}
    told["continued"][0]["command"] = evil
    (folder / "recipe.json").write_text(json.dumps(told))
    card = model_card.render(folder)
    lines = card.splitlines()
    assert not [line for line in lines if line.startswith("# A")]
    for line in lines:  # but for code, which is shown as it is
        assert "<script" not in line or line.startswith("    <script")
    assert r"\[link\](x)" in card
    (folder / "log.csv").write_text("epoch,val_accuracy\n<script>,1\n")
    with pytest.raises(OSError, match="log.csv should be"):
        model_card.render(folder)


@pytest.mark.parametrize("name", packaging.FROM_RUN)
def test_a_run_that_lacks_something(empty_checkout, tmp_path, name):
    run = tiny_run.make(tmp_path / "run")
    (run / name).unlink()
    with pytest.raises(ValueError, match=f"{name} not found"):
        packaging.package(run)


def test_a_network_fine_tuned_on_photographs(
    empty_checkout, tmp_path, monkeypatch, capsys
):
    """From the folder of images to the names of the classes, by the name."""
    photos = photographs.write(empty_checkout / "photos")
    # Moments of neither a data set's: those of what training started from.
    moments = [[100.0, 110.0, 120.0], [50.0, 60.0, 70.0]]
    run = tiny_run.make(
        empty_checkout / "runs" / "shapes",
        name="fine_tune",
        classes=2,
        input_shape=(16, 16, 3),
        preprocessing=moments,
    )
    recipe = read(run, "recipe.json") | {
        "dataset": "shapes",
        "weights": f"{tmp_path}/started_from",
        "class_names": ["blue", "red"],
        "image_size": 16,
    }
    (run / "recipe.json").write_text(json.dumps(recipe))
    folder = packaging.package(run, data_dir=photos)
    assert folder.name == "dmrnet_8_shapes_fine_tuned"
    assert list(read(folder, "result.json")["per_class"]) == ["blue", "red"]
    assert read(folder, "recipe.json")["weights"] == "started_from"

    # The command on the card, where the images lie in the same place.
    result = read(folder, "result.json")
    assert result["command"].endswith(f"{folder.name} --data-dir photos")
    monkeypatch.chdir(empty_checkout)
    evaluate.main(shlex.split(result["command"])[2:])
    measured = json.loads(capsys.readouterr().out)
    assert measured["error"] == result["error"]
    assert "top5_error" not in measured  # of two classes

    card = ModelCard.load(folder / "README.md")
    assert f"    {result['command']}\n" in card.text
    assert "Top-5" not in card.text
    assert card.data.license is None
    assert card.data.datasets is None
    assert "started from the weights started\\_from" in card.text
    assert 'class_names("dmrnet_8_shapes_fine_tuned")' in card.text

    names = keras_resfam.class_names("dmrnet_8_shapes_fine_tuned")
    assert names == keras_resfam.class_names("shapes") == ("blue", "red")
    model = keras_resfam.DMRNet(depth=8, weights="shapes")
    trained = keras_resfam.DMRNet(8, weights=str(run / WEIGHTS))
    images, _ = reading.photographs("shapes", "test", photos, 16)
    np.testing.assert_allclose(
        model.predict(images[:], verbose=0),
        trained.predict(images[:], verbose=0),
        atol=5e-3,  # kernels in half precision
    )


@pytest.mark.parametrize(
    ("builder", "weights", "license"),
    [
        ("DMRNet", None, "apache-2.0"),
        ("DMRNet", "digits", "apache-2.0"),
        ("ResNet50", "imagenet", "Apache-2.0"),
        ("ResNet50", "hf://timm/resnet50.a1_in1k@main", "Apache-2.0"),
        ("ResNet50", "hf://somebody/resnet50", None),
        ("ResNet50", "runs/mine", None),
    ],
)
def test_the_license_is_that_of_the_weights_before(
    folders, builder, weights, license
):
    arguments = FAMILIES.get(builder, {})
    described = {
        "builder": builder,
        "arguments": arguments,
        "weights": weights,
    }
    assert model_card._license(described) == license


def test_another_network_does_not_take_the_place_of_one(
    empty_checkout, folders
):
    name, runs = "resnet_8_preactivation_digits", empty_checkout / "runs"
    packaging.package(runs / "ResNet")  # without what a test has added
    before = tiny_run.contents(folders["ResNet"])
    run = tiny_run.make(runs / "paths", "ResNet", FAMILIES["ResNet"])
    recipe = read(run, "recipe.json") | {"name": "paths", "seed": 1}
    (run / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(ValueError, match="`--suffix`.*name='paths', seed=1"):
        packaging.package(run)
    assert tiny_run.contents(folders["ResNet"]) == before
    assert packaging.package(run, "paths").name == f"{name}_paths"
    assert packaging.package(runs / "ResNet").name == name
    assert tiny_run.contents(folders["ResNet"]) == before


def test_paths_of_the_machine_are_cut_to_names():
    command = [
        "python",
        "training/train.py",
        "--set=arguments={'depth': 8}",
        "--run-dir",
        "/home/jane doe/runs/a",
        "--data-dir=/d/x y",
        r"C:\Users\jane\b",
        "--data-dir=/mnt/k=v/x",
        "/home/jane/lr=0.1/a/",
        "runs/c",
    ]
    assert shlex.split(packaging.without_local_paths(shlex.join(command))) == [
        *command[:4],
        "a",
        "--data-dir=x y",
        "b",
        "--data-dir=x",
        "a",
        "runs/c",
    ]


def test_a_file_too_large_for_git(folders, monkeypatch):
    monkeypatch.setattr(packaging, "LARGEST_FILE", 10_000)
    with pytest.raises(ValueError, match="at most 10,000 bytes"):
        packaging.check(folders["WideResNet"])


def test_a_network_that_plain_keras_could_not_open(folders, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    for path in folders["WideResNet"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = folder / "config.json"
    config.write_text(config.read_text() + '{"package": "keras_resfam"}')
    with pytest.raises(ValueError, match="Keras's own layers only"):
        packaging.check(folder)


def test_the_weights_are_what_keras_writes(folders):
    """Groups, names and order of the file are those of `model.save`."""
    folder = folders["ResNet"]
    opened = keras.saving.load_model(folder)
    again = folder.parent.parent / "again.weights.h5"
    opened.save_weights(again)

    def layout(path):
        with h5py.File(path) as file:
            found = []
            file.visititems(
                lambda name, item: found.append((name, dict(item.attrs)))
            )
        return found

    assert layout(folder / WEIGHTS) == layout(again)


PLAIN_KERAS = """
import sys

sys.modules["keras_resfam"] = None  # importing it fails
import keras
import numpy as np

images = np.load("images.npy")
for family in sys.argv[1:]:
    model = keras.saving.load_model(f"hf://org/{family}")
    model.get_layer("predictions").activation = keras.activations.linear
    logits = keras.ops.convert_to_numpy(model(images, training=False))
    np.save(family, logits)
try:
    import keras_resfam
except ImportError:
    print("without keras_resfam")
"""


def test_plain_keras_opens_it_from_the_hub(folders, tmp_path):
    images = fingerprint.fixed_images((8, 8, 1)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    with hub.Hub() as server:
        for family, folder in folders.items():
            files = {p.name: p.read_bytes() for p in folder.iterdir()}
            server.push(f"org/{family}", files)
        output = subprocess.run(
            [sys.executable, "-c", PLAIN_KERAS, *folders],
            cwd=tmp_path,
            env=os.environ | hub.environment(server, tmp_path / "cache"),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    assert output == "without keras_resfam\n"
    for family, folder in folders.items():
        published = read(folder, "fingerprint.json")["logits"]
        opened = np.load(tmp_path / f"{family}.npy")
        np.testing.assert_allclose(opened, published, rtol=1e-4, atol=1e-5)
        last = read(folder, "config.json")["config"]["layers"][-1]
        assert last["config"]["name"] == "predictions"
        assert last["config"]["activation"] == "softmax"
