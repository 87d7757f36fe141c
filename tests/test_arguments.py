"""Every public callable ends in one clear error, whatever it is given."""

import inspect
import pathlib
import re

import keras
import numpy as np
import pytest

import dense_nets
import keras_resfam
from keras_resfam import analysis, datasets, initializers, layers, regularizers

RECORD = {
    "network": "net",
    "weights": "00",
    "data": "00",
    "study": "deletion",
    "count": 1,
    "trial": 0,
    "blocks": "a",
    "kendall_tau": 1.0,
    "error": 3.0,
    "examples": 10,
    "seed": 0,
}


def subclassed():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    return Subclassed()


def plain_network():
    x = inputs = keras.Input((3,))
    for _ in range(2):
        x = keras.layers.Dense(3, "relu")(x)
    return keras.Model(inputs, x)


def two_inputs():
    pair = [keras.Input((3,)), keras.Input((3,))]
    return keras.Model(pair, keras.layers.Add()(pair))


# What an argument can turn out to be. Made anew for each call.
GARBAGE = {
    "None": lambda: None,
    "True": lambda: True,
    "0": lambda: 0,
    "1": lambda: 1,
    "-1": lambda: -1,
    "3": lambda: 3,
    "0.5": lambda: 0.5,
    "-0.5": lambda: -0.5,
    "1e30": lambda: 1e30,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "1j": lambda: 1j,
    "empty text": lambda: "",
    "text": lambda: "abc",
    "text with a brace": lambda: "a{b}`c/",
    "data set": lambda: "cifar10",
    "bytes": lambda: b"abc",
    "path": lambda: pathlib.Path("no/such/file"),
    "folder": pathlib.Path,
    "empty tuple": tuple,
    "tuple": lambda: (3, 3),
    "nested tuple": lambda: ((8, 8), "a", None),
    "list of None": lambda: [None],
    "list of arrays": lambda: [np.ones((2, 3)), np.ones((4, 1))],
    "ragged list": lambda: [[1, 2], [3]],
    "dict": lambda: {"a": 1},
    "set": lambda: {1, "a"},
    "iterator": lambda: iter([1, "a"]),
    "object": object,
    "class": lambda: dict,
    "function": lambda: len,
    "array without axes": lambda: np.array(3),
    "array": lambda: np.arange(3),
    "empty array": lambda: np.zeros((0, 5)),
    "matrix of NaN": lambda: np.full((2, 5), np.nan),
    "array of text": lambda: np.array(["a", "b"]),
    "NumPy integer": lambda: np.int64(-2),
    "NumPy float": lambda: np.float32(0.5),
    "tensor": lambda: keras.ops.ones((2, 3)),
    "symbol": lambda: keras.Input((8, 8, 3)),
    "layer": lambda: keras.layers.Dense(2),
    "plain network": plain_network,
    "network of two inputs": two_inputs,
    "Sequential without a shape": keras.Sequential,
    "subclassed network": subclassed,
}

REGULARIZERS = [
    "DoubleSoftOrthogonalityRegularizer",
    "OrthogonalConvolutionRegularizer",
    "OrthonormalRegularizer",
    "SpectralRestrictedIsometryRegularizer",
]
SMALL = dict(input_shape=(8, 8, 1))
STUDY = dict(
    max_deletions=1, max_swaps=0, max_repetitions=0, trials=1, verbose=0
)


def residual():
    return dense_nets.build(2)


def convolutions():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))


def photographed():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))


def two_blocks():
    return ["stage1_block1", "stage1_block2"]


def gradients():
    return {
        "length": np.arange(3),
        "log10_gradient": np.zeros(3),
        "share": np.ones(3) / 3,
    }


def lengths():
    return {"length": np.arange(3), "probability": np.ones(3) / 3}


