"""Exported networks, run by the programs that they are for.

python -m pytest -v -rs tests/graphs/test_exporting.py
"""

import importlib.util

import keras
import numpy as np
import pytest

import keras_resfam
from families import build, images, randomize
from keras_resfam.graphs.exporting import BACKENDS, SUFFIXES
from runtimes import RUNTIMES

HERE = keras.backend.backend()
SHAPE = (8, 8, 3)
NETWORKS = {  # of each family one; the images' type
    "WideResNet": (dict(depth=10, width=1), "float32"),
    "DMRNet": (dict(depth=8), "uint8"),
    "OrthoPlainNet": (dict(depth=8), "float32"),
    "ResNet": (dict(depth=8), "uint8"),
}
FORMS = {
    "whole": lambda network: network,
    "folded": keras_resfam.fold_batch_norm,
    "stock": keras_resfam.to_stock_layers,
}
SUFFIX = {format: suffix for suffix, format in SUFFIXES.items()}
DETOURS = {"torch": "tf_saved_model", "tensorflow": "torch", "jax": "onnx"}


def network(family="DMRNet"):
    arguments, dtype = NETWORKS[family]
    return randomize(
        build(
            family,
            arguments,
            input_tensor=keras.Input(SHAPE, dtype=dtype, name="image"),
            classifier_activation=None,
        )
    )


def need(*modules):
    for module in modules:
        if not importlib.util.find_spec(module):
            pytest.skip(f"{module} is not installed")


def check_file(model, path, format):
    """The file gives what the network does, in batches of 5 and of 1."""
    run, _ = RUNTIMES[format]
    (image,) = model.inputs
    x = images(5, SHAPE).astype(image.dtype)
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    tolerance = 1e-5 * np.abs(expected).max()
    assert tolerance > 1e-6
    for batch in (5, 1):
        np.testing.assert_allclose(
            run(path, x[:batch]), expected[:batch], atol=tolerance
        )


@pytest.mark.parametrize("format", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", NETWORKS)
def test_files_give_what_the_network_does(family, form, format, tmp_path):
    if HERE not in BACKENDS[format]:
        pytest.skip(f"{HERE} exports with {[*BACKENDS[format]][0]}")
    need(*BACKENDS[format][HERE], RUNTIMES[format][1])
    model = FORMS[form](network(family))
    path = tmp_path / f"network{SUFFIX[format]}"
    keras_resfam.export(model, path)
    check_file(model, path, format)


def test_on_another_backend_where_this_one_cannot(tmp_path):
    format = DETOURS[HERE]
    assert HERE not in BACKENDS[format]
    need(*BACKENDS[format][next(iter(BACKENDS[format]))], RUNTIMES[format][1])
    model = network()
    path = tmp_path / f"network{SUFFIX[format]}"
    keras_resfam.export(model, path)
    check_file(model, path, format)


@pytest.mark.skipif(HERE == "tensorflow", reason="TensorFlow makes them")
def test_keras_itself_fails_where_there_is_a_detour(tmp_path):
    """When it no longer does, the detour can go."""
    need("tensorflow", "openvino") if HERE == "jax" else need("tensorflow")
    with pytest.raises(Exception, match="(?i)dynamic_shapes|converted"):
        if HERE == "torch":
            network().export(tmp_path / "model", verbose=False)
        else:
            path = str(tmp_path / "model.xml")
            network().export(path, format="openvino", verbose=False)


def test_a_file_takes_the_place_of_another(tmp_path):
    format = {"torch": "torch", "tensorflow": "litert", "jax": "onnx"}[HERE]
    need(*BACKENDS[format][next(iter(BACKENDS[format]))])
    path = tmp_path / f"network{SUFFIX[format]}"
    path.write_text("another")
    keras_resfam.export(network(), str(path), format)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() != b"another"
    with pytest.raises(ValueError, match="`path`.*a new folder.*Received: pat"):
        keras_resfam.export(network(), path, "tf_saved_model")


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match="(?=.*script .on torch)(?=.*tf2onnx .on)"
    ):
        keras_resfam.export(network(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_what_another_backend_cannot_load_leaves_nothing(tmp_path):
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    format = DETOURS[HERE]
    need(*BACKENDS[format][next(iter(BACKENDS[format]))])
    image = keras.Input(SHAPE)
    model = keras.Model(image, Own()(image))
    with pytest.raises(RuntimeError, match="Could not locate class 'Own'|Own"):
        keras_resfam.export(model, tmp_path / f"a{SUFFIX[format]}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path, format, match",
    [
        ("a.h5", None, "`path.suffix`.*'.onnx'.*Received: path.suffix='.h5'"),
        ("a.onnx", "coreml", "`format`.*'onnx'.*Received: format='coreml'"),
        ("a.onnx", "litert", "`path`.*'.tflite'.*Received: path=.*a.onnx"),
        ("none/a.onnx", None, "`path`.*Received: path=.*none"),
        ("", None, "`path`.*Received: path="),
    ],
)
def test_paths_and_formats_that_are_refused(path, format, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        keras_resfam.export(network(), tmp_path / path, format)
    assert not list(tmp_path.iterdir())


def test_models_that_are_refused(tmp_path):
    a, b = keras.Input(SHAPE), keras.Input(SHAPE)
    for model in keras.Model([a, b], a + b), keras.Sequential():
        with pytest.raises(ValueError, match="`model`.*Received: model="):
            keras_resfam.export(model, tmp_path / "a.onnx")


def test_uint8_and_float_images_are_alike():
    """That of the networks above which take the one, as of those the other."""
    model = network("DMRNet")
    floats = build("DMRNet", {"depth": 8}, input_shape=SHAPE)
    assert model.inputs[0].dtype == "uint8" != floats.inputs[0].dtype
    floats.set_weights(model.get_weights())
    x = images(3, SHAPE)
    logits = keras.ops.convert_to_numpy(model(x))
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(floats(x.astype("float32"))),
        exps / exps.sum(-1, keepdims=True),
        atol=1e-5,
    )
