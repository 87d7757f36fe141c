"""What is published for timm: timm loads it, and computes the same."""

import json

import numpy as np
import pytest
import safetensors.numpy
from huggingface_hub import ModelCard
from numpy.testing import assert_allclose, assert_array_equal

import hub
import keras_resfam
import tiny_run
from keras_resfam.datasets import DATASETS
from keras_resfam.pretrained import registry
from keras_resfam.pretrained.files import RECIPE, WEIGHTS
from peers import peer
from training import publish
from training.networks import packaging, timm_form

REPOSITORY = "org/resnet18.mine"
RECORD = DATASETS["cifar10"]
RNG = np.random.default_rng(0)
# Files are written by NumPy; that all backends compute the same is tested of
# the builders.
pytestmark = pytest.mark.backend_independent


@pytest.fixture(scope="module")
def folder(empty_checkout):
    """The weights folder of a ResNet-18 of 10 classes."""
    run = tiny_run.make(empty_checkout / "runs" / "tiny")
    network = tiny_run.network(
        "WideResNet18",
        {"width": 1},
        input_shape=RECORD.image_shape,
        include_preprocessing="cifar10",
    )
    network.save_weights(run / WEIGHTS)
    changes = {
        "builder": "WideResNet18",
        "arguments": {"width": 1},
        "dataset": "cifar10",
        "preprocessing": "cifar10",
        "input_shape": RECORD.image_shape,
    }
    recipe = json.loads((run / RECIPE).read_text())
    (run / RECIPE).write_text(json.dumps(recipe | changes))
    data = {"x_test": (20, 32, 32, 3), "y_test": (20,)}
    arrays = {k: RNG.integers(0, 10, v, "uint8") for k, v in data.items()}
    np.savez(run / "cifar10.npz", **arrays)
    return packaging.package(run, data_dir=run)


@pytest.fixture(scope="module")
def files(folder):
    return timm_form.contents(folder, REPOSITORY)


@pytest.fixture(scope="module")
def there(files, tmp_path_factory):
    """A local copy of the repository."""
    path = tmp_path_factory.mktemp("timm")
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def images():
    return RNG.integers(0, 256, (3, 32, 32, 3), "uint8")


def test_the_tensors_are_those_of_timms_resnet18(files):
    state = safetensors.numpy.load(files["model.safetensors"])
    blocks = [f"layer{s}.{b}" for s in range(1, 5) for b in range(2)]
    shortcuts = [f"layer{s}.0.downsample" for s in range(2, 5)]
    kernels = ["conv1", *(f"{x}.conv{i}" for x in blocks for i in (1, 2))]
    kernels += [f"{x}.0" for x in shortcuts]
    norms = ["bn1", *(f"{x}.bn{i}" for x in blocks for i in (1, 2))]
    norms += [f"{x}.1" for x in shortcuts]
    parts = ("weight", "bias", "running_mean", "running_var")
    assert set(state) == {
        *(f"{name}.weight" for name in kernels),
        *(f"{name}.{part}" for name in norms for part in parts),
        *("fc.weight", "fc.bias"),
    }
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer3.0.downsample.0.weight"].shape == (256, 128, 1, 1)
    assert state["fc.weight"].shape == (10, 512)


def test_the_config_tells_the_preprocessing_and_the_classes(files):
    config = json.loads(files["config.json"])
    inner = config["pretrained_cfg"]
    assert config["architecture"] == "resnet18"
    assert config["num_classes"] == inner["num_classes"] == 10
    assert config["label_names"] == list(RECORD.class_names)
    assert inner["input_size"] == [3, 32, 32]
    assert_allclose(inner["mean"], np.divide(RECORD.mean, 255), rtol=1e-6)
    assert_allclose(inner["std"], np.divide(RECORD.std, 255), rtol=1e-6)
    assert inner["crop_pct"] == 1


def test_timm_loads_it_and_computes_the_same(folder, there):
    import torch

    timm = peer("timm")
    theirs = timm.create_model(f"local-dir:{there}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(theirs)
    mean, std = (torch.tensor(config[k]) for k in ("mean", "std"))
    x = images()
    with torch.no_grad():
        scaled = (torch.tensor(x) / 255 - mean) / std
        logits = theirs(scaled.permute(0, 3, 1, 2)).numpy()
    ours = keras_resfam.WideResNet18(
        weights=folder, classifier_activation=None
    ).predict(x, verbose=0)
    assert_allclose(ours, logits, atol=1e-5 * np.abs(logits).max())
    assert theirs.pretrained_cfg["label_names"] == list(RECORD.class_names)


def test_our_own_builder_loads_it_too(folder, there):
    ours, again = (
        keras_resfam.WideResNet18(weights=path) for path in (folder, there)
    )
    for a, b in zip(ours.get_weights(), again.get_weights(), strict=True):
        assert_array_equal(a, b)
    x = images()
    assert_allclose(
        ours.predict(x, verbose=0), again.predict(x, verbose=0), atol=1e-5
    )
    assert keras_resfam.class_names(there) == RECORD.class_names


def test_the_card_is_for_timm(files, folder):
    ours = ModelCard((folder / "README.md").read_text())
    card = ModelCard(files["README.md"].decode())
    assert card.data.library_name == "timm"
    assert card.data.license == ours.data.license
    assert card.data.eval_results == ours.data.eval_results
    assert f'timm.create_model("hf-hub:{REPOSITORY}"' in card.text
    assert "load_model" not in card.text
    assert WEIGHTS not in card.text
    for section in ("## Results", "## Training"):
        assert section in card.text


@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        ("DMRNet", {"depth": 8}),
        ("ResNet18CIFAR", {}),
        ("WideResNet18", {"width": 2}),
        ("ResNet", {"depth": 8}),
    ],
)
def test_networks_that_timm_does_not_have(builder, arguments):
    description = {"builder": builder, "arguments": arguments}
    with pytest.raises(ValueError, match=f"WideResNet50_2.*: {builder}"):
        timm_form._architecture(description)


def test_the_command(folder, files, tmp_path, monkeypatch, capsys):
    registered = registry.PATH.read_bytes()
    with hub.Hub(["hf_token"]) as server:
        hub.use(server, tmp_path / "cache", monkeypatch, "hf_token")
        options = [str(folder), "--timm", REPOSITORY]
        publish.main([*options, "--dry-run"])
        assert not server.repositories
        publish.main([*options, "--revision", "v1"])
        head = server.repositories[REPOSITORY].head
        sent = {k: v for k, v in head.files.items() if k in files}
        assert sent == files
        assert server.repositories[REPOSITORY].tags == {"v1": head.oid}
        model = keras_resfam.WideResNet18(weights=f"hf://{REPOSITORY}")
    expected = keras_resfam.WideResNet18(weights=folder)
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        assert_array_equal(a, b)
    assert f"Published: hf://{REPOSITORY}@{head.oid}" in capsys.readouterr().out
    assert registry.PATH.read_bytes() == registered  # nothing is pinned


@pytest.mark.parametrize("other", ["--repo", "--space"])
def test_options_that_do_not_go_together(folder, other, capsys):
    with pytest.raises(SystemExit):
        publish.main([str(folder), "--timm", REPOSITORY, other, "org/other"])
    assert "--timm" in capsys.readouterr().err
