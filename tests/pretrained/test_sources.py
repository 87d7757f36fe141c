"""Trained weights: found, verified, loaded by name; or refused."""

import dataclasses
import functools
import json
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import hub
import keras_resfam
import tiny_run
from keras_resfam import DMRNet, HubError, OrthoPlainNet, WideResNet
from keras_resfam.models import families
from keras_resfam.pretrained import fingerprint, hdf5, registry, sources
from keras_resfam.pretrained import hub as hub_client
from keras_resfam.pretrained.files import (
    FINGERPRINT,
    NEEDED,
    RECIPE,
    WEIGHTS,
    describe,
)
from policies import dtype_policy
from training.networks import packaging
from training.run import loop

PROJECT = sources.CHECKOUT
NETWORKS = registry.read()  # the project's own, before tests have others
TOKEN = "hf_a_secret_token"
REPOSITORY = "org/dmrnet_8_digits"
ARGUMENTS = families.defaults("DMRNet") | {"depth": 8}
IMAGES = fingerprint.fixed_images((8, 8, 1)).astype("float32")


@pytest.fixture(scope="module")
def folder(home):
    return home / "weights" / "dmrnet_8_digits"


@pytest.fixture(scope="module")
def server():
    with hub.Hub([TOKEN]) as server:
        yield server


@pytest.fixture
def client(server, folder, tmp_path, monkeypatch):
    """A user without a checkout, and the network published for them."""
    server.repositories.clear()
    commit = server.push(REPOSITORY, tiny_run.contents(folder))
    network = packaging.entry(folder, REPOSITORY, commit)
    monkeypatch.setattr(sources, "CHECKOUT", tmp_path / "none")
    monkeypatch.setattr(registry, "PATH", tmp_path / "registry.json")
    registry.write([network])
    monkeypatch.setattr(registry, "PUBLIC", tmp_path / "public.json")
    registry.PUBLIC.write_text("[]")
    hub.use(server, tmp_path / "cache", monkeypatch)
    server.requests.clear()
    return network


def find(weights="digits"):
    return sources.find(weights, "DMRNet", ARGUMENTS)


def is_published(source, folder):
    layers = hdf5.read((folder / WEIGHTS).read_bytes())
    return source.layers.keys() == layers.keys() and all(
        np.array_equal(ours, theirs)
        for name in layers
        for ours, theirs in zip(source.layers[name], layers[name], strict=True)
    )


def published_logits(folder):
    text = (folder / FINGERPRINT).read_text()
    return np.array(json.loads(text)["logits"], "float32")


def logits_of(model):
    return keras.ops.convert_to_numpy(model(IMAGES, training=False))


def assert_published(model, folder):
    np.testing.assert_allclose(
        logits_of(model), published_logits(folder), rtol=1e-4, atol=1e-5
    )


# Loading -------------------------------------------------------------------


def test_a_checkout_needs_no_hub(home, folder, server, monkeypatch, tmp_path):
    hub.use(server, tmp_path, monkeypatch)
    server.requests.clear()
    model = DMRNet(depth=8, weights="digits", classifier_activation=None)
    assert_published(model, folder)
    assert not server.requests
    assert model.output_shape == (None, 10)
    assert model.input_shape == (None, 8, 8, 1)


def test_every_form_of_weights_gives_the_same_network(client, folder, server):
    server.repositories[REPOSITORY].tags["v1"] = client.commit
    for weights in (
        "digits",
        "dmrnet_8_digits",
        f"hf://{REPOSITORY}",
        f"hf://{REPOSITORY}@main",
        f"hf://{REPOSITORY}@v1",
        f"hf://{REPOSITORY}@{client.commit}",
        str(folder),
        folder,
    ):
        source = find(weights)
        assert is_published(source, folder)
        assert source.dataset == "digits"
        assert source.classes == 10
        assert source.input_shape == (8, 8, 1)


