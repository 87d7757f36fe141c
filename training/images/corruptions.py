"""The corruptions of CIFAR-10-C, for any images of 32 x 32 pixels.

Hendrycks & Dietterich 2019 (https://arxiv.org/abs/1903.12261) measure
classifiers on images with noise, blur, fog and others, in five severities. The
severities here are those of their `make_cifar_c.py`
(https://github.com/hendrycks/robustness), and values are truncated to integers
in the same way. The random numbers differ.

Four of their 15 corruptions are left out: motion blur and snow need
ImageMagick, frost needs photographs, and the elastic transformation needs
OpenCV. A mean over the other 11 cannot be compared with the mean over all.
"""

import io

import numpy as np

SEVERITIES = 1, 2, 3, 4, 5


def corrupt(images, name, severity, seed=0):
    """Corrupts images.

    Args:
        images: uint8 array of shape `(examples, 32, 32, 3)`.
        name: str. One of `CORRUPTIONS`.
        severity: int from 1 to 5.
        seed: int. The same seed gives the same images.

    Returns:
        A uint8 array of the same shape.

    Raises:
        ValueError: If the images have another type or shape.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        raise ValueError(
            "Images to corrupt should be uint8 of shape (examples, 32, 32, 3), "
            "for which the severities were chosen. "
            f"Received: {images.dtype} of shape {images.shape}"
        )
    function, levels = CORRUPTIONS[name]
    number = list(CORRUPTIONS).index(name)
    rng = np.random.default_rng([seed, number, severity])
    corrupted = function(images / 255, levels[severity - 1], rng)
    return (np.clip(corrupted, 0, 1) * 255).astype("uint8")


def _gaussian_noise(x, deviation, rng):
    return x + rng.normal(scale=deviation, size=x.shape)


def _shot_noise(x, photons, rng):
    return rng.poisson(x * photons) / photons


def _impulse_noise(x, share, rng):
    """Sets a share of the values to 0 or 1, in each channel separately."""
    salt = rng.integers(0, 2, x.shape)
    return np.where(rng.random(x.shape) < share, salt, x)


def _defocus_blur(x, level, rng):
    """Averages over a disk with an edge that is smoothed by three taps."""
    from scipy import ndimage

    radius, smoothing = level
    y = np.arange(-2, 3)
    disk = (y[:, None] ** 2 + y**2 <= radius**2).astype("float64")
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * smoothing**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(
            disk, taps / taps.sum(), axis, mode="constant"
        )
    disk /= disk.sum()
    return ndimage.correlate(x, disk[None, :, :, None], mode="mirror")


def _glass_blur(x, level, rng):
    """Copies each pixel from one of its neighbors, between two blurs.

    The authors' code looks like a swap, but is a copy because of NumPy's views.
    """
    deviation, reach, times = level
    x = (_blurred(x, deviation) * 255).astype("uint8")
    rows = np.arange(len(x))
    for _ in range(times):
        for h in range(32 - reach, reach, -1):
            for w in range(32 - reach, reach, -1):
                dx, dy = rng.integers(-reach, reach, (2, len(x)))
                x[:, h, w] = x[rows, h + dy, w + dx]
    return _blurred(x / 255, deviation)


def _blurred(x, deviation):
    from scipy import ndimage

    return ndimage.gaussian_filter(
        x, (0, deviation, deviation, 0), mode="nearest"
    )


def _zoom_blur(x, last, rng):
    """Averages the image and its enlargements up to a factor, by 0.01."""
    factors = np.arange(1, last, 0.01)
    return (x + sum(_enlarged(x, f) for f in factors)) / (len(factors) + 1)


def _enlarged(x, factor):
    """Returns the middle of each image, enlarged to the size of the whole."""
    side = x.shape[1]
    size = int(np.ceil(side / factor))
    first = (side - size) // 2
    part = x[:, first : first + size, first : first + size]
    enlarged = round(size * factor)
    places = np.linspace(0, size - 1, enlarged)
    first = (enlarged - side) // 2
    places = places[first : first + side, None]
    # Linear interpolation, as a matrix for each axis.
    matrix = np.maximum(1 - np.abs(places - np.arange(size)), 0)
    return np.einsum("ah,bw,nhwc->nabc", matrix, matrix, part, optimize=True)


def _fog(x, level, rng):
    amount, decay = level
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    x = x + amount * _plasma(len(x), x.shape[1], decay, rng)[..., None]
    return x * brightest / (brightest + amount)


def _plasma(count, side, decay, rng):
    """Draws clouds by the diamond-square algorithm on a torus, from 0 to 1.

    Args:
        count: int.
        side: int. A power of 2.
        decay: float. The noise is divided by it from scale to scale.
        rng: `np.random.Generator`.

    Returns:
        An array of shape `(count, side, side)`.
    """
    clouds = np.zeros((count, side, side))
    step, noise = side, 100.0

    def mean(total):
        return total / 4 + noise * rng.uniform(-noise, noise, total.shape)

    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        below, right = np.roll(corners, -1, 1), np.roll(corners, -1, 2)
        middles = mean(corners + below + right + np.roll(below, -1, 2))
        above, left = np.roll(middles, 1, 1), np.roll(middles, 1, 2)
        clouds[:, half::step, half::step] = middles
        clouds[:, ::step, half::step] = mean(corners + right + middles + above)
        clouds[:, half::step, ::step] = mean(corners + below + middles + left)
        step, noise = half, noise / decay
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    return clouds / clouds.max(axis=(1, 2), keepdims=True)


def _brightness(x, amount, rng):
    """Adds to the value of hue, saturation and value."""
    value = x.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + amount, 1)
    return np.where(value > 0, x / np.where(value > 0, value, 1), 1) * brighter


def _contrast(x, factor, rng):
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * factor + mean


def _pixelate(x, factor, rng):
    from PIL import Image

    def smaller_and_back(image):
        size = int(image.width * factor)
        small = image.resize((size, size), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.BOX)

    return _by_pillow(x, smaller_and_back)


def _jpeg_compression(x, quality, rng):
    from PIL import Image

    def coded(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pillow(x, coded)


def _by_pillow(x, change):
    from PIL import Image

    # These were integers before. The hundredth protects them from truncation.
    integers = np.round(x * 255).astype("uint8")
    changed = [np.asarray(change(Image.fromarray(image))) for image in integers]
    return (np.stack(changed) + 0.01) / 255


# The functions, with the parameters of the five severities.
CORRUPTIONS = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (
        _defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "glass_blur": (
        _glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "zoom_blur": (_zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
}
