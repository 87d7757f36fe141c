import keras
import numpy as np
import pytest

import keras_resfam
from differentiate import gradients
from keras_resfam.backends.moments import scaled, second_moment
from keras_resfam.layers import GradientModulation


def chain_of_gains(gains, threshold):
    """Error moments between layers that multiply by `gains`, lowest first.

    Returns the moments that leave each modulation, and those that leave the
    layer above it.
    """
    layers = [GradientModulation(threshold) for _ in range(len(gains) + 1)]
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    probes = [np.zeros_like(x) for _ in range(2 * len(layers))]

    def loss(*probes):
        y, link = keras.ops.array(x), None
        for k, layer in enumerate(layers):
            y, link = layer(y + probes[2 * k], link, training=True)
            y = y + probes[2 * k + 1]
            if k < len(gains):
                y = y * gains[k]
        return keras.ops.sum(keras.ops.square(y)) / 2

    found = [np.mean(g.astype("float64") ** 2) for g in gradients(loss, probes)]
    return found[0::2], found[1::2]


def test_errors_that_mismatch_get_back_the_magnitude_above():
    # Backward, from the top: fades, fades, grows, stays within 2.
    gains = [1.3, 10.0, 1e-3, 0.1]
    passed, arrived = chain_of_gains(gains, threshold=2.0)
    np.testing.assert_allclose(arrived[-1], passed[-1], rtol=1e-6)
    np.testing.assert_allclose(passed[1:4], passed[-1], rtol=1e-5)
    # 1.3 ** 2 is within the threshold: the error passes as it is.
    np.testing.assert_allclose(passed[0], passed[-1] * 1.69, rtol=1e-5)
    np.testing.assert_allclose(arrived[3], passed[-1] * 0.1**2, rtol=1e-5)


def test_a_threshold_of_one_always_modulates():
    passed, _ = chain_of_gains([1.3, 0.9, 1.01], threshold=1)
    np.testing.assert_allclose(passed, passed[-1], rtol=1e-5)


def test_small_errors_are_modulated_as_far_as_float32_holds_their_squares():
    passed, _ = chain_of_gains([1e8, 1e-8, 1e-8], threshold=2.0)
    np.testing.assert_allclose(passed, passed[-1], rtol=1e-4)
    # Errors of 1e-24 pass as they are.
    passed, arrived = chain_of_gains([1e12, 1e-12, 1e-12], threshold=2.0)
    assert passed[2] == pytest.approx(arrived[2]) == passed[3] * 1e-24


def test_errors_whose_squares_float32_does_not_hold_pass():
    passed, arrived = chain_of_gains([1e-22, 1e22], threshold=2.0)
    assert passed[1] == pytest.approx(arrived[1]) == passed[2] * 1e44


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_steep_fall_in_half_precision(dtype):
    """A factor above float16's largest number, beside an error of zero."""
    low, above = (GradientModulation(1.0, dtype=dtype) for _ in range(2))

    def loss(x):
        y, link = low(keras.ops.cast(x, dtype), training=True)
        y, _ = above(keras.ops.relu(y) * 1e-5, link, training=True)
        return keras.ops.sum(keras.ops.cast(y, "float32"))

    (found,) = gradients(loss, [np.array([1, -1, 1, 1], "float32")])
    expected = np.array([1, 0, 1, 1]) * np.sqrt(4 / 3)
    np.testing.assert_allclose(found, expected, rtol=1e-2)


def test_no_error_stays_no_error():
    layer, above = GradientModulation(), GradientModulation()

    def loss(x):
        y, link = layer(x, training=True)
        y, _ = above(y * 0.0, link, training=True)
        return keras.ops.sum(keras.ops.square(y - 1.0))

    (found,) = gradients(loss, [np.ones((2, 2), "float32")])
    np.testing.assert_array_equal(found, 0.0)


def plain_net_moments(depth, modulation, training):
    """Second moments of the error at each layer's output, lowest first."""
    keras.utils.set_random_seed(0)
    model = keras_resfam.OrthoPlainNet(
        depth=depth,
        modulation=modulation,
        input_shape=(8, 8, 3),
        classifier_activation=None,
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3))
    relus = [x for x in model.layers if isinstance(x, keras.layers.ReLU)]
    probes = [
        np.zeros((8, *layer.output.shape[1:]), "float32") for layer in relus
    ]

    def loss(*probes):
        x, link = keras.ops.cast(images, "float32"), None
        probe = iter(probes)
        for layer in model.layers[1:]:
            if isinstance(layer, GradientModulation):
                x, link = layer(x, link, training=True)
            elif isinstance(layer, keras.layers.BatchNormalization):
                x = layer(x, training=training)
            else:
                x = layer(x)
            if isinstance(layer, keras.layers.ReLU):
                x = x + next(probe)
        log_probabilities = keras.ops.log_softmax(x)
        return -keras.ops.mean(log_probabilities[:, 3])

    found = gradients(loss, probes)
    return np.array([np.mean(g.astype("float64") ** 2) for g in found])


@pytest.mark.parametrize(
    "depth, threshold, training", [(44, 1.2, True), (20, 1.5, False)]
)
def test_a_deep_plain_net_keeps_its_error(depth, threshold, training):
    moments = plain_net_moments(depth, threshold, training)
    ratios = moments[1:] / moments[:-1]
    assert len(moments) == depth - 1
    assert ratios.max() <= threshold * 1.01
    assert ratios.min() >= 1 / threshold / 1.01