@pytest.mark.parametrize("alone", [False, True])
def test_a_bare_file_is_loaded_by_name(home, folder, tmp_path, alone):
    path = home / "runs" / "digits" / "model.weights.h5"
    options = {}
    if alone:  # no run's recipe.json says how images are normalized
        path = shutil.copy(path, tmp_path)
        options = {
            "input_shape": (8, 8, 1),
            "include_preprocessing": "digits",
        }
    model = DMRNet(
        depth=8, weights=path, classifier_activation="linear", **options
    )
    # The run is float32, the folder's kernels are float16.
    np.testing.assert_allclose(
        logits_of(model), published_logits(folder), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize(
    ("shape", "taken"),
    [((8, 8, 3), "moments of CIFAR-10 are"), ((8, 8, 1), r"to \[-1, 1\]")],
)
def test_a_bare_file_without_a_recipe_warns_of_its_moments(
    tmp_path, shape, taken
):
    path = tmp_path / "net.weights.h5"
    DMRNet(depth=8, input_shape=shape).save_weights(path)
    options = {"depth": 8, "weights": path, "input_shape": shape}
    with pytest.warns(UserWarning, match=taken) as record:
        DMRNet(**options)
    assert record[0].filename == __file__
    named = "cifar100" if shape[-1] == 3 else "digits"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        DMRNet(**options, include_preprocessing=named)
        DMRNet(**options, include_preprocessing=False)


def test_a_recipe_beside_a_bare_file_needs_no_warning(home):
    path = home / "runs" / "digits" / "model.weights.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        DMRNet(depth=8, weights=path)


def test_a_bare_file_has_its_classes(tmp_path):
    path = tmp_path / "net.weights.h5"
    DMRNet(depth=8, classes=7).save_weights(path)
    options = {"depth": 8, "weights": path, "include_preprocessing": "cifar10"}
    assert DMRNet(**options).output_shape == (None, 7)
    with pytest.raises(ValueError, match="`classes` should be 7"):
        DMRNet(**options, classes=10)


def test_a_bare_file_without_a_classifier(tmp_path):
    path = tmp_path / "net.weights.h5"
    headless = DMRNet(depth=8, include_top=False)
    headless.save_weights(path)
    options = {"depth": 8, "weights": path, "include_preprocessing": "cifar10"}
    again = DMRNet(**options, include_top=False)
    for ours, theirs in zip(
        again.get_weights(), headless.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="`include_top` should be False"):
        DMRNet(**options)


def test_a_bare_file_of_bfloat16(tmp_path):
    path = tmp_path / "net.weights.h5"
    narrow = DMRNet(depth=8)
    narrow = keras.models.clone_model(
        narrow, clone_function=lambda x: in_policy(x, "bfloat16")
    )
    narrow.save_weights(path)
    model = DMRNet(depth=8, weights=path, include_preprocessing="cifar10")
    layer = "stage1_block1_branch1_conv1"
    (stored,) = narrow.get_layer(layer).get_weights()
    (loaded,) = model.get_layer(layer).get_weights()
    np.testing.assert_array_equal(loaded, np.asarray(stored, "float32"))


def in_policy(layer, policy):
    return type(layer).from_config({**layer.get_config(), "dtype": policy})


def test_the_folder_of_a_run_is_its_final_weights(home):
    run = home / "runs" / "digits"
    found = DMRNet(depth=8, weights=run)
    named = DMRNet(depth=8, weights=run / "model.weights.h5")
    assert found.input_shape == named.input_shape
    for ours, theirs in zip(
        found.get_weights(), named.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_bare_file_beside_a_recipe_that_is_none(home, tmp_path):
    path = shutil.copy(home / "runs" / "digits" / "model.weights.h5", tmp_path)
    for text in ("[]", "{}", "{"):
        (tmp_path / "recipe.json").write_text(text)
        with pytest.raises(ValueError, match=".*recipe.json is invalid"):
            DMRNet(depth=8, weights=path)


def test_numbers_of_numpy_and_other_things(client):
    arguments = {"depth": np.int64(8), "width": np.float32(1)}
    assert sources.find("digits", "DMRNet", arguments).classes == 10
    with pytest.raises(ValueError, match="None exist for DMRNet"):
        sources.find("digits", "DMRNet", {"depth": {8}})


@pytest.mark.parametrize("weights", ["digits", f"hf://{REPOSITORY}"])
def test_the_second_load_asks_nothing(client, folder, server, weights):
    find(weights)
    assert server.requests
    server.requests.clear()
    assert is_published(find(weights), folder)
    assert not server.requests


def test_offline(client, folder, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="unset HF_HUB_OFFLINE"):
        find()
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    find()
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert is_published(find(), folder)


def test_a_damaged_cache_offline(client, folder, monkeypatch):
    find()
    (cached,) = Path(hub.constants.HF_HUB_CACHE).rglob(f"snapshots/*/{WEIGHTS}")
    flip(cached.resolve())
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="damaged: model") as caught:
        find()
    (remedy,) = re.findall("Remedy: (.*)", str(caught.value))
    assert remedy.startswith("unset HF_HUB_OFFLINE")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    assert is_published(find(), folder)


def test_a_branch_is_one_commit_though_it_moves(
    client, folder, server, monkeypatch
):
    find(f"hf://{REPOSITORY}")
    files = tiny_run.contents(folder)
    files[RECIPE] += b"\n"
    told = json.loads(files[FINGERPRINT])
    told["files"][RECIPE] = describe(files[RECIPE])
    files[FINGERPRINT] = json.dumps(told).encode()
    commit = server.push(REPOSITORY, files)
    find(f"hf://{REPOSITORY}@{commit}")
    (branch,) = Path(hub.constants.HF_HUB_CACHE).glob("*/refs/main")
    look = hub_client.try_to_load_from_cache

    def look_while_another_fetches(*args, **kwargs):
        path = look(*args, **kwargs)
        branch.write_text(commit)
        return path

    monkeypatch.setattr(
        hub_client, "try_to_load_from_cache", look_while_another_fetches
    )
    found = hub_client.fetch(REPOSITORY, "main")
    assert found == {name: files[name] for name in NEEDED}


def test_a_cache_that_cannot_be_written(client, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    cache = str(tmp_path / "file" / "cache")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", cache)
    with pytest.raises(HubError, match="(?s)the cache.*cannot be .*HF_HOME"):
        find()


def test_errors_travel_between_processes():
    assert HubError is keras_resfam.HubError
    error = HubError.about("org/name", "main", "cause", "remedy")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_the_top_may_be_left_out(home, folder, pooling):
    whole = DMRNet(depth=8, weights="digits")
    body = DMRNet(
        depth=8,
        weights="digits",
        include_top=False,
        input_shape=(16, 16, 1),
        pooling=pooling,
    )
    assert body.input_shape == (None, 16, 16, 1)
    for layer in body.layers:
        twin = whole.get_layer(layer.name) if layer.weights else layer
        for ours, theirs in zip(
            layer.get_weights(), twin.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_input_tensor_after_layers_of_the_users(home, folder):
    image = keras.Input((8, 8, 1))
    first = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="own")
    model = DMRNet(
        depth=8,
        weights="digits",
        input_tensor=first(image),
        classifier_activation=None,
    )
    logits = keras.ops.convert_to_numpy(model([IMAGES], training=False))
    np.testing.assert_allclose(
        logits, published_logits(folder), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(first.get_weights()[0], [[[[1.0]]]])


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"]
)
def test_under_other_precisions(home, folder, quick_initializers, policy):
    reference = DMRNet(depth=8, weights="digits")
    with dtype_policy(policy):
        model = DMRNet(depth=8, weights="digits")
        assert keras.config.dtype_policy().name == policy
    tolerance = 1e-2 if policy == "bfloat16" else 0.0
    kernel = model.get_layer("stem_conv").kernel
    assert kernel.dtype == (policy if policy == "bfloat16" else "float32")
    for ours, theirs in zip(model.weights, reference.weights, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(keras.ops.cast(ours, "float32")),
            keras.ops.convert_to_numpy(theirs),
            rtol=tolerance,
        )


def test_channels_first(home, folder):
    keras.config.set_image_data_format("channels_first")
    try:
        model = DMRNet(depth=8, weights="digits", classifier_activation=None)
        assert model.input_shape == (None, 1, 8, 8)
        if keras.backend.backend() != "tensorflow":  # has no such CPU kernels
            np.testing.assert_allclose(
                fingerprint.logits(model, (8, 8, 1)),
                published_logits(folder),
                rtol=1e-4,
                atol=1e-5,
            )
    finally:
        keras.config.set_image_data_format("channels_last")
    reference = DMRNet(depth=8, weights="digits")
    for ours, theirs in zip(
        model.get_weights(), reference.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("builder", "trained", "asked"),
    [
        (WideResNet, {"dropout": 0.0}, {"dropout": 0.3}),
        (OrthoPlainNet, {"modulation": False}, {"orthonormality": 1e-3}),
    ],
)
def test_what_acts_in_training_only_may_differ(
    tmp_path, monkeypatch, quick_initializers, builder, trained, asked
):
    size = {"depth": 10, "width": 1} if builder is WideResNet else {"depth": 8}
    tiny_run.use_checkout(tmp_path, monkeypatch)
    run = tiny_run.make(tmp_path / "run", builder.__name__, size | trained)
    folder = packaging.package(run)
    model = builder(**size, **asked, weights=folder, classifier_activation=None)
    assert_published(model, folder)


# Refusals ------------------------------------------------------------------


def test_a_name_without_weights_lists_those_that_exist(home):
    with pytest.raises(ValueError, match="Received: weights='digits'") as info:
        DMRNet(depth=20, weights="digits")
    assert 'DMRNet(depth=8, weights="digits")' in str(info.value)
    with pytest.raises(ValueError, match="Weights for ResNet: none"):
        keras_resfam.ResNet(depth=8, weights="cifar10")
    with pytest.raises(ValueError, match="Received: weights='imagenet'"):
        DMRNet(depth=8, weights="imagenet")
    with pytest.raises(ValueError, match="Received: weights=3"):
        DMRNet(depth=8, weights=3)


def test_weights_of_another_architecture(home, folder):
    with pytest.raises(ValueError, match=r"DMRNet\(depth=14\).*DMRNet\(d.*8"):
        DMRNet(depth=14, weights=folder)
    with pytest.raises(ValueError, match="DILNet"):
        keras_resfam.DILNet(depth=8, weights=folder)
    with pytest.raises(ValueError, match="branches=3"):
        DMRNet(depth=8, branches=3, weights=folder)


def test_other_classes_or_activations(home):
    with pytest.raises(ValueError, match="classes=7"):
        DMRNet(depth=8, weights="digits", classes=7)
    with pytest.raises(ValueError, match="classifier_activation='relu'"):
        DMRNet(depth=8, weights="digits", classifier_activation="relu")
    DMRNet(depth=8, weights="digits", classes=7, include_top=False)


def test_images_of_other_channels(home):
    with pytest.raises(ValueError, match="have 1 channel, .*: 3 channels"):
        DMRNet(
            depth=8,
            weights="digits",
            include_top=False,
            include_preprocessing=False,
            input_shape=(8, 8, 3),
        )


def altered(folder, tmp_path, name, change):
    """A copy of the folder whose file is another, and said to be right."""
    copy = tmp_path / "altered"
    shutil.copytree(folder, copy)
    change(copy / name)
    record = json.loads((copy / FINGERPRINT).read_text())
    record["files"][name] = describe((copy / name).read_bytes())
    (copy / FINGERPRINT).write_text(json.dumps(record))
    return copy


def swap(path, one, other):
    """Exchanges the values of two layers of the same shape."""
    with h5py.File(path, "r+") as file:
        groups = {
            group["vars"].attrs["name"]: group["vars"]
            for group in file["layers"].values()
        }
        for key in list(groups[one]):
            values = groups[one][key][()], groups[other][key][()]
            groups[one][key][...], groups[other][key][...] = values[::-1]


BRANCHES = [f"stage1_block1_branch{k}_conv1" for k in (1, 2)]


def test_swapped_branches_give_other_logits(folder, tmp_path):
    change = functools.partial(swap, one=BRANCHES[0], other=BRANCHES[1])
    copy = altered(folder, tmp_path, WEIGHTS, change)
    with pytest.raises(ValueError, match="should give the logits"):
        packaging.check(copy)


def edit_fingerprint(change):
    """Changes the variables that a fingerprint tells."""

    def edit(path):
        record = json.loads(path.read_text())
        record["variables"] = change(record["variables"])
        path.write_text(json.dumps(record))

    return edit


def with_type(variables, dtype):
    entry = variables["stem_conv/kernel"]
    return variables | {"stem_conv/kernel": entry | {"dtype": dtype}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda variables: None, "fingerprint.json is invalid"),
        (lambda variables: {}, "should have the arrays None"),
        (lambda variables: with_type(variables, "int16"), "Layer 'stem_conv'"),
        (lambda variables: with_type(variables, 3), "Layer 'stem_conv'"),
        (
            lambda variables: (
                variables
                | {
                    "stem_conv/kernel": {
                        "dtype": "float16",
                        "shape": [3, 3, 16],
                    }
                }
            ),
            "Layer 'stem_conv'",
        ),
        (
            lambda variables: variables | {"more/kernel": 3},
            "fingerprint.json is invalid",
        ),
    ],
)
def test_types_shapes_and_names_are_always_compared(
    folder, tmp_path, change, named
):
    copy = tmp_path / "altered"
    shutil.copytree(folder, copy)
    edit_fingerprint(change)(copy / FINGERPRINT)
    with pytest.raises(ValueError, match=named):
        DMRNet(depth=8, weights=copy)


