"""Classifiers of another temperature, against NumPy in float64."""

import keras
import numpy as np
import pytest

import keras_resfam
from families import ONE_OF_EACH, build, case_name, images, predict, randomize

SHAPE = (8, 8, 3)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def network(activation="softmax", family="DMRNet", **arguments):
    model = build(
        family,
        arguments or {"depth": 8},
        input_shape=SHAPE,
        classifier_activation=activation,
    )
    return randomize(model)


@pytest.mark.parametrize(("family", "arguments"), ONE_OF_EACH, ids=case_name)
def test_logits_are_divided(family, arguments):
    logits = network(None, family, **arguments)
    model = network("softmax", family, **arguments)
    x = images(shape=SHAPE)
    expected = predict(logits, x) / 1.7
    for given, right in ((logits, expected), (model, softmax(expected))):
        before = predict(given, x)
        found = keras_resfam.with_temperature(given, 1.7)
        assert found.name == given.name
        np.testing.assert_allclose(
            predict(found, x), right, rtol=1e-4, atol=1e-5
        )
        np.testing.assert_array_equal(predict(given, x), before)


@pytest.mark.parametrize("after", ["fold_batch_norm", "to_stock_layers"])
def test_it_stays_through_copies_and_files(after, tmp_path):
    x = images(shape=SHAPE)
    expected = softmax(predict(network(None), x) / 0.6)
    model = keras_resfam.with_temperature(network(), 0.6)
    copy = getattr(keras_resfam, after)(model)
    copy.save(tmp_path / "net.keras")
    opened = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(
        predict(opened, x), expected, rtol=1e-4, atol=1e-5
    )
    folded = keras_resfam.fold_batch_norm(network())
    late = keras_resfam.with_temperature(folded, 0.6)
    np.testing.assert_allclose(predict(late, x), expected, rtol=1e-4, atol=1e-5)


def test_a_head_behind_a_network_in_a_network():
    backbone = build(
        "WideResNet",
        {"depth": 10, "width": 1},
        input_shape=SHAPE,
        include_top=False,
        pooling="avg",
    )
    head = keras.layers.Dense(3, "softmax", use_bias=False)
    model = randomize(keras.Sequential([backbone, head]))
    x = images(shape=SHAPE)
    kernel = keras.ops.convert_to_numpy(head.kernel).astype("float64")
    expected = softmax(predict(backbone, x) @ kernel / 3)
    found = predict(keras_resfam.with_temperature(model, 3), x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), True, "2"])
def test_a_temperature_that_is_none(temperature):
    with pytest.raises(ValueError, match="`temperature` should be.*above 0"):
        keras_resfam.with_temperature(network(), temperature)


def endings():
    x = keras.Input((4,))
    shared = keras.layers.Dense(4)
    yield keras.Model(x, keras.layers.Dense(3, "sigmoid", name="last")(x))
    yield keras.Model(x, shared(shared(x)))
    yield keras.Model(x, keras.layers.ReLU(name="last")(shared(x)))
    yield keras.Model(x, [keras.layers.Dense(3)(x), keras.layers.Dense(2)(x)])
    quantized = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    quantized.quantize("int8")
    yield quantized


@pytest.mark.parametrize("number", range(5))
def test_models_without_one_last_dense(number):
    model = list(endings())[number]
    with pytest.raises(
        ValueError, match="`model` should end in a single .*Received"
    ):
        keras_resfam.with_temperature(model, 2.0)