# Each callable with arguments that are right; garbage takes their places.
CASES = {
    **{
        name: (getattr(keras_resfam, name), lambda own=own: {**own, **SMALL})
        for name, own in {
            "DILNet": dict(depth=8, width=1, branches=2),
            "DMRNet": dict(depth=8, branches=2, mapping="identity"),
            "OrthoPlainNet": dict(depth=8, width=1),
            "ResNet": dict(depth=8, width=1, shortcut="identity"),
            "WideResNet": dict(depth=10, width=1, block=(3, 3), dropout=0.0),
        }.items()
    },
    **{
        name: (
            getattr(keras_resfam, name),
            # Refused in any case: it would take seconds to build.
            lambda: {"input_shape": (32, 32, 3), "pooling": "none"},
        )
        for name in (
            *("DMRNet44", "DMRNet50", "OrthoPlainNet34", "OrthoPlainNet101"),
            *("ResNet18", "ResNet34", "ResNet50", "ResNet98", "ResNet101"),
            *("ResNet152", "ResNet18CIFAR", "WideResNet18", "WideResNet34"),
            *("WideResNet50_2", "WideResNet101_2"),
        )
    },
    **{
        name: (getattr(keras_resfam, name), lambda: {"model": residual()})
        for name in (
            *("compiled", "flatten_model", "fold_batch_norm", "predictor"),
            "to_stock_layers",
        )
    },
    "with_temperature": (
        keras_resfam.with_temperature,
        lambda: {"model": residual(), "temperature": 1.5},
    ),
    "export": (
        keras_resfam.export,
        # Refused in any case: some formats take a process of their own.
        lambda: {"model": residual(), "path": "net.onnx", "format": "none"},
    ),
    "class_names": (keras_resfam.class_names, lambda: {"weights": "cifar10"}),
    "feature_extractor": (
        keras_resfam.feature_extractor,
        lambda: {"model": residual(), "layers": ["stem"]},
    ),
    "to_torch_state_dict": (
        keras_resfam.to_torch_state_dict,
        lambda: {"model": residual(), "layout": "timm"},
    ),
    "count_multiply_adds": (
        keras_resfam.count_multiply_adds,
        lambda: {"model": residual(), "input_shape": None},
    ),
    "list_weights": (
        keras_resfam.list_weights,
        lambda: {"family": "DMRNet", "dataset": "cifar10"},
    ),
    "decode_predictions": (
        keras_resfam.decode_predictions,
        lambda: {
            "predictions": np.ones((2, 10)),
            "dataset": "cifar10",
            "top": 1,
        },
    ),
    "load_images": (
        keras_resfam.load_images,
        lambda: {
            "images": [np.zeros((9, 7, 3), "uint8")],
            "size": 4,
            "crop": 0.5,
            "interpolation": "box",
            "channels": 1,
        },
    ),
    "image_transform": (
        keras_resfam.image_transform,
        lambda: {"model": photographed()},
    ),
    "predict_images": (
        keras_resfam.predict_images,
        lambda: {
            "model": photographed(),
            "images": [np.zeros((9, 7, 3), "uint8")],
            "names": ["a", "b", "c"],
            "top": 1,
            "crop": 0.5,
            "interpolation": "box",
            "batch_size": 2,
        },
    ),
    "layers.GradientModulation": (
        layers.GradientModulation,
        lambda: {"threshold": 1.5},
    ),
    "layers.Conv2D": (
        layers.Conv2D,
        lambda: {"filters": 2, "kernel_size": 3, "zeros": 0},
    ),
    "layers.Rescaling": (
        layers.Rescaling,
        lambda: {"scale": 0.5, "offset": [0.0, 1.0], "data_config": {}},
    ),
    **{
        f"initializers.{name}": (
            getattr(initializers, name),
            lambda: {"gain": 1.0, "seed": 0},
        )
        for name in ("DeltaOrthonormal", "FanInNormal", "Orthonormal")
    },
    "initializers.FanInUniform": (
        initializers.FanInUniform,
        lambda: {"seed": 0},
    ),
    "initializers.Orthonormal()": (
        initializers.Orthonormal(seed=0),
        lambda: {"shape": (3, 2), "dtype": None},
    ),
    "initializers.column_groups": (
        initializers.column_groups,
        lambda: {"fan_in": 2, "filters": 3},
    ),
    **{
        f"regularizers.{name}": (
            getattr(regularizers, name),
            lambda: {"factor": 0.1},
        )
        for name in REGULARIZERS
    },
    **{
        f"regularizers.{name}()": (
            getattr(regularizers, name)(),
            lambda: {"x": np.ones((3, 2), "float32")},
        )
        for name in REGULARIZERS
    },
    "analysis.delete_blocks": (
        analysis.delete_blocks,
        lambda: {"model": residual(), "blocks": two_blocks()},
    ),
    "analysis.permute_blocks": (
        analysis.permute_blocks,
        lambda: {"model": residual(), "order": two_blocks()},
    ),
    "analysis.duplicate_blocks": (
        analysis.duplicate_blocks,
        lambda: {"model": residual(), "blocks": two_blocks()},
    ),
    "analysis.drop_blocks": (
        analysis.drop_blocks,
        lambda: {"model": residual(), "active": 1, "scale": None, "seed": 0},
    ),
    "analysis.linear_survival": (
        analysis.linear_survival,
        lambda: {"blocks": 2, "last": 0.5},
    ),
    "analysis.residual_blocks": (
        analysis.residual_blocks,
        lambda: {"model": residual()},
    ),
    "analysis.plain_layers": (
        analysis.plain_layers,
        lambda: {"model": plain_network()},
    ),
    "analysis.path_lengths": (
        analysis.path_lengths,
        lambda: {"model": residual(), "unit": "blocks"},
    ),
    "analysis.gradient_by_path_length": (
        analysis.gradient_by_path_length,
        lambda: {
            **dict(zip("xy", dense_nets.data(2), strict=True)),
            "model": residual(),
            "lengths": [1],
            "samples": 1,
            "batch_size": 2,
            "seed": 0,
            "verbose": 0,
        },
    ),
    "analysis.error_moments": (
        analysis.error_moments,
        lambda: {
            "model": convolutions(),
            "x": np.ones((2, 8, 8, 1), "float32"),
            "y": np.arange(2),
            "modulated": False,
        },
    ),
    "analysis.effective_lengths": (
        analysis.effective_lengths,
        lambda: {"result": gradients(), "mass": 0.9},
    ),
    "analysis.lesion_study": (
        analysis.lesion_study,
        lambda: {
            "model": residual(),
            "data": dense_nets.data(2),
            "branches": False,
            "batch_size": 2,
            "seed": 0,
            "name": None,
            **STUDY,
        },
    ),
    "analysis.read_records": (analysis.read_records, lambda: {"path": "x.csv"}),
    **{
        f"analysis.pictures.{name}": (
            getattr(analysis.pictures, name),
            lambda: {"records": [RECORD]},
        )
        for name in (
            *("plot_deletion", "plot_deletions"),
            *("plot_repetitions", "plot_swaps"),
        )
    },
    "analysis.pictures.plot_path_lengths": (
        analysis.pictures.plot_path_lengths,
        lambda: {"lengths": lengths(), "name": "net"},
    ),
    **{
        f"analysis.pictures.{name}": (
            getattr(analysis.pictures, name),
            lambda: {"result": gradients(), "name": "net"},
        )
        for name in ("plot_gradients", "plot_contributions")
    },
}