def test_halves_that_are_stored_as_integers(folder, tmp_path):
    def integers(path):
        with h5py.File(path, "r+") as file:
            for group in file["layers"].values():
                if group["vars"].attrs["name"] == "stem_conv":
                    values = group["vars/0"][()]
                    del group["vars/0"]
                    group["vars/0"] = values.view("int16")

    copy = altered(folder, tmp_path, WEIGHTS, integers)
    with pytest.raises(ValueError, match="type float16.* Received: int16"):
        DMRNet(depth=8, weights=copy)
    edit_fingerprint(lambda v: with_type(v, "int16"))(copy / FINGERPRINT)
    with pytest.raises(ValueError, match="type float16.* Received: int16"):
        DMRNet(depth=8, weights=copy)


def test_a_folder_with_digests_of_its_variables_loads(folder, tmp_path):
    """Such as were made before version 0.2."""
    copy = tmp_path / "older"
    shutil.copytree(folder, copy)
    edit_fingerprint(
        lambda v: {k: entry | {"sha256": "0" * 64} for k, entry in v.items()}
    )(copy / FINGERPRINT)
    assert is_published(find(copy), folder)


def two_branches(first, second, names=("stem_conv", "right")):
    """A net whose file Keras reads in the order of `first` and `second`."""
    image = keras.Input((8, 8, 1))
    branches = [keras.layers.Conv2D(2, 3, name=name)(image) for name in names]
    x = keras.layers.Add()([branches[first], branches[second]])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3, name="predictions")(x))


