import keras
import numpy as np
import pytest

from keras_resfam.initializers import (
    DeltaOrthonormal,
    FanInNormal,
    FanInUniform,
    Orthonormal,
    column_groups,
)

ALL = pytest.mark.parametrize(
    "initializer", [FanInNormal, FanInUniform, Orthonormal, DeltaOrthonormal]
)


def gram(kernel):
    matrix = keras.ops.convert_to_numpy(kernel).astype("float64")
    matrix = matrix.reshape(-1, matrix.shape[-1])
    return matrix.T @ matrix


@pytest.mark.parametrize("shape", [(64, 10), (3, 3, 16, 32), (5, 5)])
def test_all_filters_are_orthonormal_where_they_fit(shape):
    kernel = Orthonormal(seed=1)(shape)
    assert tuple(kernel.shape) == shape
    np.testing.assert_allclose(gram(kernel), np.eye(shape[-1]), atol=2e-6)


def test_groups_are_orthonormal_where_filters_do_not_fit():
    # As if an RGB stem put out 64 channels: filters of 27 weights.
    product = gram(Orthonormal(seed=1)((3, 3, 3, 64)))
    blocks = np.zeros((64, 64), bool)
    for start, stop in [(0, 27), (27, 54), (54, 64)]:
        blocks[start:stop, start:stop] = True
        np.testing.assert_allclose(
            product[start:stop, start:stop], np.eye(stop - start), atol=2e-6
        )
    # Groups are drawn independently: none repeats another.
    across = product[:27, 27:54]
    assert 0.1 < np.abs(across).max() < 0.95
    assert np.linalg.norm(product[~blocks]) > 1


@pytest.mark.parametrize(
    "fan_in, filters, expected",
    [
        (27, 64, [(0, 27), (27, 54), (54, 64)]),
        (64, 256, [(0, 64), (64, 128), (128, 192), (192, 256)]),
        (144, 16, [(0, 16)]),
        (4, 4, [(0, 4)]),
        (1, 2, [(0, 1), (1, 2)]),
    ],
)
def test_column_groups(fan_in, filters, expected):
    assert column_groups(fan_in, filters) == expected


@pytest.mark.parametrize("shape", [(6, 4), (5, 4, 4), (3, 3, 8, 6)])
def test_delta_is_an_orthonormal_matrix_in_the_center(shape):
    kernel = keras.ops.convert_to_numpy(DeltaOrthonormal(seed=1)(shape))
    center = tuple(size // 2 for size in shape[:-2])
    w = kernel[center].astype("float64")
    np.testing.assert_allclose(w.T @ w, np.eye(shape[-1]), atol=2e-6)
    kernel = kernel.copy()
    kernel[center] = 0
    assert not kernel.any()


def test_more_filters_than_channels_are_no_delta():
    shape = (3, 3, 3, 16)
    np.testing.assert_array_equal(
        *(
            keras.ops.convert_to_numpy(draw(seed=1)(shape))
            for draw in (DeltaOrthonormal, Orthonormal)
        )
    )


def test_delta_keeps_the_norm_of_every_image():
    kernel = DeltaOrthonormal(seed=1)((3, 3, 8, 8))
    images = np.random.default_rng(0).normal(size=(5, 6, 6, 8))
    outputs = keras.ops.conv(
        keras.ops.array(images, "float32"), kernel, padding="same"
    )
    norms = [
        np.linalg.norm(keras.ops.convert_to_numpy(x).reshape(5, -1), axis=1)
        for x in (images, outputs)
    ]
    np.testing.assert_allclose(*norms, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4, 3, 3)])
def test_delta_has_a_center(shape):
    with pytest.raises(ValueError, match=r"odd sides. Received: shape=\("):
        DeltaOrthonormal()(shape)


def test_gain_seed_and_config():
    initializer = Orthonormal(gain=2.0, seed=7)
    kernel = keras.ops.convert_to_numpy(initializer((3, 3, 4, 50)))
    np.testing.assert_allclose(
        gram(kernel)[:36, :36], 4 * np.eye(36), atol=1e-5
    )
    restored = keras.initializers.deserialize(
        keras.initializers.serialize(initializer)
    )
    assert isinstance(restored, Orthonormal)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(restored((3, 3, 4, 50))), kernel
    )
    other = keras.ops.convert_to_numpy(Orthonormal(gain=2.0)((3, 3, 4, 50)))
    assert np.abs(other - kernel).max() > 0.1


