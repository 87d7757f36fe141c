"""Predictions without Keras's calls against Keras's."""

from concurrent import futures

import keras
import numpy as np
import pytest

import keras_resfam
from torch_compiler import with_compiler

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 8, 8, 1)).astype("uint8")


@pytest.fixture(scope="module")
def network():
    return keras_resfam.DMRNet(depth=8, input_shape=(8, 8, 1))


@with_compiler
def test_predicts_what_keras_does(network):
    predict = keras_resfam.predictor(network)
    expected = network.predict_on_batch(IMAGES)
    for dtype in "uint8", "float64", "float32":  # by one program
        found = predict(IMAGES.astype(dtype))
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@with_compiler
def test_new_weights_count_and_a_compiled_network_is_its_own():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    predict = keras_resfam.predictor(keras_resfam.compiled(model))
    x = np.ones((1, 4))
    before = predict(x)
    model.set_weights([2 * w for w in model.get_weights()])
    np.testing.assert_allclose(predict(x), 2 * before, rtol=1e-6)


@with_compiler
def test_several_inputs_and_outputs_and_threads():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    inputs = {"b": b, "a": a}
    outputs = {"less": keras.layers.Subtract()([a, b]), "same": a}
    model = keras.Model(inputs, outputs)
    predict = keras_resfam.predictor(model)
    x = {"a": np.full((1, 2), 3.0), "b": np.ones((1, 2))}
    in_order = [x[tensor.name] for tensor in model.inputs]
    with futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(predict, [in_order] * 8):
            np.testing.assert_array_equal(found["less"], [[2, 2]])
            np.testing.assert_array_equal(found["same"], [[3, 3]])


@pytest.mark.parametrize(
    "x",
    [
        IMAGES[0],
        IMAGES[:, :4],
        IMAGES[:0],
        IMAGES.astype(str),
        IMAGES.astype(complex),
        None,
        [IMAGES, IMAGES],
    ],
    ids=lambda x: str(np.shape(x)),
)
def test_what_is_no_batch_is_refused(x, network):
    with pytest.raises(ValueError, match="`x` should.*Received: "):
        keras_resfam.predictor(network)(x)


def test_what_is_no_graph_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="`model`.*Received"):
        keras_resfam.predictor(Own())
