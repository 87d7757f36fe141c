"""Random changes to training images, written once for every backend.

The random numbers are part of the data, a row of `draws` for each image. The
changes are made on the device, inside the training step. Therefore the same
seed makes the same changes on each backend, on any number of devices, and after
an interruption.
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

# The weights of red, green and blue in the gray of an image.
GRAY = np.array([0.299, 0.587, 0.114], "float32")
# The eigenvectors of ImageNet's colors in columns, times their eigenvalues.
# They are from fb.resnet.torch, in which pixels are 0 to 1.
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
        A float32 array of shape `(examples, 12)`. Values are uniform in
        [0, 1), except for "mix", the share that an image keeps in a mixture,
        and the last three, which are normal.
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
    """Flips, crops, tints and cuts out each image at random.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`.
        draws: Tensor of shape `(batch, 12)`, from `draw`.
        flip: bool. Mirror half of the images.
        crop: int. Take a random crop of the image, padded by `crop` pixels
            on each side.
        padding: "mean" pads with `fill`, "reflect" mirrors the image at its
            border pixels.
        fill: float, or one per channel.
        jitter: float. Change brightness, contrast and saturation of RGB images
            by a factor between `1 - jitter` and `1 + jitter` each.
        lighting: float. Standard deviation of the light's color along the
            principal components of ImageNet's colors, for RGB images.
        cutout: int. Side of the square filled with `fill`, centered
            anywhere in the image; `0` for none.

    Returns:
        float32 tensor of the shape of `images`.
    """
    columns = ops.split(draws, len(COLUMNS), axis=1)
    draws = dict(zip(COLUMNS, columns, strict=True))
    channels = images.shape[-1]
    if (jitter or lighting) and channels != 3:
        raise ValueError(
            "`jitter` and `lighting` are for RGB images. "
            f"Received: images of {channels} channels"
        )
    fill = ops.convert_to_tensor(fill, "float32")
    if flip or crop:
        fill_border = fill if padding == "mean" else None
        images = _flip_and_crop(images, draws, flip, crop, fill_border)
    images = ops.cast(images, "float32")
    if jitter:
        images = _jitter(images, draws, jitter)
    if lighting:
        alphas = ops.concatenate(columns[LIGHT:], axis=1)
        light = ops.matmul(lighting * alphas, PRINCIPAL.T)
        images = images + light[:, None, None]
    if cutout:
        images = _cut_out(images, draws, cutout, fill)
    return images


def mix(values, draws):
    """Mixes each value with its neighbor's (mixup, Zhang et al. 2017).

    Neighbors are 0 and 1, 2 and 3, and so on, so that they are on the same
    device however a batch is split. The data are shuffled.

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


def _flip_and_crop(images, draws, flip, crop, fill):
    """Mirrors and shifts images by one gather.

    If `fill` is `None`, the border is a reflection.
    """
    _, height, width, channels = images.shape
    y, x = ops.arange(height)[None], ops.arange(width)[None]
    if flip:
        x = ops.where(draws["flip"] < 0.5, width - 1 - x, x)
    if crop:
        y = y + _integer(draws["shift_y"], 2 * crop + 1) - crop
        x = x + _integer(draws["shift_x"], 2 * crop + 1) - crop
    pixels = ops.reshape(images, (-1, height * width, channels))
    from_y, from_x = _reflect(y, height), _reflect(x, width)
    source = from_y[:, :, None] * width + from_x[:, None, :]
    source = ops.reshape(source, (-1, height * width, 1))
    pixels = ops.take_along_axis(pixels, source, axis=1)
    images = ops.reshape(pixels, (-1, height, width, channels))
    if not crop or fill is None:
        return images
    inside = _both((y >= 0) & (y < height), (x >= 0) & (x < width))
    return ops.where(inside, ops.cast(images, "float32"), fill)


def _cut_out(images, draws, side, fill):
    """Fills a square anywhere in each image."""
    _, height, width, _ = images.shape
    rows = _near(_integer(draws["cut_y"], height), side, height)
    columns = _near(_integer(draws["cut_x"], width), side, width)
    return ops.where(_both(rows, columns), fill, images)


def _jitter(images, draws, size):
    """Blends images with black, their mean gray and their grays.

    The order of the three does not matter: blending is linear, and each of them
    scales what the others blend with by its own factor.
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
    """Converts a number in [0, 1) to an integer in [0, count)."""
    return ops.cast(ops.floor(draw * count), "int32")


def _reflect(index, size):
    """Returns positions outside of [0, size), mirrored at the border pixels."""
    there_and_back = max(2 * (size - 1), 1)
    index = ops.abs(index) % there_and_back
    return ops.where(index >= size, there_and_back - index, index)


def _near(center, side, size):
    """Returns which of `size` positions are within `side` around `center`."""
    offset = ops.arange(size)[None] - center + side // 2
    return (offset >= 0) & (offset < side)


def _both(rows, columns):
    return (rows[:, :, None] & columns[:, None, :])[..., None]