def test_without_modulation_the_error_collapses_or_explodes():
    frozen = plain_net_moments(26, modulation=False, training=False)
    assert frozen[0] / frozen[-1] < 1e-8
    # Batch statistics turn it round: each BN then enlarges the error.
    batch = plain_net_moments(26, modulation=False, training=True)
    assert batch[0] / batch[-1] > 30


def test_outside_of_training_gradients_are_those_of_the_network():
    keras.utils.set_random_seed(0)
    model = keras_resfam.OrthoPlainNet(
        14, input_shape=(8, 8, 3), classifier_activation=None
    )
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3))

    def found(network, training):
        def loss(x):
            return keras.ops.sum(network(x, training=training)[:, 0])

        return gradients(loss, [images.astype("float32")])[0]

    def agree(training):
        ours, plain = (found(x, training) for x in (model, stock))
        return np.allclose(ours, plain, rtol=1e-3, atol=1e-4 * plain.std())

    stock = keras_resfam.to_stock_layers(model)
    assert agree(training=False)
    assert agree(training=None)
    assert not agree(training=True)


def test_the_link_is_a_zero_in_float32():
    for training in (False, True):
        layer = GradientModulation(dtype="float16")
        _, link = layer(keras.ops.ones((2, 3), "float16"), training=training)
        assert keras.backend.standardize_dtype(link.dtype) == "float32"
        assert keras.ops.convert_to_numpy(link) == 0.0


def small_model(dtype=None):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(6, "relu", dtype=dtype, name="low")(inputs)
    x, link = GradientModulation(1.0, dtype=dtype)(x)
    x = keras.layers.Dense(6, dtype=dtype, name="middle")(x * 1e-3)
    x, link = GradientModulation(1.0, dtype=dtype)(x, link)
    outputs = keras.layers.Dense(1, dtype=dtype, name="top")(x)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_forward_pass_is_the_identity_and_the_model_saves(dtype, tmp_path):
    model = small_model(dtype)
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    plain = model.get_layer("low")(x) * 1e-3
    plain = model.get_layer("top")(model.get_layer("middle")(plain))
    np.testing.assert_array_equal(
        *map(keras.ops.convert_to_numpy, (model(x), plain))
    )
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        *map(keras.ops.convert_to_numpy, (restored(x), plain))
    )
    layers = [x for x in restored.layers if isinstance(x, GradientModulation)]
    assert [x.threshold for x in layers] == [1.0, 1.0]
    assert not any(x.variables for x in layers)


@pytest.mark.parametrize("training", [False, True])
def test_masks_are_kept(training):
    masked = keras.layers.Masking()(np.array([[[0.0, 0.0], [1.0, 2.0]]]))
    link = None
    for _ in range(2):
        masked, link = GradientModulation()(masked, link, training=training)
    mask = keras.ops.convert_to_numpy(masked._keras_mask)
    np.testing.assert_array_equal(mask, [[False, True]])


@pytest.mark.parametrize(
    "dtype", ["float32", "mixed_bfloat16", "mixed_float16"]
)
def test_training_modulates_under_fit(dtype):
    """One SGD step: the lowest kernel moves as if the 1e-3 were not there."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 6)), rng.normal(size=(16, 1))
    jit = "auto" if keras.backend.backend() == "torch" else True

    def step(threshold, trainable=True):
        keras.utils.set_random_seed(1)
        model = small_model(dtype)
        for layer in model.layers:
            if isinstance(layer, GradientModulation):
                layer.threshold = threshold
                layer.trainable = trainable
        before = keras.ops.convert_to_numpy(model.get_layer("low").kernel)
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit)
        model.fit(x, y, batch_size=16, verbose=0)
        after = keras.ops.convert_to_numpy(model.get_layer("low").kernel)
        return np.abs(after - before).max()

    faded, modulated = step(1e12), step(1.0)
    assert 0 < faded
    assert 100 < modulated / faded < 10000
    assert step(1.0, trainable=False) == pytest.approx(faded, rel=1e-3)


@pytest.mark.parametrize("threshold", [0.99, 0, -2, float("nan"), "2", None])
def test_bad_threshold(threshold):
    with pytest.raises(ValueError, match="`threshold`.*Received: threshold="):
        GradientModulation(threshold)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        ("float32", 1e-15),
        ("float32", 1e15),
        ("bfloat16", 1e-15),
        ("bfloat16", 1e15),
        ("float16", 1e-4),
        ("float16", 6e4),
    ],
)
@pytest.mark.parametrize("shape", [(), (9,), (3, 5), (3, 32, 32, 16)])
def test_second_moments_are_as_precise_as_the_type(shape, dtype, scale):
    """Sums of many squares, also where float16 does not hold a norm."""
    values = np.random.default_rng(0).uniform(0.1, 1, shape) * scale
    x = keras.ops.cast(keras.ops.convert_to_tensor(values, "float32"), dtype)
    exact = keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
    expected = np.mean(exact.astype("float64") ** 2)
    found = second_moment(x)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    tolerance = 1e-2 if dtype == "bfloat16" else 1e-5
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found), expected, rtol=tolerance
    )


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has no float64 by default"
)
def test_double_precision_is_kept():
    x = keras.ops.convert_to_tensor([1 + 1e-12], "float64")
    found = scaled(x, keras.ops.convert_to_tensor(2.0, "float32"))
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(y) for y in (found, x + x))
    )
