"""Copies that Keras alone can load."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_resfam
from families import ONE_OF_EACH, build, case_name, images, predict, randomize
from keras_resfam.analysis import drop_blocks
from keras_resfam.layers import Conv2D

ALONE = """
import sys

sys.modules["keras_resfam"] = None  # importing it fails
import keras
import numpy as np

for name in "plain", "folded":
    model = keras.saving.load_model(f"{name}.keras")
    outputs = keras.ops.convert_to_numpy(model(np.load("x.npy")))
    np.save(f"{name}.npy", outputs)
"""


def test_keras_alone_loads_it(tmp_path):
    backbone = keras_resfam.WideResNet(
        depth=10,
        width=1,
        dropout=0.3,
        input_shape=(8, 8, 3),
        include_top=False,
        pooling="avg",
    )
    model = keras.Sequential([backbone, keras.layers.Dense(2, "softmax")])
    randomize(model)
    x = images(shape=(8, 8, 3)).astype("float32")
    given = {"plain": model, "folded": keras_resfam.fold_batch_norm(model)}
    for name, network in given.items():
        stock = keras_resfam.to_stock_layers(network)
        stock.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "x.npy", x)
    subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, check=True)
    expected = predict(model, x)
    for name in given:
        found = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["int8", "float8"])
@pytest.mark.parametrize("copy", ["fold_batch_norm", "to_stock_layers"])
def test_quantized_layers_stay_so(copy, mode):
    model = build("DMRNet", {"depth": 8}, input_shape=(8, 8, 3))
    randomize(model)
    model.quantize(mode)
    x = images(shape=(8, 8, 3))
    expected = predict(model, x)
    found = getattr(keras_resfam, copy)(model)
    assert found.get_layer("predictions").quantization_mode == mode
    np.testing.assert_allclose(
        predict(found, x), expected, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(("family", "arguments"), ONE_OF_EACH, ids=case_name)
def test_no_layer_is_of_keras_resfam(family, arguments):
    model = randomize(build(family, arguments, input_shape=(16, 16, 3)))
    before = model.get_config()
    stock = keras_resfam.to_stock_layers(model)
    assert "keras_resfam" not in stock.to_json()
    assert stock.name == model.name
    assert model.get_config() == before
    np.testing.assert_allclose(
        predict(stock, images()), predict(model, images()), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("family", "arguments"), ONE_OF_EACH, ids=case_name)
def test_no_layer_of_a_folded_copy_either(family, arguments):
    model = build(family, arguments, input_shape=(8, 8, 3))
    stock = keras_resfam.to_stock_layers(keras_resfam.fold_batch_norm(model))
    assert "keras_resfam" not in stock.to_json()


@pytest.mark.parametrize(
    "options",
    [{}, {"padding": "same"}, {"zeros": 1}, {"groups": 2}],
    ids=str,
)
def test_pixels_are_taken_before_thin_pointwise_kernels(options):
    """Their strides damage memory, in training, as Keras's layers have them."""
    keras.utils.set_random_seed(0)
    convolution = Conv2D(4, 1, strides=(2, 3), **options)
    model = keras.Sequential([keras.Input((7, 8, 6)), convolution])
    stock = keras_resfam.to_stock_layers(model)
    copied = stock.get_layer(convolution.name)
    assert type(copied) is keras.layers.Conv2D
    assert copied.strides == (1, 1)
    x = images(shape=(7, 8, 6)) / 255
    np.testing.assert_allclose(predict(stock, x), predict(model, x), atol=1e-5)


def test_weights_are_its_own():
    model = keras.Sequential([keras.Input((4, 4, 2)), Conv2D(3, 3)])
    stock = keras_resfam.to_stock_layers(model)
    before = model.get_weights()
    for copied, own in zip(stock.get_weights(), before, strict=True):
        np.testing.assert_array_equal(copied, own)
    stock.set_weights([0 * w for w in before])
    for now, own in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, own)


def test_layers_of_others_stay_what_they_are():
    @keras.saving.register_keras_serializable(package="test_copies")
    class Scale(keras.layers.Layer):
        def __init__(self, scale_initializer, **kwargs):
            super().__init__(**kwargs)
            self.scale_initializer = scale_initializer

        def build(self, shape):
            self.scale = self.add_weight(
                shape=(), initializer=self.scale_initializer
            )

        def call(self, x):
            return self.scale * x

        def get_config(self):
            own = {"scale_initializer": self.scale_initializer}
            return super().get_config() | own

    model = keras.Sequential([keras.Input((3,)), Scale("ones")])
    model.layers[0].scale.assign(2.5)
    stock = keras_resfam.to_stock_layers(model)
    assert type(stock.layers[-1]) is Scale
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(predict(stock, x), 2.5 * x)


def test_layers_whose_config_has_no_name():
    class Scale(keras.layers.Layer):  # Keras takes the config from __init__
        def __init__(self, value, **kwargs):
            super().__init__(**kwargs)
            self.value = value

        def build(self, shape):
            self.scale = self.add_weight(shape=(), initializer="ones")

        def call(self, x):
            return self.value * self.scale * x

    model = keras.Sequential([keras.Input((3,)), Scale(2.0)])
    model.layers[0].scale.assign(2.5)
    x = np.ones((1, 3), "float32")
    for copy in keras_resfam.to_stock_layers, keras_resfam.fold_batch_norm:
        np.testing.assert_array_equal(predict(copy(model), x), 5 * x)


@pytest.mark.parametrize("copy", ["fold_batch_norm", "to_stock_layers"])
def test_normalizations_in_wrappers_and_models_keep_their_moments(copy):
    x = np.random.default_rng(0).normal(5, 3, (5, 4, 8)).astype("float32")
    within, alone = (keras.layers.Normalization() for _ in range(2))
    within.adapt(x[:, 0])
    alone.adapt(x)
    inner = keras.Sequential([keras.Input((4, 8)), alone])
    inputs = keras.Input((4, 8))
    wrapped = keras.layers.TimeDistributed(within)(inputs)
    for training in (None, True):  # the latter is copied as it is
        outputs = inner(wrapped, training=training)
        model = keras.Model(inputs, outputs)
        found = getattr(keras_resfam, copy)(model)
        np.testing.assert_array_equal(predict(found, x), predict(model, x))


def test_layers_that_keras_lacks_are_refused():
    dropping = drop_blocks(keras_resfam.ResNet(depth=8), active=1)
    with pytest.raises(ValueError, match="the BlockSwitches 'block_switches'"):
        keras_resfam.to_stock_layers(dropping)


def test_what_is_no_graph_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="`model`.*functional or sequential"):
        keras_resfam.to_stock_layers(Own())