WITHOUT_A_CASE = {
    "HubError": "an error, which nobody makes",
    "datasets.Dataset": "a record of the package's own",
    "datasets.decode_predictions": "the package's",
    "analysis.Block": "a record that the instruments make",
    "initializers.undrawn": "a context that takes no arguments",
    "regularizers.KernelRegularizer": "what the others have in common",
    "layers.BatchNormalization": "all arguments are Keras's to check",
}
MODULES = (
    *(layers, initializers, regularizers, datasets),
    *(analysis, analysis.pictures),
)


def public_callables():
    """The names of all public callables of the package."""
    found = set()
    for prefix, module in (
        ("", keras_resfam),
        *((f"{m.__name__.removeprefix('keras_resfam.')}.", m) for m in MODULES),
    ):
        for name in getattr(module, "__all__", None) or vars(module):
            value = getattr(module, name)
            own = getattr(value, "__module__", "").startswith(module.__name__)
            if callable(value) and own and not name.startswith("_"):
                found.add(prefix + name)
    return found


def test_every_public_callable_has_a_case():
    cases = {name.removesuffix("()") for name in CASES}
    assert public_callables() == cases | WITHOUT_A_CASE.keys()


def parameters_of(function):
    """The names of a callable's parameters, without those handed to Keras."""
    parameters = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [p.name for p in parameters if p.kind not in kinds]


def check(name, changes):
    """Calls with garbage, which is taken or refused in one clear error."""
    function, arguments = CASES[name]
    given = arguments() | {k: GARBAGE[what]() for k, what in changes.items()}
    allowed = {*parameters_of(function), *given}
    try:
        function(**given)
    except (ValueError, TypeError, OSError) as error:
        named = set(re.findall(r"`([A-Za-z_]+)", str(error)))
        told = f"{name}({changes}): {type(error).__name__}: {error}"
        assert named & allowed, told
        assert "Received: " in str(error), told


def random_changes(name, rng):
    """One argument, or two, and what is given for them."""
    names = parameters_of(CASES[name][0])
    count = min(len(names), rng.choice([1, 1, 1, 2]))
    chosen = rng.choice(names, count, replace=False)
    kinds = list(GARBAGE)
    return {str(k): kinds[rng.integers(len(kinds))] for k in chosen}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch, quick_initializers):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_a_few_random_calls(name):
    rng = np.random.default_rng([0, *name.encode()])
    for _ in range(6):
        check(name, random_changes(name, rng))


@pytest.mark.large
@pytest.mark.parametrize("name", CASES)
def test_all_garbage_for_each_argument(name):
    for argument in parameters_of(CASES[name][0]):
        for what in GARBAGE:
            check(name, {argument: what})


@pytest.mark.large
@pytest.mark.parametrize("name", CASES)
def test_many_random_calls(name):
    rng = np.random.default_rng([1, *name.encode()])
    for _ in range(100):
        check(name, random_changes(name, rng))
