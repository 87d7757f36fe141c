"""Checkpoints of others: verified, loaded by name, equal to their networks."""

import json
import pickle
import sys

import keras
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.numpy import load, save

import hub
import keras_resfam
import torch_networks
from keras_resfam import HubError, ResNet, WideResNet, to_torch_state_dict
from keras_resfam.models import families
from keras_resfam.pretrained import foreign, registry, sources, tensor_files
from keras_resfam.pretrained.files import describe
from peers import peer, randomized

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 70.0)
CONFIG = {
    "mean": [x / 255 for x in MEAN],
    "std": [x / 255 for x in STD],
    "input_size": [3, 32, 32],
    "label_names": list("abcdefghij"),
}
REPOSITORY = "somebody/wrn_10_1"
LARGE = pytest.mark.large  # 178 to 507 MB
SMALL = {"depth": 10, "width": 1}
"""A network of 78 thousand parameters, for what needs no other."""


def photos(*shape):
    return np.random.default_rng(0).integers(0, 256, (2, *shape, 3))


def normalized(images):
    x = (images - np.array(MEAN)) / np.array(STD)
    return torch.tensor(x.astype("float32")).permute(0, 3, 1, 2)


def assert_alike(model, images, theirs):
    ours = model(images.astype("float32"), training=False)
    ours = keras.ops.convert_to_numpy(ours)
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def numpy_state(state):
    return {key: tensor.numpy() for key, tensor in state.items()}


def small_state():
    """The tensors of a WRN-10-1, as RobustBench calls them."""
    tensors = torch_networks.Tensors(torch_networks.XTERNALZ)
    torch_networks.wide_resnet(tensors, torch.zeros(1, 3, 8, 8), 1, 1)
    return tensors.state


STATE = numpy_state(small_state())


def find(weights, family="WideResNet", arguments=SMALL):
    arguments = families.defaults(family) | arguments
    return sources.find(weights, family, arguments)


def write(path, state):
    path.write_bytes(save(state))
    return path


# The same networks ---------------------------------------------------------


def published(library, name, shape, folder):
    """A random network of a library, and the files it would be published as."""
    if library == "torchvision":  # which says nothing beside
        network = randomized(getattr(peer("torchvision.models"), name)())
        state = numpy_state(network.state_dict())
        return network, {"model.safetensors": save(state)}
    timm = peer("timm")
    network = randomized(timm.create_model(name))
    own = CONFIG | {"input_size": (3, *shape)}
    network.pretrained_cfg = network.pretrained_cfg | own
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return network, {x.name: x.read_bytes() for x in folder.iterdir()}


@pytest.mark.parametrize(
    "library, builder, name, shape",
    [
        ("timm", "ResNet18", "resnet18", (225, 225)),
        ("torchvision", "ResNet50", "resnet50", (224, 224)),
        ("timm", "WideResNet50_2", "wide_resnet50_2", (97, 65)),
        ("timm", "ResNet34", "resnet34", (64, 64)),
        *(
            pytest.param(
                "timm", builder, builder.lower(), (65, 97), marks=LARGE
            )
            for builder in ("ResNet101", "ResNet152")
        ),
        pytest.param(
            *("timm", "WideResNet101_2", "wide_resnet101_2", (64, 64)),
            marks=LARGE,
        ),
    ],
)
def test_imagenet_networks_of_the_hub(
    library,
    builder,
    name,
    shape,
    server,
    quick_initializers,
    monkeypatch,
    tmp_path,
):
    for waiting in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, waiting, 60)  # the Hub digests 276 MB
    network, files = published(library, name, shape, tmp_path / "network")
    server.push(REPOSITORY, files)
    told = library == "timm"  # how images are normalized
    model = getattr(keras_resfam, builder)(
        weights=f"hf://{REPOSITORY}",
        classifier_activation=None,
        include_preprocessing=True if told else (MEAN, STD),
    )
    assert model.input_shape == (None, *shape, 3)
    images = photos(*shape)
    assert_alike(model, images, network(normalized(images)))


