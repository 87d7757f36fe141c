"""BatchNormalization by the backend's kernel against Keras's own."""

import keras
import numpy as np
import pytest
from keras import ops

from differentiate import gradients
from keras_resfam.layers import BatchNormalization
from twins import assert_close, built_alike

SHAPE = (6, 5, 4, 3)


def twins(**kwargs):
    """Our layer and Keras's, with the same weights, not the initial ones."""
    rng = np.random.default_rng(0)
    kwargs = {"momentum": 0.7, "epsilon": 1e-3, **kwargs}
    return built_alike(
        BatchNormalization(**kwargs),
        keras.layers.BatchNormalization(**kwargs),
        SHAPE,
        lambda shape: rng.uniform(0.5, 2.0, shape),
    )


def images(dtype="float32"):
    x = np.random.default_rng(1).normal(3.0, 2.0, SHAPE)
    return ops.cast(ops.convert_to_tensor(x.astype("float32")), dtype)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": False},
        {"center": False},
        {"axis": 3},
        {"axis": 2},
        {"renorm": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_values_and_moments(options, training):
    ours, theirs = twins(**options)
    x = images()
    assert_close(ours(x, training=training), theirs(x, training=training))
    for mine, its in zip(ours.weights, theirs.weights, strict=True):
        assert_close(mine, its)


def test_moments_are_the_batchs():
    ours, _ = twins()
    x = ops.convert_to_numpy(images()).astype("float64")
    before = [w.numpy() for w in ours.non_trainable_variables]
    ours(images(), training=True)
    moments = x.mean((0, 1, 2)), x.var((0, 1, 2))
    for old, variable, moment in zip(
        before, ours.non_trainable_variables, moments, strict=True
    ):
        assert_close(variable, 0.7 * old + 0.3 * moment)


@pytest.mark.parametrize("training", [True, False])
def test_gradients(training):
    rng = np.random.default_rng(2)
    factor = ops.array(rng.normal(size=SHAPE).astype("float32"))
    x, gamma, beta = (
        rng.normal(size=shape).astype("float32") for shape in (SHAPE, 3, 3)
    )
    found = []
    for layer in twins():

        def loss(x, gamma, beta, layer=layer):
            layer.gamma.assign(gamma)
            layer.beta.assign(beta)
            return ops.sum(factor * layer(x, training=training) ** 2)

        found.append(gradients(loss, [x, gamma, beta]))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, 1e-4)


def test_frozen_is_inference():
    ours, theirs = twins()
    ours.trainable = theirs.trainable = False
    assert_close(ours(images(), training=True), theirs(images()))
    for mine, its in zip(ours.weights, theirs.weights, strict=True):
        assert_close(mine, its)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(dtype):
    ours, theirs = twins(dtype=f"mixed_{dtype}")
    x = images(dtype)
    y = ours(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    assert_close(y, theirs(x, training=True), 1e-2)
    for mine, its in zip(ours.weights, theirs.weights, strict=True):
        assert mine.dtype == "float32"
        assert_close(mine, its, 1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_averages_of_half_precision(dtype):
    ours, theirs = twins(dtype=dtype)
    x = images(dtype)
    assert_close(ours(x, training=True), theirs(x, training=True), 3e-2)
    for mine, its in zip(ours.weights, theirs.weights, strict=True):
        assert mine.dtype == dtype
        assert_close(mine, its, 3e-2)


def test_integers():
    ours, theirs = twins()
    x = ops.cast(images() * 10, "uint8")
    for training in (True, False):
        assert_close(ours(x, training=training), theirs(x, training=training))


def test_one_value_a_channel():
    """A variance of one value is zero, not 0 / 0."""
    ours, theirs = twins()
    x = images()[:1, :1, :1]
    assert_close(ours(x, training=True), theirs(x, training=True))
    for mine, its in zip(ours.weights, theirs.weights, strict=True):
        assert_close(mine, its)


def test_dense_inputs_are_left_to_keras():
    ours = BatchNormalization()
    theirs = keras.layers.BatchNormalization()
    x = ops.reshape(images(), (-1, 3))
    assert_close(ours(x, training=True), theirs(x, training=True))


@pytest.mark.parametrize("training", [True, False])
def test_masks_are_left_to_keras(training):
    ours, theirs = twins()
    x = images()
    mask = ops.arange(SHAPE[0]) < 4
    mask = ops.broadcast_to(mask[:, None, None], SHAPE[:-1])
    y = ours(x, training=training, mask=mask)
    assert_close(y, theirs(x, training=training, mask=mask))
    for mine, its in zip(ours.weights, theirs.weights, strict=True):
        assert_close(mine, its)


def test_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input(SHAPE[1:]), BatchNormalization()])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.layers[0]) is BatchNormalization
    assert again.layers[0].get_config() == model.layers[0].get_config()
