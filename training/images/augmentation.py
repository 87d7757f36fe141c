"""Random changes to training images, written once for every backend.

The random numbers come with the data, as a row of `draws` for each image, and
the changes are made on the device, inside the train step. So the same seed
makes the same changes on every backend, on any number of devices, and after a
resume.
"""

import numpy as np
from keras import ops

COLUMNS = (
    *("flip", "shift_y", "shift_x", "cut_y", "cut_x", "mix"),
    *("brightness", "contrast", "saturation"),
    *("light_1", "light_2", "light_3"),
)
MIX = COLUMNS.index("mix")
LIGHT = COLUMNS.index("light_1")

# The share of red, green and blue in an image's gray.
GRAY = np.array([0.299, 0.587, 0.114], "float32")
# Eigenvectors of ImageNet's colors, in columns, times their eigenvalues: of
# fb.resnet.torch, whose pixels end at 1.
PRINCIPAL = (
    255
    * np.array(
        [
            [-0.5675, 0.7192, 0.4009],
            [-0.5808, -0.0045, -0.8140],
            [-0.5836, -0.6948, 0.4203],
        ],
        "float32",
    )
    * np.array([0.2175, 0.0188, 0.0045], "float32")
)


def draw(rng, examples, mixup=0.0):
    """Draws the random numbers that `augment` and `mix` use.

    Args:
        rng: `numpy.random.Generator`.
        examples: int.
        mixup: float. Alpha of the mixing weight's Beta distribution; with
            `0` the weight is 1. Defaults to `0.0`.

    Returns:
        float32 array of shape `(examples, 12)`: uniform in [0, 1), but for
        "mix", the share of itself that an image keeps in the mixture, and
        the last three, which are normal.
    """
    draws = np.empty((examples, len(COLUMNS)), np.float32)
    draws[:, : MIX + 1] = rng.random((examples, MIX + 1), dtype=np.float32)
    draws[:, MIX] = rng.beta(mixup, mixup, examples) if mixup else 1.0
    draws[:, MIX + 1 : LIGHT] = rng.random((examples, 3), dtype=np.float32)
    draws[:, LIGHT:] = rng.standard_normal((examples, 3), dtype=np.float32)
    return draws


def augment(
    images,
    draws,
    flip=False,
    crop=0,
    padding="mean",
    fill=0.0,
    jitter=0.0,
    lighting=0.0,
    cutout=0,
):
    """Mirrors, shifts, tints and blanks each image at random.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`.
        draws: Tensor of shape `(batch, 12)`, from `draw`.
        flip: bool. Mirror where the draw is below one half.
        crop: int. Shift by up to that many pixels each way: a random crop
            of the image padded by `crop` on each side.
        padding: "mean" fills what was shifted in with `fill`, "reflect"
            mirrors the image at its border pixel.
        fill: float, or one a channel.
        jitter: float. Brightness, contrast and saturation change by a factor
            between `1 - jitter` and `1 + jitter` each; of RGB images.
        lighting: float. Deviation of the light's color, along the principal
            components of ImageNet's; of RGB images.
        cutout: int. Side of the square filled with `fill`, centered
            anywhere in the image; `0` for none.

    Returns:
        float32 tensor of the shape of `images`.
    """
    columns = ops.split(draws, len(COLUMNS), axis=1)
    draws = dict(zip(COLUMNS, columns, strict=True))
    _, height, width, channels = images.shape
    if (jitter or lighting) and channels != 3:
        raise ValueError(
            "`jitter` and `lighting` are for RGB images. "
            f"Received: images of {channels} channels"
        )
    fill = ops.convert_to_tensor(fill, "float32")
    y, x = ops.arange(height)[None], ops.arange(width)[None]
    if flip:
        x = ops.where(draws["flip"] < 0.5, width - 1 - x, x)
    if crop:
        y = y + _integer(draws["shift_y"], 2 * crop + 1) - crop
        x = x + _integer(draws["shift_x"], 2 * crop + 1) - crop
    if flip or crop:
        pixels = ops.reshape(images, (-1, height * width, channels))
        from_y, from_x = _reflect(y, height), _reflect(x, width)
        source = from_y[:, :, None] * width + from_x[:, None, :]
        source = ops.reshape(source, (-1, height * width, 1))
        pixels = ops.take_along_axis(pixels, source, axis=1)
        images = ops.reshape(pixels, (-1, height, width, channels))
    images = ops.cast(images, "float32")
    if crop and padding == "mean":
        inside = _both((y >= 0) & (y < height), (x >= 0) & (x < width))
        images = ops.where(inside, images, fill)
    if jitter:
        images = _jitter(images, draws, jitter)
    if lighting:
        alphas = ops.concatenate(columns[LIGHT:], axis=1)
        light = ops.matmul(lighting * alphas, PRINCIPAL.T)
        images = images + light[:, None, None]
    if cutout:
        rows = _near(_integer(draws["cut_y"], height), cutout, height)
        columns = _near(_integer(draws["cut_x"], width), cutout, width)
        images = ops.where(_both(rows, columns), fill, images)
    return images


def mix(values, draws):
    """Mixes each value with its neighbor's (mixup, Zhang et al. 2017).

    Neighbors are 0 and 1, 2 and 3, and so on, so that they lie on the same
    device however a batch is split. The data come shuffled.

    Args:
        values: Tensor of shape `(batch, ...)`, with an even batch: images, or
            one-hot labels.
        draws: Tensor of shape `(batch, 12)`, from `draw`.

    Returns:
        Tensor of the shape of `values`.
    """
    shape = tuple(values.shape[1:])
    pairs = ops.reshape(values, (-1, 2, *shape))
    partners = ops.reshape(ops.flip(pairs, axis=1), (-1, *shape))
    share = ops.reshape(draws[:, MIX], (-1, *[1] * len(shape)))
    return share * values + (1 - share) * partners


def _jitter(images, draws, size):
    """Blends images with black, their mean gray and their grays.

    Blending is linear, and none of the three changes what the others blend
    with but by their factor: any order gives the same.
    """
    brightness, contrast, saturation = (
        1 + size * (2 * draws[name][:, :, None, None] - 1)
        for name in ("brightness", "contrast", "saturation")
    )
    weighed = images * ops.convert_to_tensor(GRAY)
    gray = ops.sum(weighed, axis=-1, keepdims=True)
    mean = ops.mean(gray, axis=(1, 2), keepdims=True)
    images = saturation * images + (1 - saturation) * gray
    return brightness * (contrast * images + (1 - contrast) * mean)


def _integer(draw, count):
    """From uniform in [0, 1) to an integer in [0, count)."""
    return ops.cast(ops.floor(draw * count), "int32")


def _reflect(index, size):
    """Returns positions outside of [0, size), mirrored at the border pixels."""
    there_and_back = max(2 * (size - 1), 1)
    index = ops.abs(index) % there_and_back
    return ops.where(index >= size, there_and_back - index, index)


def _near(center, side, size):
    """Which of `size` positions lie in the stretch of `side` at `center`."""
    offset = ops.arange(size)[None] - center + side // 2
    return (offset >= 0) & (offset < side)


def _both(rows, columns):
    return (rows[:, :, None] & columns[:, None, :])[..., None]
