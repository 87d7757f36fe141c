import math

import keras
import numpy as np
import pytest

import keras_resfam
from families import images, predict, randomize
from keras_resfam.initializers import (
    DeltaOrthonormal,
    FanInNormal,
    FanInUniform,
    Orthonormal,
)
from keras_resfam.layers import GradientModulation
from keras_resfam.regularizers import (
    DoubleSoftOrthogonalityRegularizer,
    OrthogonalConvolutionRegularizer,
    OrthonormalRegularizer,
    SpectralRestrictedIsometryRegularizer,
)

SHAPE = (8, 8, 3)


def kernels(model):
    return {
        layer.name: layer.kernel
        for layer in model.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
    }


def test_layers_stand_in_triples():
    model = keras_resfam.OrthoPlainNet(14, input_shape=SHAPE)
    types = [type(layer).__name__ for layer in model.layers[2:-2]]
    triple = ["Conv2D", "BatchNormalization", "ReLU", "GradientModulation"]
    assert types == triple * 13
    strided = [
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.strides == (2, 2)
    ]
    assert strided == ["stage2_block1_conv1", "stage3_block1_conv1"]


def test_the_stem_is_modulated_below_its_maximum(quick_initializers):
    model = keras_resfam.OrthoPlainNet34(input_shape=(32, 32, 3))
    names = [layer.name for layer in model.layers]
    stem = [f"stem_{x}" for x in "bn relu modulation pool_pad pool".split()]
    assert names[names.index("stem_bn") :][:5] == stem


def test_all_kernels_start_orthonormal_and_are_regularized():
    model = keras_resfam.OrthoPlainNet(8, orthonormality=0.5, input_shape=SHAPE)
    assert len(kernels(model)) == 8
    for name, kernel in kernels(model).items():
        w = keras.ops.convert_to_numpy(kernel).astype("float64")
        w = w.reshape(-1, w.shape[-1])
        np.testing.assert_allclose(w.T @ w, np.eye(w.shape[1]), atol=1e-5)
        regularizer = model.get_layer(name).kernel_regularizer
        assert isinstance(regularizer, OrthonormalRegularizer)
        assert regularizer.factor == 0.5
    randomize(model)
    penalty = 0.0
    for kernel in kernels(model).values():
        w = keras.ops.convert_to_numpy(kernel).astype("float64")
        w = w.reshape(-1, w.shape[-1])
        penalty += 0.25 * np.sum((w.T @ w - np.eye(w.shape[1])) ** 2)
    found = sum(float(keras.ops.convert_to_numpy(x)) for x in model.losses)
    np.testing.assert_allclose(found, penalty, rtol=1e-5)


def test_without_orthonormality_kernels_start_as_he_et_al_have_it():
    model = keras_resfam.OrthoPlainNet(8, orthonormality=0, input_shape=SHAPE)
    kernel = model.get_layer("stage3_block1_conv2").kernel
    assert np.std(keras.ops.convert_to_numpy(kernel)) == pytest.approx(
        math.sqrt(2 / (9 * 64)), rel=0.05
    )
    resnet = keras_resfam.ResNet(8, input_shape=SHAPE)
    for name in kernels(model):
        for kind in ("kernel_initializer", "kernel_regularizer"):
            ours, theirs = (
                type(getattr(m.get_layer(name), kind)) for m in (model, resnet)
            )
            assert ours is theirs


def test_what_only_training_needs_can_be_left_out():
    model = randomize(keras_resfam.OrthoPlainNet(8, input_shape=SHAPE))
    bare = keras_resfam.OrthoPlainNet(
        8, orthonormality=0, modulation=False, input_shape=SHAPE
    )
    assert not bare.losses
    with_variables = [x.name for x in model.layers if x.weights]
    assert [x.name for x in bare.layers if x.weights] == with_variables
    bare.set_weights(model.get_weights())
    x = images(shape=SHAPE)
    np.testing.assert_array_equal(predict(bare, x), predict(model, x))
    for layer in bare.layers:
        assert not isinstance(layer, GradientModulation)


@pytest.mark.parametrize(
    "modulation, threshold", [(True, 1.2), (3, 3.0), (1.0, 1.0)]
)
def test_threshold(modulation, threshold):
    model = keras_resfam.OrthoPlainNet(8, modulation=modulation)
    layers = [x for x in model.layers if isinstance(x, GradientModulation)]
    assert [x.threshold for x in layers] == [threshold] * 7