@pytest.mark.parametrize("network", registry.read_public(), ids=repr)
def test_photographs_are_cut_as_timm_cuts_them(network):
    """For each network of the registry, in training's and the test's size."""
    timm = peer("timm")
    config = timm.models.get_pretrained_cfg(network.name).to_dict()
    source = sources.Source(
        network.name,
        {},
        crops=foreign._crops(config),
        interpolation=foreign._interpolation(config),
    )
    for test in (False, True):
        known = timm.data.resolve_data_config(
            pretrained_cfg=config, use_test_size=test
        )
        assert known["crop_mode"] == "center"
        assert source.data_config(known["input_size"][1:], True) == {
            "crop": known["crop_pct"],
            "interpolation": known["interpolation"],
        }


@pytest.mark.parametrize(
    "builder, name",
    [
        ("ResNet34", "resnet34"),
        ("ResNet101", "resnet101"),
        ("ResNet152", "resnet152"),
        ("WideResNet101_2", "wide_resnet101_2"),
    ],
)
def test_names_and_shapes_of_the_other_imagenet_networks(
    builder, name, quick_initializers
):
    models = peer("torchvision.models")
    with torch.device("meta"):
        theirs = getattr(models, name)().state_dict()
    ours = to_torch_state_dict(getattr(keras_resfam, builder)())
    assert {key: x.shape for key, x in ours.items()} == {
        key: tuple(x.shape)
        for key, x in theirs.items()
        if not key.endswith("num_batches_tracked")
    }


LAYOUTS = {
    "XTERNALZ": ("WideResNet", {"depth": 16, "width": 2}),
    "PYTORCHCV_WRN": ("WideResNet", {"depth": 16, "width": 2}),
    "PYTORCHCV_RESNET": ("ResNet", {"depth": 14, "shortcut": "projection"}),
    "CHENYAOFO": ("ResNet", {"depth": 14, "shortcut": "projection"}),
    "KUANGLIU": ("ResNet18CIFAR", {}),
    "TRANSFORMERS": ("ResNet18", {}),
}
RESNET18 = {"blocks": (2, 2, 2, 2), "filters": (64, 128, 256, 512)}
ARCHITECTURES = {
    "WideResNet": {"blocks": 2, "width": 2},
    "ResNet": {"blocks": (2, 2, 2), "filters": (16, 32, 64)},
    "ResNet18CIFAR": RESNET18,
    "ResNet18": RESNET18 | {"classes": 5, "imagenet": True},
}


def run(names, builder, x, **others):
    """Somebody's network of drawn tensors: its logits, and the tensors."""
    tensors = torch_networks.Tensors(names)
    wide = builder == "WideResNet"
    network = torch_networks.wide_resnet if wide else torch_networks.resnet
    logits = network(tensors, x, **ARCHITECTURES[builder] | others)
    return logits, tensors.state


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_by_their_documented_names(layout, tmp_path):
    """The file has its tensors in no order of layers."""
    images = photos(33, 47)
    builder, arguments = LAYOUTS[layout]
    names = getattr(torch_networks, layout)
    logits, state = run(names, builder, normalized(images))
    state = {key: state[key] for key in sorted(state, key=lambda x: x[::-1])}
    path = write(tmp_path / "any.safetensors", numpy_state(state))
    model = getattr(keras_resfam, builder)(
        **arguments,
        weights=path,
        classifier_activation=None,
        input_shape=(33, 47, 3),
        include_preprocessing=(np.array(MEAN), list(STD)),
    )
    assert_alike(model, images, logits)


# Files ---------------------------------------------------------------------


def wrap_in_module(state):
    dead = {"sub_block1.layer.0.conv1.weight": torch.zeros(2, 2, 3, 3)}
    state = state | dead
    return {f"module.{key}": x for key, x in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 200},
        lambda state: {"model": state},
        lambda state: {"net": state, "acc": 95.0},
        wrap_in_module,
        lambda state: state | {"bn1.num_batches_tracked": torch.tensor(7)},
    ],
    ids=["plain", "state_dict", "model", "net", "module", "counts"],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_pickles(wrap, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(small_state()), path)
    assert_holds(find(path), STATE)


