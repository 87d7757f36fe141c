"""Augmentation against loops in NumPy."""

import itertools

import keras
import numpy as np
import pytest

from training.images import augmentation

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (16, 6, 5, 3), dtype="uint8")
DRAWS = augmentation.draw(RNG, 16)
FILL = (10.0, 20.0, 30.0)


def augmented(**options):
    return keras.ops.convert_to_numpy(
        augmentation.augment(IMAGES, DRAWS, fill=FILL, **options)
    )


def padded(image, crop, padding):
    width = ((crop, crop), (crop, crop))
    if padding == "reflect":
        return np.pad(image, (*width, (0, 0)), mode="reflect")
    return np.stack(
        [
            np.pad(image[..., c], width, constant_values=FILL[c])
            for c in range(3)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("padding", ["mean", "reflect"])
@pytest.mark.parametrize("crop", [0, 1, 3, 13])  # also more than the side
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip(flip, crop, padding):
    actual = augmented(flip=flip, crop=crop, padding=padding)
    for image, draw, result in zip(
        IMAGES.astype("float32"), DRAWS, actual, strict=True
    ):
        top = int(draw[1] * (2 * crop + 1))
        left = int(draw[2] * (2 * crop + 1))
        mirrored = image[:, ::-1] if flip and draw[0] < 0.5 else image
        # Mirrored before or after: the crop's side differs, its law does not.
        expected = padded(mirrored, crop, padding)
        if flip and draw[0] < 0.5:
            left = 2 * crop - left
        expected = expected[top : top + 6, left : left + 5]
        np.testing.assert_array_equal(result, expected)


def test_every_shift_and_both_mirrors_occur():
    draws = augmentation.draw(np.random.default_rng(1), 1000)
    image = np.zeros((1000, 5, 5, 1), "float32")
    image[:, 2, 1] = 1.0
    result = keras.ops.convert_to_numpy(
        augmentation.augment(image, draws, flip=True, crop=1)
    )
    places = {tuple(np.argwhere(one[..., 0])[0]) for one in result}
    assert places == {(y, x) for y in (1, 2, 3) for x in range(5)}


@pytest.mark.parametrize("side", [1, 2, 3])
def test_cutout(side):
    actual = augmented(cutout=side)
    for image, draw, result in zip(
        IMAGES.astype("float32"), DRAWS, actual, strict=True
    ):
        top = int(draw[3] * 6) - side // 2
        left = int(draw[4] * 5) - side // 2
        expected = image.copy()
        expected[
            max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)
        ] = FILL
        np.testing.assert_array_equal(result, expected)


def in_turn(image, order, factors):
    """fb.resnet.torch's ColorJitter, one blend after another."""
    for name in order:
        gray = image @ np.array([0.299, 0.587, 0.114])
        other = {
            "brightness": np.zeros_like(image),
            "contrast": np.full_like(image, gray.mean()),
            "saturation": np.repeat(gray[..., None], 3, axis=-1),
        }[name]
        image = factors[name] * image + (1 - factors[name]) * other
    return image


KINDS = ("brightness", "contrast", "saturation")


@pytest.mark.parametrize(
    "order", list(itertools.permutations(KINDS)), ids="-".join
)
def test_jitter_is_the_blends_in_any_order(order):
    actual = augmented(jitter=0.4)
    for image, draw, result in zip(
        IMAGES.astype("float64"), DRAWS, actual, strict=True
    ):
        draw = dict(zip(augmentation.COLUMNS, draw, strict=True))
        factors = {kind: 0.6 + 0.8 * draw[kind] for kind in KINDS}
        expected = in_turn(image, order, factors)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-3)


def test_lighting_adds_one_color_an_image():
    draws = augmentation.draw(np.random.default_rng(4), 5000)
    images = np.full((5000, 2, 2, 3), 100.0, "float32")
    light = keras.ops.convert_to_numpy(
        augmentation.augment(images, draws, lighting=0.1)
    )
    light = light.astype("float64") - 100
    np.testing.assert_allclose(light[:, 0, 0], light[:, 1, 1])
    # Along an eigenvector the deviation is a tenth of the eigenvalue.
    vectors = np.linalg.eigh(np.cov(light[:, 0, 0].T))
    deviations = np.sqrt(vectors.eigenvalues[::-1])
    np.testing.assert_allclose(
        deviations, 25.5 * np.array([0.2175, 0.0188, 0.0045]), rtol=0.05
    )
    first = np.abs(vectors.eigenvectors[:, -1])
    np.testing.assert_allclose(first, [0.5675, 0.5808, 0.5836], atol=0.01)


def test_colors_need_three_channels():
    with pytest.raises(ValueError, match="images of 1 channels"):
        augmentation.augment(IMAGES[..., :1], DRAWS, jitter=0.4)


def test_nothing_asked_changes_nothing():
    np.testing.assert_array_equal(augmented(), IMAGES.astype("float32"))


def test_mix_is_of_neighbors():
    draws = augmentation.draw(RNG, 16, mixup=0.5)
    shares = draws[:, 5]
    assert 0 < shares.min() < shares.max() < 1
    labels = np.eye(16, dtype="float32")
    mixed = keras.ops.convert_to_numpy(augmentation.mix(labels, draws))
    for i in range(16):
        expected = np.zeros(16)
        expected[i] = shares[i]
        expected[i ^ 1] = 1 - shares[i]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-6)


def test_draws_are_uniform_but_for_the_share():
    draws = augmentation.draw(np.random.default_rng(2), 20_000)
    assert draws.dtype == np.float32
    np.testing.assert_array_equal(draws[:, 5], 1)
    assert (draws[:, :5] >= 0).all() and (draws[:, :5] < 1).all()
    np.testing.assert_allclose(draws[:, :5].mean(axis=0), 0.5, atol=0.01)