def test_normal_has_the_deviation_and_the_tails():
    kernel = keras.ops.convert_to_numpy(FanInNormal(seed=1)((3, 3, 64, 512)))
    deviation = np.sqrt(2 / (9 * 64))
    assert kernel.std() == pytest.approx(deviation, rel=1e-2)
    assert kernel.mean() == pytest.approx(0, abs=1e-2 * deviation)
    # Of a normal distribution 4.55 % lie beyond two deviations.
    beyond = np.mean(np.abs(kernel) > 2 * deviation)
    assert beyond == pytest.approx(0.0455, rel=0.05)


def test_uniform_fills_its_interval():
    kernel = keras.ops.convert_to_numpy(FanInUniform(seed=1)((400, 300)))
    assert np.abs(kernel).max() == pytest.approx(1 / 20, rel=1e-3)
    assert kernel.std() == pytest.approx(1 / 20 / np.sqrt(3), rel=1e-2)


@ALL
def test_backends_draw_alike(initializer):
    # What NumPy's generator gives to this seed, wherever it is asked.
    expected = {
        FanInNormal: np.random.default_rng(5).standard_normal(
            (6, 4), dtype="float32"
        )
        * np.sqrt(2 / 6),
        FanInUniform: np.random.default_rng(5).uniform(-1, 1, (6, 4))
        / np.sqrt(6),
        Orthonormal: np.linalg.qr(
            np.random.default_rng(5).standard_normal((6, 4))
        )[0],
        DeltaOrthonormal: np.linalg.qr(
            np.random.default_rng(5).standard_normal((6, 4))
        )[0],
    }[initializer]
    shape = (1, 6, 4) if initializer is DeltaOrthonormal else (2, 3, 4)
    drawn = keras.ops.convert_to_numpy(initializer(seed=5)(shape))
    if issubclass(initializer, Orthonormal):
        expected, drawn = np.abs(expected), np.abs(drawn)
    np.testing.assert_allclose(drawn.reshape(6, 4), expected, atol=1e-6)


@ALL
def test_set_random_seed_repeats_the_draw(initializer):
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(11)
        drawn.append(keras.ops.convert_to_numpy(initializer()((4, 4))))
    np.testing.assert_array_equal(*drawn)


@ALL
def test_config(initializer):
    first = initializer(seed=7)
    again = keras.initializers.deserialize(keras.initializers.serialize(first))
    assert type(again) is initializer
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(again((3, 4))),
        keras.ops.convert_to_numpy(first((3, 4))),
    )


@ALL
def test_a_seed_generator_gives_new_values_each_time(initializer):
    drawn = initializer(seed=keras.random.SeedGenerator(3))
    first, second = (
        keras.ops.convert_to_numpy(drawn((4, 4))) for _ in range(2)
    )
    assert np.abs(first - second).max() > 0.1


def test_half_precision_is_rounded_from_float32():
    kernel = Orthonormal(seed=1)((3, 3, 16, 32), dtype="bfloat16")
    assert keras.backend.standardize_dtype(kernel.dtype) == "bfloat16"
    exact = Orthonormal(seed=1)((3, 3, 16, 32), dtype="float32")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.cast(exact, "bfloat16")),
        keras.ops.convert_to_numpy(kernel),
    )


@ALL
def test_rank_below_two_is_refused(initializer):
    with pytest.raises(ValueError, match=r"shape=\(3,\)"):
        initializer()((3,))


@ALL
def test_seeds_below_zero(initializer):
    """Keras takes them."""
    one, again, other = (
        keras.ops.convert_to_numpy(initializer(seed=seed)((3, 4)))
        for seed in (-1, -1, -2)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


@ALL
def test_without_a_seed_an_initializer_repeats_itself(initializer):
    """As Keras's do."""
    draw = initializer()
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(draw((3, 4))) for _ in range(2))
    )