def assert_holds(source, state):
    """Whether a source has a state's values, exactly and in our axes."""
    layers = source.layers
    assert len(layers) == 17
    for name, key in {
        "stem_conv": "conv1.weight",
        "stage2_block1_shortcut_conv": "block2.layer.0.convShortcut.weight",
        "predictions": "fc.weight",
    }.items():
        kernel = state[key].astype("float32")
        axes = (2, 3, 1, 0) if kernel.ndim == 4 else (1, 0)
        np.testing.assert_array_equal(layers[name][0], kernel.transpose(axes))
    parts = ("weight", "bias", "running_mean", "running_var")
    for ours, part in zip(layers["head_bn"], parts, strict=True):
        np.testing.assert_array_equal(ours, state[f"bn1.{part}"])


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
@pytest.mark.parametrize("pickled", [False, True])
def test_other_types_load_exactly(dtype, pickled, tmp_path):
    types = {"F16": "float16", "BF16": "bfloat16", "F64": "float64"}
    kind = getattr(torch, types[dtype])
    state = {key: x.to(kind) for key, x in small_state().items()}
    exact = numpy_state({key: x.float() for key, x in state.items()})
    if pickled:
        path = tmp_path / "weights.pth"
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        path = tmp_path / "weights.safetensors"
        save_file(state, path)
        assert f'"{dtype}"'.encode() in path.read_bytes()
    model = WideResNet(**SMALL, weights=path, include_preprocessing=False)
    written = to_torch_state_dict(model)
    assert written.keys() == exact.keys()
    for key, values in written.items():
        np.testing.assert_array_equal(values, exact[key])


class Bomb:
    def __reduce__(self):
        return print, ("the pickle was run",)


def test_a_pickle_runs_nothing(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Bomb()}))
    with pytest.raises(ValueError, match="without running code that"):
        find(path)
    assert "was run" not in capsys.readouterr().out