def test_modulation_at_convolutions():
    model = keras_resfam.OrthoPlainNet(
        8, modulation=1.5, modulation_at="conv", input_shape=SHAPE
    )
    types = [type(layer).__name__ for layer in model.layers[2:-2]]
    triple = ["Conv2D", "GradientModulation", "BatchNormalization", "ReLU"]
    assert types == triple * 7
    layers = [x for x in model.layers if isinstance(x, GradientModulation)]
    for below, above in zip(layers, layers[1:], strict=False):
        assert above.threshold == 1.5
        link = below.output[1]
        assert any(t is link for t in keras.tree.flatten(above.input))


@pytest.mark.parametrize(
    "name, kind",
    [
        ("double", DoubleSoftOrthogonalityRegularizer),
        ("spectral", SpectralRestrictedIsometryRegularizer),
        ("convolutional", OrthogonalConvolutionRegularizer),
    ],
)
def test_other_regularizers(name, kind):
    model = keras_resfam.OrthoPlainNet(
        8, orthonormality=0.5, regularizer=name, input_shape=SHAPE
    )
    for layer_name in kernels(model):
        layer = model.get_layer(layer_name)
        regularizer = layer.kernel_regularizer
        assert type(regularizer) is kind
        assert regularizer.factor == 0.5
        if name == "convolutional":
            strides = getattr(layer, "strides", (1, 1))
            assert (regularizer.strides,) * 2 == strides
    assert len(model.losses) == 8


@pytest.mark.parametrize(
    "name, orthonormality, convolutions, classifier",
    [
        (None, 0, FanInNormal, FanInUniform),
        (None, 1e-4, Orthonormal, Orthonormal),
        ("he", 1e-4, FanInNormal, FanInUniform),
        ("orthonormal", 0, Orthonormal, Orthonormal),
        ("delta", 0, DeltaOrthonormal, Orthonormal),
    ],
)
def test_initializers(name, orthonormality, convolutions, classifier):
    model = keras_resfam.OrthoPlainNet(
        8,
        orthonormality=orthonormality,
        initializer=name,
        input_shape=SHAPE,
    )
    for layer_name in kernels(model):
        initializer = model.get_layer(layer_name).kernel_initializer
        last = layer_name == "predictions"
        assert type(initializer) is (classifier if last else convolutions)


@pytest.mark.parametrize("shift", [0, 0.5])
def test_shift(shift):
    model = keras_resfam.OrthoPlainNet(8, shift=shift, input_shape=SHAPE)
    norms = [x for x in model.layers if hasattr(x, "beta")]
    assert len(norms) == 7
    for layer in norms:
        beta = keras.ops.convert_to_numpy(layer.beta)
        np.testing.assert_array_equal(beta, shift)


def test_training_keeps_kernels_near_orthonormal():
    """A large coefficient holds what the loss alone would pull away."""
    x, y = images(32, SHAPE), np.arange(32) % 10

    def departure(orthonormality):
        keras.utils.set_random_seed(0)
        model = keras_resfam.OrthoPlainNet(
            8,
            orthonormality=orthonormality,
            modulation=False,
            input_shape=SHAPE,
        )
        model.compile(
            keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy"
        )
        model.fit(x, y, batch_size=32, epochs=8, verbose=0)
        regularizer = OrthonormalRegularizer(2.0)
        return sum(
            float(keras.ops.convert_to_numpy(regularizer(kernel)))
            for kernel in kernels(model).values()
        )

    assert departure(0.5) < departure(0) / 2


def test_imagenet_forms_link_every_layer(quick_initializers):
    model = keras_resfam.OrthoPlainNet34(input_shape=(32, 32, 3))
    layers = [x for x in model.layers if isinstance(x, GradientModulation)]
    assert len(layers) == 33
    # One chain: each but the lowest takes the link of the one below.
    for below, above in zip(layers, layers[1:], strict=False):
        link = below.output[1]
        assert any(t is link for t in keras.tree.flatten(above.input))


@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(depth=45), r"`depth`.*6n \+ 2.*depth=45"),
        (dict(width=None), "`width`.*width=None"),
        (dict(orthonormality=-1), "`orthonormality`.*orthonormality=-1"),
        (dict(orthonormality=None), "`orthonormality`.*=None"),
        (dict(modulation=0.5), "`modulation`.*at least 1.*modulation=0.5"),
        (dict(modulation="yes"), "`modulation`.*modulation='yes'"),
        (dict(modulation_at="bn"), "`modulation_at`.*modulation_at='bn'"),
        (dict(regularizer="l2"), "`regularizer`.*regularizer='l2'"),
        (dict(initializer="zeros"), "`initializer`.*initializer='zeros'"),
        (dict(shift=-1), "`shift`.*at least 0.*shift=-1"),
    ],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        keras_resfam.OrthoPlainNet(**arguments)