@pytest.fixture
def two_branched(tmp_path):
    """A net, and the `Source` of its file without and with a fingerprint."""
    path = tmp_path / "net.weights.h5"
    net = two_branches(0, 1)
    for layer in net.layers:
        layer.set_weights([fingerprint.stored(w) for w in layer.get_weights()])
    net.save_weights(path)
    bare = sources.Source("net", hdf5.read(path.read_bytes()))
    return net, bare, path


def test_a_graph_that_keras_would_misload(two_branched):
    net, source, path = two_branched
    swapped = two_branches(1, 0)
    swapped.load_weights(path)  # without a word
    kernels = [m.get_layer("right").get_weights()[0] for m in (net, swapped)]
    assert not np.array_equal(*kernels)
    source.load_into(swapped.layers)
    for layer in filter(lambda x: x.weights, net.layers):
        for ours, theirs in zip(
            layer.get_weights(),
            swapped.get_layer(layer.name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_a_layer_of_another_name(two_branched):
    _, source, path = two_branched
    victim = two_branches(0, 1, ("stem_conv", "other"))
    victim.load_weights(path)  # without a word
    before = victim.get_weights()
    with pytest.raises(ValueError, match="Layer 'right'"):
        source.load_into(victim.layers)
    for ours, theirs in zip(before, victim.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def external(entry):
    group, key = entry.parent, entry.name.split("/")[-1]
    shape, size = entry.shape, entry.nbytes
    del group[key]
    group.create_dataset(
        key, shape, "float32", external=[("/etc/passwd", 0, size)]
    )


def bomb(entry):
    group, key = entry.parent, entry.name.split("/")[-1]
    del group[key]
    group.create_dataset(key, (2**24, 2**24), "float32", chunks=(1, 2**10))


def linked(entry):
    group, key = entry.parent, entry.name.split("/")[-1]
    del group[key]
    group[key] = h5py.ExternalLink("other.h5", "/values")


def flat(entry):
    group, key = entry.parent, entry.name.split("/")[-1]
    del group[key]
    group[key] = np.zeros(3, "float32")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (external, "should be in the file"),
        (bomb, "should be in the file"),
        (linked, "is a link"),
        (flat, "stem_conv"),
    ],
    ids=["external", "bomb", "linked", "flat"],
)
def test_files_that_are_none_of_keras(home, tmp_path, damage, named):
    path = shutil.copy(home / "runs" / "digits" / "model.weights.h5", tmp_path)
    with h5py.File(path, "r+") as file:
        for group in file["layers"].values():
            if group["vars"].attrs.get("name") == "stem_conv":
                damage(group["vars"]["0"])
    with pytest.raises(ValueError, match=named):
        DMRNet(depth=8, weights=path, include_preprocessing=False)


def test_a_recipe_that_lies_about_its_classes(folder, tmp_path):
    def more(path):
        recipe = json.loads(path.read_text())
        path.write_text(json.dumps(recipe | {"classes": 10**14}))

    copy = altered(folder, tmp_path, RECIPE, more)
    assert DMRNet(depth=8, weights=copy).output_shape == (None, 10)


def test_a_folder_that_lies_about_its_depth(folder, tmp_path):
    def deeper(path):
        recipe = json.loads(path.read_text())
        recipe["arguments"]["depth"] = 14
        path.write_text(json.dumps(recipe))

    copy = altered(folder, tmp_path, RECIPE, deeper)
    with pytest.raises(ValueError, match="stage1_block2_branch1_conv1"):
        DMRNet(depth=14, weights=copy)


def test_a_bare_file_of_another_depth(home, tmp_path):
    path = home / "runs" / "digits" / "model.weights.h5"
    options = {"input_shape": (8, 8, 1), "include_preprocessing": False}
    with pytest.raises(ValueError, match="those of DMRNet.depth=8"):
        DMRNet(depth=14, weights=path, **options)
    alone = shutil.copy(path, tmp_path)
    with pytest.raises(ValueError, match="stage1_block2"):
        DMRNet(depth=14, weights=alone, **options)


def test_networks_of_the_same_layers_are_told_apart_by_the_recipe(tmp_path):
    run = tiny_run.make(tmp_path / "run", "OrthoPlainNet", {"depth": 8})
    with pytest.raises(ValueError, match="those of OrthoPlainNet.depth=8"):
        keras_resfam.ResNet(depth=8, weights=run / "model.weights.h5")


def flip(path, where=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", [WEIGHTS, RECIPE])
@pytest.mark.parametrize("damage", [flip, truncate])
def test_damaged_folders(folder, tmp_path, name, damage):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy / name)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        DMRNet(depth=8, weights=copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"{name} not found"):
        DMRNet(depth=8, weights=copy)


def test_a_truncated_bare_file(home, tmp_path):
    path = tmp_path / "cut.weights.h5"
    shutil.copy(home / "runs" / "digits" / "model.weights.h5", path)
    truncate(path)
    options = {"input_shape": (8, 8, 1), "include_preprocessing": False}
    with pytest.raises(ValueError, match=r"cut\.weights\.h5"):
        DMRNet(depth=8, weights=path, **options)


def test_a_file_of_a_run_has_its_digest_beside_it(tmp_path):
    path = tmp_path / "best.weights.h5"
    options = {"input_shape": (8, 8, 1), "include_preprocessing": False}
    for depth in (14, 8):  # the second takes the place of the first
        network = DMRNet(depth=depth, **options)
        loop.save_weights(network, path)
        again = DMRNet(depth=depth, weights=path, **options)
        for ours, theirs in zip(
            again.get_weights(), network.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    beside = tmp_path / "best.weights.h5.sha256"
    first, _ = beside.read_text().splitlines()
    assert first == f"{describe(path.read_bytes())['sha256']}  {path.name}"
    flip(path, 0.9)
    with pytest.raises(ValueError, match="those that training wrote.*SHA-256"):
        DMRNet(depth=8, weights=path, **options)
    beside.unlink()  # and without it nothing shows
    DMRNet(depth=8, weights=path, **options)


def test_a_kill_between_digest_and_weights_loses_neither(tmp_path, monkeypatch):
    path = tmp_path / "best.weights.h5"
    options = {"input_shape": (8, 8, 1), "include_preprocessing": False}
    network = DMRNet(depth=8, **options)
    loop.save_weights(network, path)
    before, replace = path.read_bytes(), os.replace

    def killed(source, target):
        if target == path:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.save_weights(tiny_run.network(), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    DMRNet(depth=8, weights=path, **options)


def test_the_file_of_a_folder_is_checked_as_the_folder_is(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / WEIGHTS
    source = find(path)
    assert is_published(source, folder)
    tiny_run.network().save_weights(path)
    with pytest.raises(ValueError, match="from the published ones: model"):
        find(path)


@pytest.mark.parametrize(
    "path", ["none.weights.h5", "no/such", "~/no/such", "runs/none.keras"]
)
def test_a_path_of_nothing(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="does not exist.*Received: "):
        find(path)


def test_a_path_in_the_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert is_published(find(f"~/{folder.name}"), folder)


def test_a_saved_model_is_for_keras_to_load(tmp_path):
    path = tmp_path / "model.keras"
    path.touch()
    with pytest.raises(ValueError, match="with `keras.saving.load_model`"):
        find(path)


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "other.weights.h5"
    with h5py.File(path, "w") as file:
        file["values"] = [1, 2]
    with pytest.raises(ValueError, match="as a '.weights.h5'"):
        find(path)


def test_a_changed_checkout_is_refused(home, folder, tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    shutil.copytree(home, checkout)
    monkeypatch.setattr(sources, "CHECKOUT", checkout)
    flip(checkout / "weights" / "dmrnet_8_digits" / WEIGHTS)
    with pytest.raises(ValueError, match="git restore"):
        find()


def test_not_published_and_no_checkout(client):
    registry.write([dataclasses.replace(client, commit=None)])
    with pytest.raises(HubError, match="has not been published"):
        find()


# Faults of the Hub ---------------------------------------------------------

WORDS = {
    "refuse": ("cannot be reached",),
    "401": ("token is missing or wrong",),
    "403": ("access is denied",),
    "404": ("missing",),
    "429": ("too many requests",),
    "500": ("the Hub has trouble",),
    "hang": ("cannot be reached",),
    "flip": ("sha256", "cannot be read"),
    "stale": (
        "was not served",
        "model.weights.h5 should have",
        "the answer is incomplete",
    ),
    "cut": ("or disconnected",),
    "short": ("the answer is incomplete",),
}


@pytest.mark.parametrize(
    ("kind", "method", "where"),
    [
        *((kind, "", "") for kind in WORDS if kind not in ("flip", "cut")),
        ("404", "", "/resolve/"),
        ("500", "GET", "/resolve/.*h5"),
        ("flip", "GET", "/resolve/"),
        ("flip", "GET", "/resolve/.*h5"),
        ("short", "GET", "/resolve/.*h5"),
        ("cut", "GET", "/resolve/.*h5"),
        ("stale", "", "/resolve/"),
        ("stale", "GET", "/resolve/"),
    ],
)
@pytest.mark.parametrize("weights", ["digits", f"hf://{REPOSITORY}"])
def test_faults(client, folder, server, weights, kind, method, where):
    older = tiny_run.contents(folder) | {WEIGHTS: b"of an older commit"}
    head = server.repositories[REPOSITORY].head
    head.parent = hub.Commit("0" * 40, None, older)
    with server.fault(kind, where, method):
        with pytest.raises(HubError) as info:
            find(weights)
    text = str(info.value)
    revision = client.commit if weights == "digits" else "main"
    assert f"\nRepository: {REPOSITORY}\nRevision: {revision}\nCause" in text
    assert "\nRemedy: " in text
    assert any(word in text for word in WORDS[kind]), text
    assert is_published(find(weights), folder)


@pytest.mark.parametrize("weights", ["digits", f"hf://{REPOSITORY}"])
def test_an_older_commit_that_is_whole(client, folder, server, weights):
    head = server.repositories[REPOSITORY].head
    head.parent = hub.Commit("0" * 40, None, tiny_run.contents(folder))
    with server.fault("stale", "/resolve/"):
        with pytest.raises(HubError, match="was not served"):
            find(weights)
    server.requests.clear()
    assert is_published(find(weights), folder)
    assert server.requests


def test_a_download_that_is_cut_once_goes_on(client, folder, server):
    with server.fault("cut", "h5", "GET", times=1):
        assert is_published(find(), folder)


def test_a_revision_or_a_file_that_is_not_there(client, server):
    with pytest.raises(HubError, match="no such revision"):
        find(f"hf://{REPOSITORY}@v9")
    with pytest.raises(HubError, match="the repository does not exist"):
        find("hf://org/other")
    server.push("org/other", {"config.json": b"{}"})
    with pytest.raises(ValueError, match="fingerprint.json, or a checkpoint"):
        find("hf://org/other")
    with pytest.raises(ValueError, match="repository='a/b/c'"):
        find("hf://a/b/c")


def test_a_repository_of_something_else(client, server):
    other = {name: b"[]" for name in NEEDED}
    server.push("org/other", other)
    with pytest.raises(HubError, match="fingerprint.json cannot be read"):
        find("hf://org/other")
    files = {name: describe(b"[]") for name in NEEDED}
    other[FINGERPRINT] = json.dumps({"files": files}).encode()
    server.push("org/other", other)
    with pytest.raises(ValueError, match="fingerprint.json is invalid"):
        find("hf://org/other")


@pytest.mark.parametrize("name", [WEIGHTS, FINGERPRINT])
@pytest.mark.parametrize("damage", [flip, truncate, os.remove])
@pytest.mark.parametrize("weights", ["digits", f"hf://{REPOSITORY}"])
def test_a_bad_file_in_the_cache(client, folder, weights, damage, name):
    find(weights)
    (cached,) = Path(hub.constants.HF_HUB_CACHE).rglob(f"snapshots/*/{name}")
    damage(cached.resolve())
    assert is_published(find(weights), folder)
    assert is_published(find(weights), folder)


def test_a_private_repository_and_its_token(
    client, folder, server, monkeypatch, caplog
):
    server.repositories[REPOSITORY].private = True
    caplog.set_level(logging.DEBUG)
    with pytest.raises(HubError, match="HF_TOKEN"):
        find()
    monkeypatch.setenv("HF_TOKEN", "hf_a_wrong_token")
    with pytest.raises(HubError, match="HF_TOKEN") as info:
        find()
    said = "".join(traceback.format_exception(info.value))
    assert "hf_a_wrong_token" not in said
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for kind in ("500", "refuse", "hang"):
        with server.fault(kind), pytest.raises(HubError) as info:
            find()
        said += "".join(traceback.format_exception(info.value))
    assert is_published(find(), folder)
    for secret in (TOKEN, "hf_a_wrong_token", "Bearer"):
        assert secret not in said
        assert secret not in caplog.text


FETCH = """
import hashlib, sys
from keras_resfam.pretrained import hub
print("ready", flush=True)
sys.stdin.readline()
files = hub.fetch(sys.argv[1], sys.argv[2])
print(hashlib.sha256(files["model.weights.h5"]).hexdigest())
"""


def start(server, cache, commit):
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, REPOSITORY, commit],
        env=os.environ | hub.environment(server, cache),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_processes_at_once_and_one_that_is_killed(client, folder, server):
    cache = Path(hub.constants.HF_HUB_CACHE)
    cache.mkdir()
    processes = [start(server, cache, client.commit) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    killed, *others = processes
    with server.fault("stall", "h5", "GET"):
        killed.stdin.write("\n")
        killed.stdin.flush()
        assert server.stalled.wait(30)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert list(cache.rglob("*.incomplete"))
    assert not list(cache.rglob(f"snapshots/*/{WEIGHTS}"))
    for process in others:
        process.stdin.write("\n")
        process.stdin.flush()
    expected = client.files[WEIGHTS]["sha256"]
    for process in others:
        output, _ = process.communicate(timeout=60)
        assert output.strip() == expected
    assert is_published(find(), folder)


def cached_file(name):
    """The entry of a file in the cache's only snapshot."""
    cache = Path(hub.constants.HF_HUB_CACHE)
    (entry,) = cache.rglob(f"snapshots/*/{name}")
    return entry


@pytest.mark.parametrize("linked", ["entry", "blob", "snapshot"])
def test_what_a_link_in_the_cache_leads_to_stays(
    client, folder, tmp_path, linked
):
    find()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / RECIPE).write_text("my own")
    entry = cached_file(RECIPE)
    if linked == "snapshot":
        shutil.rmtree(entry.parent)
        for name in set(NEEDED) - {RECIPE}:
            shutil.copy(folder / name, mine)
        entry.parent.symlink_to(mine)
    else:
        link = entry if linked == "entry" else entry.resolve()
        link.unlink()
        link.symlink_to(mine / RECIPE)
    before = tiny_run.contents(mine)
    if linked == "snapshot":
        with pytest.raises(HubError, match=f"{RECIPE} should have"):
            find()
    else:
        assert is_published(find(), folder)
    assert tiny_run.contents(mine) == before


@pytest.mark.parametrize("weights", ["digits", f"hf://{REPOSITORY}"])
def test_a_file_of_another_size_is_not_downloaded(
    client, folder, server, weights
):
    files = tiny_run.contents(folder)
    files[WEIGHTS] += bytes(10**6)
    head = server.repositories[REPOSITORY].head
    head.files = files  # the commit that is pinned, and larger
    for _ in range(2):
        with pytest.raises(HubError, match="should have 4.* bytes, but has 1"):
            find(weights)
    fetched = [path for method, path in server.requests if method == "GET"]
    assert not [path for path in fetched if path.endswith(WEIGHTS)]


def reachable(error):
    """Errors and local variables that lead on from an error, as text."""
    found, seen = [], set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found += [repr(error), repr(error.__dict__)]
        frames = traceback.walk_tb(error.__traceback__)
        for frame, _ in frames:
            if frame.f_code.co_filename != __file__:
                found += map(repr, frame.f_locals.values())
                found += [
                    repr(value.__dict__)
                    for value in frame.f_locals.values()
                    if isinstance(value, BaseException)
                ]
        error = error.__context__
    return "".join(found)


@pytest.mark.parametrize("kind", ["401", "500", "refuse", "hang", "short"])
def test_secrets_are_not_in_errors(client, server, monkeypatch, kind):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    endpoint = server.url.replace("://", "://user:pass-word@")
    url = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    with server.fault(kind), pytest.raises(HubError) as info:
        find()
    assert info.value.__context__ is None
    said = "".join(traceback.format_exception(info.value))
    for secret in (TOKEN, "pass-word", "Bearer"):
        assert secret not in said
        assert secret not in reachable(info.value)


def test_a_token_that_is_not_ascii(client, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_schlüssel")
    with pytest.raises(HubError, match="token has invalid characters") as info:
        find()
    said = "".join(traceback.format_exception(info.value))
    assert "schl" not in said + reachable(info.value)
    assert info.value.__context__ is None


@pytest.mark.parametrize("answer", [b"[]", b"null", b'"model"', b"{}", b"7"])
def test_an_answer_that_is_no_model(client, server, monkeypatch, answer):
    monkeypatch.setattr(hub._Handler, "json", lambda self, _: self.send(answer))
    with pytest.raises(HubError, match="Cause: "):
        find()


# The registry --------------------------------------------------------------


def test_list_weights(client):
    (network,) = registry.list_weights()
    assert str(network) == (
        'DMRNet(depth=8, weights="digits"): 11.11 % on scikit-learn digits, '
        f"hf://{REPOSITORY}@{client.commit}"
    )
    assert registry.list_weights(DMRNet, "digits") == [network]
    assert registry.list_weights("DMRNet") == [network]
    assert not registry.list_weights(family="WideResNet")
    assert not registry.list_weights(dataset="cifar10")
    with pytest.raises(ValueError, match="`family`.*'DMRNet'.*='DMRnet'"):
        registry.list_weights("DMRnet")
    with pytest.raises(ValueError, match="cifar100.*Received: dataset='cifar'"):
        registry.list_weights(dataset="cifar")


def variant_of(network, better):
    """Another, whose files cannot be loaded."""
    return dataclasses.replace(
        network,
        name=f"{network.name}_a",
        accuracy=network.accuracy + better,
        files={name: {"bytes": 0, "sha256": ""} for name in NEEDED},
    )


@pytest.mark.parametrize("better", [-0.1, 0.0])
def test_of_variants_the_most_accurate_is_meant(client, folder, better):
    """And where they are alike, the one without a suffix."""
    variant = variant_of(client, better)
    registry.write([variant, client])
    assert is_published(find("digits"), folder)
    with pytest.raises(HubError, match="should have 0 bytes"):
        find(variant.name)
    assert client.call == 'DMRNet(depth=8, weights="digits")'
    assert variant.call == f'DMRNet(depth=8, weights="{variant.name}")'


def test_a_variant_that_is_more_accurate_is_meant(client):
    variant = variant_of(client, 0.1)
    registry.write([client, variant])
    with pytest.raises(HubError, match="should have 0 bytes"):
        find("digits")
    assert variant.call == 'DMRNet(depth=8, weights="digits")'
    assert client.call == f'DMRNet(depth=8, weights="{client.name}")'


def test_a_builder_that_has_learned_an_argument(client):
    arguments = {"depth": 8}
    registry.write([dataclasses.replace(client, arguments=arguments)])
    assert find().classes == 10


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
def test_the_networks_of_the_project(network):
    folder = PROJECT / "weights" / network.name
    packaging.check(folder)
    told = packaging.entry(folder, network.repository, network.commit)
    assert network == told


def test_every_folder_of_the_project_is_registered():
    folders = {p.parent.name for p in PROJECT.glob("weights/*/config.json")}
    assert folders == {network.name for network in NETWORKS}
