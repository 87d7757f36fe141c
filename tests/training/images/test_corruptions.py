"""Corrupted images, against NumPy, SciPy, Pillow and Matplotlib."""

import io

import numpy as np
import pytest
from matplotlib import colors
from PIL import Image
from scipy import ndimage

from training.images import corruptions
from training.images.corruptions import CORRUPTIONS, SEVERITIES, corrupt

pytestmark = pytest.mark.backend_independent

RNG = np.random.default_rng(0)


def pictures(count=20):
    """Smooth images that use all of the range."""
    noise = ndimage.gaussian_filter(
        RNG.random((count, 32, 32, 3)), (0, 2, 2, 0)
    )
    noise -= noise.min()
    return (noise / noise.max() * 255).astype("uint8")


def gray(value=128, count=40):
    return np.full((count, 32, 32, 3), value, "uint8")


def change(images, name, severity):
    return corrupt(images, name, severity).astype("float64") - images


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_worse_and_the_seed_gives_the_same(name):
    x = pictures()
    sizes = [np.abs(change(x, name, s)).mean() for s in SEVERITIES]
    assert 0 < sizes[0] < sizes[-1]
    if name != "glass_blur":  # whose third blurs more and copies less
        assert sizes == sorted(sizes)
    again = corrupt(x, name, 3)
    np.testing.assert_array_equal(again, corrupt(x, name, 3))
    assert again.dtype == np.uint8
    random = {"noise", "fog", "glass_blur"} & {name, name.split("_")[-1]}
    assert (again == corrupt(x, name, 3, seed=1)).all() == (not random)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_deviation_of_its_severity(severity):
    k = severity - 1
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[k]
    found = change(gray(), "gaussian_noise", severity)
    assert found.std() / 255 == pytest.approx(deviation, rel=0.03)
    photons = (500, 250, 100, 75, 50)[k]
    found = change(gray(), "shot_noise", severity)
    assert found.std() / 255 == pytest.approx(
        np.sqrt(128 / 255 / photons), rel=0.03
    )
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[k]
    noisy = corrupt(gray(), "impulse_noise", severity)
    for value in (0, 255):
        assert np.mean(noisy == value) == pytest.approx(share / 2, rel=0.1)
    assert set(np.unique(noisy)) == {0, 128, 255}


@pytest.mark.parametrize("quality", [80, 65, 58, 50, 40])
def test_jpeg_is_pillows(quality):
    x = pictures(2)
    severity = [80, 65, 58, 50, 40].index(quality) + 1
    for image, found in zip(
        x, corrupt(x, "jpeg_compression", severity), strict=True
    ):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        np.testing.assert_array_equal(found, np.asarray(Image.open(file)))


@pytest.mark.parametrize(("severity", "size"), [(1, 30), (3, 27), (5, 20)])
def test_pixels_are_averages(severity, size):
    x = pictures(2)
    for image, found in zip(x, corrupt(x, "pixelate", severity), strict=True):
        small = Image.fromarray(image).resize((size, size), Image.BOX)
        expected = np.asarray(small.resize((32, 32), Image.BOX))
        np.testing.assert_array_equal(found, expected)


def test_brightness_by_hue_saturation_and_value():
    x = pictures(3)
    x[0, :4] = 0  # black has no hue
    hsv = colors.rgb_to_hsv(x / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.2, 0, 1)
    found = corrupt(x, "brightness", 4)
    expected = colors.hsv_to_rgb(hsv) * 255
    np.testing.assert_allclose(found, expected, atol=1)  # which is cut


def test_contrast_is_taken_from_the_mean_of_each_channel():
    x = pictures(3)
    means = x.reshape(3, -1, 3).mean(axis=1)[:, None, None]
    found = corrupt(x, "contrast", 5)
    np.testing.assert_allclose(found, means + 0.15 * (x - means), atol=1)


@pytest.mark.parametrize("factor", [1, 1.01, 1.1, 1.17, 1.25])
def test_enlarged_as_scipy_does(factor):
    x = RNG.random((2, 32, 32, 3))
    size = int(np.ceil(32 / factor))
    first = (32 - size) // 2
    part = x[1, first : first + size, first : first + size]
    expected = ndimage.zoom(part, (factor, factor, 1), order=1)
    first = (len(expected) - 32) // 2
    expected = expected[first : first + 32, first : first + 32]
    found = corruptions._enlarged(x, factor)[1]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_defocus_averages_over_a_disk():
    """One white pixel becomes the disk, by hand for a radius of 1."""
    x = gray(0, 1)
    x[0, 16, 16] = 255
    found = corrupt(x, "defocus_blur", 4)[0, 13:20, 13:20, 0] / 255
    outer = np.exp(-1 / (2 * 0.2**2))
    taps = np.array([outer, 1, outer]) / (1 + 2 * outer)
    cross = np.zeros((7, 7))
    cross[3, 2:5] = cross[2:5, 3] = 0.2
    expected = ndimage.convolve(cross, np.outer(taps, taps), mode="constant")
    np.testing.assert_allclose(found, expected, atol=1 / 255)


def test_glass_takes_each_pixel_from_near_by():
    x = pictures(2)
    found = corrupt(x, "glass_blur", 1)  # whose blur is next to none
    for h, w in np.ndindex(32, 32):
        near = x[0, max(h - 32, 0) : h + 2, max(w - 32, 0) : w + 2]
        gaps = np.abs(near.astype(int) - found[0, h, w]).max(axis=-1)
        assert gaps.min() <= 2, (h, w)


def test_fog_is_between_nothing_and_white():
    clouds = corruptions._plasma(8, 32, 2.0, np.random.default_rng(0))
    assert clouds.shape == (8, 32, 32)
    np.testing.assert_array_equal(clouds.min(axis=(1, 2)), 0)
    np.testing.assert_array_equal(clouds.max(axis=(1, 2)), 1)
    steps = np.abs(np.diff(clouds, axis=1)).mean()
    assert steps < 0.5 * np.abs(clouds[:4] - clouds[4:]).mean()  # smooth
    # On black there is none: fog keeps the brightest value.
    assert corrupt(gray(0), "fog", 5).max() == 0
    assert corrupt(gray(200), "fog", 5).max() <= 200


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 1), "uint8"), np.zeros((2, 32, 32, 3), "float32")],
    ids=["size", "type"],
)
def test_other_images_are_refused(images):
    with pytest.raises(
        ValueError, match="uint8 of shape .*Received: .*of shape"
    ):
        corrupt(images, "fog", 1)