def test_a_pickle_needs_torch(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save(small_state(), path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="torch is needed.*safetensors"):
        find(path)


@pytest.mark.parametrize(
    "stored, message",
    [
        (b"conv1.weight", "torch cannot read tensors from it"),
        (small_state()["conv1.weight"], "named tensors, but holds a Tensor"),
        ({"conv1.weight": "text"}, "named tensors.*'conv1.weight' is a str"),
        ({"model": {3: torch.zeros(1)}}, "named tensors.*3 is a Tensor"),
        ({"x": torch.eye(2).to_sparse()}, "NumPy cannot hold the tensor 'x'"),
    ],
    ids=["text", "tensor", "dict of text", "dict by numbers", "sparse"],
)
def test_pickles_that_are_none(stored, message, tmp_path):
    path = tmp_path / "weights.pth"
    if isinstance(stored, bytes):
        path.write_bytes(stored)
    else:
        torch.save(stored, path)
    with pytest.raises(ValueError, match=f"{message}(?s:.*)weights.pth"):
        find(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_truncated_files(suffix, size, tmp_path):
    path = tmp_path / f"weights{suffix}"
    torch.save(small_state(), path) if suffix == ".pth" else write(path, STATE)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="`weights` should.*Received: weights"):
        find(path)


def header(tensors, body=b"\0" * 32, size=None):
    """A file of safetensors, right or wrong."""
    text = tensors if isinstance(tensors, str) else json.dumps(tensors)
    size = len(text) if size is None else size
    return size.to_bytes(8, "little") + text.encode() + body


def entry(start, stop, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


A, B = entry(0, 16, [4]), entry(16, 32, [4])


@pytest.mark.parametrize(
    "contents, message",
    [
        (b"", "too small"),
        (header({"a": A}, size=2**60), "too large"),
        (header({"a": A}, size=999), "header length"),
        (header("{nonsense"), "JSON"),
        (header({"a": A, "b": entry(8, 32, [6])}), "offset"),
        (header({"a": A, "b": entry(20, 32, [3])}), "offset"),
        (header({"a": A, "b": B}, b"\0" * 31), "not fully covered"),
        (header({"a": A, "b": B}, b"\0" * 33), "not fully covered"),
        (header({"a": entry(0, 16, [3]), "b": B}), "shape"),
        (header({"a": entry(0, 16, [4], "F99"), "b": B}), "F99"),
        (header({"a": entry(0, 32, [32], "F8_E4M3")}), "'a' has F8_E4M3"),
        (
            header(
                '{"a": %s, "a": %s}' % ((json.dumps(entry(0, 32, [8])),) * 2)
            ),
            "name 'a' twice",
        ),
    ],
)
def test_damaged_headers(contents, message):
    with pytest.raises(ValueError, match=message):
        tensor_files.read("model.safetensors", contents)


def changed(**changes):
    state = dict(STATE)
    for key, value in changes.items():
        key = key.replace("__", ".")
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return state


KERNEL = STATE["conv1.weight"]
BLOCK = "block2.layer.0.conv1.weight"


@pytest.mark.parametrize(
    "state, message",
    [
        (changed(bn1__bias=None), r"does not have 'bn1.bias'\."),
        (changed(layer5__x=KERNEL), r"no layer for 'layer5.x'\."),
        (
            changed(conv1__weight=np.zeros((16, 3, 5, 5), "float32")),
            r"shape of 'conv1.weight'. It should be \(16, 3, 3, 3\), but is "
            r"\(16, 3, 5, 5\)",
        ),
        (
            STATE | {BLOCK: STATE[BLOCK].transpose(1, 0, 2, 3)},
            rf"shape of '{BLOCK}'. It should be \(32, 16, 3, 3\), but is "
            r"\(16, 32, 3, 3\)",
        ),
        (changed(conv1__weight=KERNEL.astype("int64")), "'conv1.*int64"),
        (changed(conv1__weight=KERNEL.astype("int8")), "'conv1.* has I8"),
        (changed(conv1__weight=KERNEL[0]), "'conv1.weight'.*4 axes"),
        (changed(conv1__weight=None), "have a kernel of the first convolution"),
        ({"a": KERNEL}, "have a kernel of the first convolution.*'a'"),
        (
            changed(**{"module.bn1.bias": STATE["bn1.bias"]}),
            "no layer for 'module.bn1.bias'",
        ),
    ],
)
def test_keys_that_are_not_those_of_the_network(state, message, tmp_path):
    path = write(tmp_path / "weights.safetensors", state)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        WideResNet(**SMALL, weights=path, include_preprocessing=False)


def test_tensors_of_other_architectures(tmp_path):
    """Deeper, wider, and of another family."""
    path, x = tmp_path / "weights.safetensors", torch.zeros(1, 3, 8, 8)
    deep = torch_networks.Tensors(torch_networks.XTERNALZ)
    torch_networks.wide_resnet(deep, x, 2, 1)
    _, plain = run(torch_networks.CHENYAOFO, "ResNet", x)
    options = {"weights": path, "include_preprocessing": False}
    for state, arguments, message in (
        (deep.state, SMALL, r"for 'block\d.layer.1.* \(and 29 more\)"),
        (STATE, SMALL | {"depth": 16}, r"does not have 'block\d.layer.1"),
        (STATE, SMALL | {"width": 2}, r"Wrong shape of .* \(and 32 more\)"),
        (plain, SMALL, "no layer for .*does not have 'head_bn"),
    ):
        write(path, {key: np.asarray(x) for key, x in state.items()})
        with pytest.raises(ValueError, match=message):
            WideResNet(**arguments, **options)


def test_one_error_names_the_first_of_each_and_nothing_is_loaded(tmp_path):
    state = changed(
        bn1__bias=None,
        bn1__weight=None,
        layer1__x=KERNEL,
        conv1__weight=np.zeros((16, 3, 5, 5), "float32"),
    )
    source = find(write(tmp_path / "weights.safetensors", state))
    model = WideResNet(**SMALL)
    before = model.get_weights()
    with pytest.raises(ValueError) as error:
        source.load_into(model.layers)
    for text in ("'layer1.x'.", "'bn1.weight' (and 1 more)", "'conv1.weight'"):
        assert text in str(error.value)
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_classes_and_the_network_without_a_top(tmp_path):
    path = write(tmp_path / "weights.safetensors", STATE)
    options = {**SMALL, "weights": path, "include_preprocessing": False}
    with pytest.raises(ValueError, match="`classes` should be 10.*classes=7"):
        WideResNet(**options, classes=7)
    bare = WideResNet(**options, include_top=False)
    kernel = bare.get_layer("stem_conv").get_weights()[0]
    np.testing.assert_array_equal(kernel, KERNEL.transpose(2, 3, 1, 0))
    headless = {k: x for k, x in STATE.items() if not k.startswith("fc.")}
    write(path, headless)
    WideResNet(**options, include_top=False)
    with pytest.raises(ValueError, match="`include_top` should be False"):
        WideResNet(**options)


@pytest.mark.parametrize(
    "family, arguments, config, message",
    [
        ("DMRNet", {"depth": 8}, {}, r"DMRNet\(depth=8\) cannot"),
        ("ResNet", {"depth": 8}, {}, 'shortcut="projection"'),
        ("ResNet50", {}, {"architecture": "seresnet50"}, "'seresnet50'"),
        ("WideResNet", SMALL, {"architecture": "resnet18"}, "'resnet18'"),
        ("ResNet50", {}, {"model_type": "vit"}, "model_type='vit'"),
        (
            "ResNet50",
            {},
            {"downsample_in_bottleneck": True},
            "downsample_in_bottleneck=True",
        ),
        ("ResNet18", {}, {"model_args": {"act_layer": "silu"}}, "silu"),
        ("ResNet18", {}, {"model_args": ["silu"]}, "an object as `model_args`"),
        ("WideResNet", SMALL, {"mean": [0.5], "std": [0]}, r"std=\[0\]"),
        ("WideResNet", SMALL, {"mean": MEAN, "std": [1]}, r"std=\[1\]"),
        ("WideResNet", SMALL, {"input_size": 32}, "input_size"),
        ("WideResNet", SMALL, None, "config.json cannot be read"),
    ],
)
def test_configs_of_other_networks(
    family, arguments, config, message, tmp_path
):
    """The same tensors could be those of another graph."""
    write(tmp_path / "model.safetensors", STATE)
    text = "[]" if config is None else json.dumps(config)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        find(str(tmp_path), family, arguments)
    assert f"Received: weights='{tmp_path}'" in str(error.value)


def test_a_sharded_folder(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="tensors are in several files"):
        find(str(tmp_path))


# Preprocessing -------------------------------------------------------------


def test_moments_are_those_of_the_config(tmp_path):
    write(tmp_path / "model.safetensors", STATE)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    images = photos(32, 32).astype("float32")

    def outputs(**options):
        model = WideResNet(**SMALL, weights=tmp_path, **options)
        return keras.ops.convert_to_numpy(model(images, training=False))

    own = outputs()
    given = outputs(include_preprocessing=(MEAN, STD))
    np.testing.assert_allclose(own, given, rtol=1e-5, atol=1e-6)
    assert not np.allclose(own, outputs(include_preprocessing="cifar10"))


def test_without_a_config_the_moments_are_a_guess(tmp_path):
    path = write(tmp_path / "weights.safetensors", STATE)
    with pytest.warns(UserWarning, match="CIFAR-10 are used.*config.json"):
        WideResNet(**SMALL, weights=path)


@pytest.mark.parametrize(
    "given",
    [(MEAN,), (MEAN, STD, STD), (MEAN, 1.0), (MEAN, (1, 2)), (MEAN, (1, 0, 1))],
)
def test_moments_that_are_none(given):
    with pytest.raises(ValueError, match="`include_preprocessing` should be"):
        WideResNet(**SMALL, include_preprocessing=given)


def test_moments_of_other_channels():
    with pytest.raises(ValueError, match="images, 3 in.*which has 1"):
        WideResNet(**SMALL, include_preprocessing=((1.0,), (1.0,)))


# The Hub -------------------------------------------------------------------


@pytest.fixture(scope="module")
def loopback():
    with hub.Hub() as server:
        yield server


@pytest.fixture
def server(loopback, tmp_path, monkeypatch):
    loopback.repositories.clear()
    loopback.requests.clear()
    hub.use(loopback, tmp_path / "cache", monkeypatch)
    return loopback


def push(server, state=STATE, config=CONFIG, **files):
    files = {"config.json": json.dumps(config).encode(), **files}
    if state is not None:
        files["model.safetensors"] = save(state)
    return server.push(REPOSITORY, files)


def test_revisions_of_a_repository(server):
    old = push(server)
    server.repositories[REPOSITORY].tags["v1"] = old
    push(server, STATE | {"fc.bias": STATE["fc.bias"] + 1})
    for revision, more in ((f"@{old}", 0), ("@v1", 0), ("", 1)):
        source = find(f"hf://{REPOSITORY}{revision}")
        bias = source.layers["predictions"][1]
        np.testing.assert_array_equal(bias, STATE["fc.bias"] + more)
        assert source.input_shape == (32, 32, 3)


def test_what_is_in_the_cache_needs_no_hub(server):
    push(server)
    find(f"hf://{REPOSITORY}")
    server.requests.clear()
    with server.fault("refuse"):
        assert_holds(find(f"hf://{REPOSITORY}"), STATE)
    assert not server.requests


@pytest.mark.parametrize("kind", ["flip", "short"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_the_hub_does_not_vouch_for_is_not_read(
    server, kind, name, tmp_path
):
    push(server)
    with server.fault(kind, path=f"/resolve/.*{name}", method="GET"):
        with pytest.raises(HubError):
            find(f"hf://{REPOSITORY}")
    assert not list((tmp_path / "cache").rglob(name))
    assert_holds(find(f"hf://{REPOSITORY}"), STATE)


def test_a_damaged_cache_is_fetched_again(server, tmp_path):
    push(server)
    find(f"hf://{REPOSITORY}")
    (path,) = (tmp_path / "cache").rglob("model.safetensors")
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.resolve().write_bytes(contents)
    assert_holds(find(f"hf://{REPOSITORY}"), STATE)


def test_a_pickle_of_the_hub(server, tmp_path):
    torch.save(small_state(), tmp_path / "x")
    contents = (tmp_path / "x").read_bytes()
    push(server, None, **{"pytorch_model.bin": contents})
    assert_holds(find(f"hf://{REPOSITORY}"), STATE)


def test_repositories_without_a_checkpoint(server):
    push(server, None, **{"model.safetensors.index.json": b"{}"})
    with pytest.raises(ValueError, match="tensors are in several files"):
        find(f"hf://{REPOSITORY}")
    push(server, None)
    with pytest.raises(ValueError, match="model.safetensors or pytorch_model"):
        find(f"hf://{REPOSITORY}@main")


@pytest.fixture
def public(server, tmp_path, monkeypatch):
    """A registry in which somebody's network is pinned."""
    commit = push(server)
    known = {
        "builders": ["ResNet18"],
        "repository": REPOSITORY,
        "license": "MIT",
        "accuracy": 70.0,
        "measured_at": 224,
        "commit": commit,
        "files": {"model.safetensors": describe(save(STATE))},
    }
    path = tmp_path / "public.json"
    monkeypatch.setattr(registry, "PUBLIC", path)

    def write(**changes):
        path.write_text(json.dumps([known | changes]))

    write()
    return write


def test_imagenet_by_name(server, public, tmp_path):
    names, x = torch_networks.CHENYAOFO, torch.zeros(1, 3, 32, 32)
    _, state = run(names, "ResNet18", x, classes=1000)
    state = numpy_state(state)
    commit = push(server, state, CONFIG | {"architecture": "resnet18"})
    for pins in ({}, {"model.safetensors": describe(save(state))}):
        public(commit=commit if pins else None, files=pins)
        source = find("imagenet", "ResNet18", {})
        assert source.dataset == "imagenet2012"
        bias = source.layers["predictions"][1]
        np.testing.assert_array_equal(bias, state["fc.bias"])
    (network,) = keras_resfam.list_weights("ResNet18", "imagenet")
    assert network.call == 'ResNet18(weights="imagenet")'
    assert f"{REPOSITORY}@{commit}, MIT" in repr(network)


def test_photographs_for_imagenet_by_name(server, public):
    """The network knows how its checkpoint cuts them, and its classes."""
    _, state = run(
        torch_networks.CHENYAOFO,
        "ResNet18",
        torch.zeros(1, 3, 32, 32),
        classes=1000,
    )
    public(commit=None, files={})
    push(
        server,
        numpy_state(state),
        {
            "architecture": "resnet18",
            "num_classes": 1000,
            "pretrained_cfg": {
                "mean": CONFIG["mean"],
                "std": CONFIG["std"],
                "crop_pct": 0.9,
                "interpolation": "bicubic",
                "test_input_size": [3, 48, 48],
                "test_crop_pct": 1.0,
            },
        },
    )
    image = photos(90, 60)[0].astype("uint8")
    model = keras_resfam.ResNet18(weights="imagenet", input_shape=(48, 48, 3))
    found = keras_resfam.predict_images(model, image, top=3)
    cut = keras_resfam.load_images(image, 48, 1.0, "bicubic")
    predictions = model.predict(cut, verbose=0)
    assert found == keras_resfam.decode_predictions(
        predictions, "imagenet", top=3
    )


def test_the_registry_is_right_before_the_hub_is(server, public):
    pins = {"model.safetensors": describe(b"another")}
    public(files=pins)
    with pytest.raises(HubError, match="is not the file in the registry"):
        find("imagenet", "ResNet18", {})
    assert not any("/resolve/" in path for _, path in server.requests)


def test_networks_of_others_are_listed_and_free():
    networks = [
        network
        for network in keras_resfam.list_weights(dataset="imagenet")
        if isinstance(network, registry.PublicNetwork)
    ]
    assert {network.builder for network in networks} == {
        *("ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"),
        *("WideResNet18", "WideResNet34"),
        *("WideResNet50_2", "WideResNet101_2"),
    }
    for network in networks:
        assert network.license in ("Apache-2.0", "BSD-3-Clause")
        assert "fb_" not in network.name
        assert registry.choose("imagenet", network.builder, {}) == network
        assert bool(network.commit) == bool(network.files)


# Class names ---------------------------------------------------------------


def test_class_names(server, tmp_path):
    assert keras_resfam.class_names("cifar10")[0] == "airplane"
    assert keras_resfam.class_names("wrn_16_4_cifar10_short")[9] == "truck"
    imagenet = keras_resfam.class_names("imagenet")
    assert len(imagenet) == 1000
    push(server)
    own = keras_resfam.class_names(f"hf://{REPOSITORY}")
    assert own == tuple("abcdefghij")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    scores = keras_resfam.decode_predictions(np.eye(10)[:1], own, top=1)
    assert scores == [[("a", 1.0)]]
    write(tmp_path / "model.safetensors", STATE)
    for config, names in (
        ({"id2label": {"1": "y", "0": "x", "10": "z"}}, ("x", "y", "z")),
        ({"num_classes": 1000}, imagenet),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert keras_resfam.class_names(str(tmp_path)) == names
    (tmp_path / "config.json").write_text('{"num_classes": 7}')
    with pytest.raises(ValueError, match="names of their classes"):
        keras_resfam.class_names(str(tmp_path))


def test_class_names_of_a_name_that_is_also_a_folder(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    write(tmp_path / "cifar10" / "model.safetensors", STATE)
    (tmp_path / "cifar10" / "config.json").write_text('{"label_names": ["a"]}')
    monkeypatch.chdir(tmp_path)
    assert keras_resfam.class_names("cifar10")[0] == "airplane"
    assert keras_resfam.class_names("./cifar10") == ("a",)


# The way back --------------------------------------------------------------


@pytest.mark.parametrize(
    "layout, builder, arguments",
    [
        ("robustbench", "WideResNet", SMALL),
        ("pytorchcv", "WideResNet", SMALL),
        ("timm", "ResNet", {"depth": 8, "shortcut": "projection"}),
        ("pytorchcv", "ResNet", {"depth": 8, "shortcut": "projection"}),
        ("transformers", "ResNet", {"depth": 8, "shortcut": "projection"}),
    ],
)
def test_a_round_trip_is_exact(layout, builder, arguments, tmp_path):
    build = getattr(keras_resfam, builder)
    model = build(**arguments)
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    state = to_torch_state_dict(model, layout)
    path = write(tmp_path / "net.safetensors", state)
    assert load(path.read_bytes()).keys() == state.keys()
    again = build(**arguments, weights=path, include_preprocessing="cifar10")
    for ours, theirs in zip(
        again.get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_torchvision_and_timm_load_what_is_written(quick_initializers):
    model = keras_resfam.ResNet18(
        include_preprocessing=(MEAN, STD), classifier_activation=None
    )
    backbone = keras.Sequential([keras.Input((224, 224, 3)), model])
    state = {
        key: torch.tensor(values)
        for key, values in to_torch_state_dict(backbone).items()
    }
    images = photos(224, 224)
    for library in ("timm.models", "torchvision.models"):
        network = peer(library).resnet18()
        network.load_state_dict(state)
        network.eval()
        assert_alike(model, images, network(normalized(images)))


def test_layouts_that_have_no_name_for_a_layer():
    model = WideResNet(**SMALL)
    with pytest.raises(ValueError, match="'head_bn'.*layout='timm'"):
        to_torch_state_dict(model, "timm")
    assert to_torch_state_dict(model).keys() == STATE.keys()
    with pytest.raises(ValueError, match="stage1_block1_branch1_conv1"):
        to_torch_state_dict(keras_resfam.DMRNet(8))
    with pytest.raises(ValueError, match="one of None, 'timm'"):
        to_torch_state_dict(ResNet(8), "onnx")
