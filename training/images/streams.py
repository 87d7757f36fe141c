"""Streams images of many sizes, or too many for memory, with tf.data.

They are decoded and cropped to one size when they are needed. The order and the
crops are functions of the seed, the epoch and the position, as in `batches`.
"""

import io

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import keras_resfam
from training.images import augmentation, batches, reading

SHUFFLE = 10_000  # encoded images; about 1.1 GB of ImageNet
ASPECTS = (3 / 4, 4 / 3)
BORDER = 256 / 224  # shorter side before the central crop, to the crop's side


class Stream:
    """A training split as batches, one epoch after another.

    Has `steps` and `epoch()` as `batches.Epochs` has.

    Args:
        builder: TFDS builder, prepared.
        recipe: `Recipe`, with `image_size`.
        seed: int.
        shard: `(index, count)`. This process reads the part `index` of the
            split. Defaults to `(0, 1)`.
    """

    def __init__(self, builder, recipe, seed, shard=(0, 1)):
        part, parts = shard
        self.builder = builder
        self.recipe = recipe
        self.seed = seed
        self.part = part
        split, _ = reading.split_in_two(recipe.train_split, recipe.validation)
        count_examples(builder, split)  # by the name that the recipe has
        self.split = tfds.even_splits(split, parts, drop_remainder=True)[part]
        self.batch_size = recipe.batch_size // parts
        self.examples = count_examples(builder, self.split)
        self.steps = self.examples // self.batch_size
        batches.check_batch(self.examples, self.batch_size)

    def epoch(self, epoch, skip=0):
        """Returns the batches of an epoch, as `batches.Epochs.epoch` does."""
        rng = np.random.default_rng([self.seed, epoch, self.part])
        order_seed, crop_seed = rng.integers(2**31, size=2)
        draws = augmentation.draw(rng, self.examples, self.recipe.mixup)
        size = self.batch_size
        start = skip * size
        # TensorFlow mixes the global seed into every order. Other code of the
        # process may have set it.
        tf.random.set_seed(self.seed)

        def cut(position, example):
            image = random_crop(
                example["image"],
                self.recipe.image_size,
                self.recipe.crop_area,
                seed=tf.stack([tf.cast(crop_seed, tf.int64), position]),
            )
            return image, tf.cast(example["label"], tf.int32)

        examples = (
            read(self.builder, self.split, int(order_seed))
            .enumerate()
            .skip(start)
            .map(cut, tf.data.AUTOTUNE, deterministic=True)
        )
        chances = tf.data.Dataset.from_tensor_slices(draws[start:])
        return (
            tf.data.Dataset.zip(examples, chances)
            .map(lambda example, draw: ((example[0], draw), example[1]))
            .batch(size, drop_remainder=True)
            .prefetch(tf.data.AUTOTUNE)
        )


def count_examples(builder, split):
    """Returns the number of images in a split, after checking its files.

    Raises:
        ValueError: If the split does not exist or is empty, if one of its
            files is missing, or if images are stored as arrays.
    """
    with reading.naming_split(builder.name, split):
        info = builder.info.splits[split]
    reading.check_not_empty(builder.name, split, info.num_examples)
    if not isinstance(builder.info.features["image"], tfds.features.Image):
        raise ValueError(
            f"The images of {builder.name} should be encoded, as JPEG or PNG, "
            "to be cut to a size; others are trained on with "
            "`--set image_size=None`. Received: image_size with a "
            f"{type(builder.info.features['image']).__name__}"
        )
    # A missing file would otherwise be noticed in the middle of an epoch.
    for file in info.filepaths:
        if not file.exists():
            raise ValueError(
                f"{builder.name} should have all files of the split {split}. "
                f"Received: none at {file}"
            )
    return info.num_examples


def in_order(
    builder, split, size, devices=None, batch_size=100, transform=None
):
    """Returns central crops of a split, in batches, for `evaluate`.

    Args:
        builder: TFDS builder, prepared.
        split: str.
        size: int. Side of the crops.
        devices: `distribution.Devices`, or `None` for one. With several, the
            last batch is filled as in `batches.InOrder`.
        batch_size: int. The approximate size over all devices.
        transform: dict. Other arguments of `keras_resfam.load_images`, which
            crops the images. Defaults to `None`: TensorFlow crops them, as in
            training.
    """

    def pillow_crop(encoded):
        image = keras_resfam.load_images(
            Image.open(io.BytesIO(encoded)), size, **transform
        )
        return image[0]

    def cut(example, *weight):
        if transform:
            image = tf.numpy_function(pillow_crop, [example["image"]], tf.uint8)
            image = tf.ensure_shape(image, (size, size, 3))
        else:
            image = central_crop(example["image"], size)
        return image, tf.cast(example["label"], tf.int32), *weight

    count = count_examples(builder, split)
    examples = read(builder, split)
    if devices is not None and devices.count > 1:
        part, parts = devices.shard
        whole = devices.multiple(batch_size)
        lacking = -count % whole
        weight = (count + lacking) / count  # 1 on average
        fill = examples.take(1).repeat(lacking).map(lambda x: (x, 0.0))
        real = examples.map(lambda x: (x, weight))
        # Alternating, as in `batches.InOrder`. Each process decodes its own.
        examples = real.concatenate(fill).shard(parts, part)
        batch_size = whole // parts
    return (
        examples.map(cut, tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def read(builder, split, seed=None):
    """Returns the encoded examples of a split, in an order that a seed sets.

    The order is the same in each iteration. With JAX and torch, Keras starts an
    additional one to look at the first batch.
    """
    config = tfds.ReadConfig(
        shuffle_seed=seed,
        shuffle_reshuffle_each_iteration=False,
        enable_ordering_guard=False,
    )
    config.options.deterministic = True
    dataset = builder.as_dataset(
        split=split,
        shuffle_files=seed is not None,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=config,
    )
    if seed is None:
        return dataset
    return dataset.shuffle(SHUFFLE, seed=seed, reshuffle_each_iteration=False)


def random_crop(encoded, size, area, seed):
    """Decodes a random crop of an image, and scales it to a square."""

    def window(shape):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            bounding_boxes=tf.zeros([1, 0, 4]),
            seed=seed,
            min_object_covered=0.0,
            aspect_ratio_range=ASPECTS,
            area_range=area,
            use_image_if_no_bounding_boxes=True,
        )
        return begin[:2], extent[:2]

    def jpeg():
        place = tf.concat(window(tf.io.extract_jpeg_shape(encoded)), 0)
        return tf.image.decode_and_crop_jpeg(encoded, place, channels=3)

    def other():
        image = _decoded(encoded)
        begin, extent = window(tf.shape(image))
        end = begin + extent
        return image[begin[0] : end[0], begin[1] : end[1]]

    # Only the window of a JPEG is decoded.
    image = tf.cond(tf.io.is_jpeg(encoded), jpeg, other)
    return _scaled(image, (size, size))


def central_crop(encoded, size):
    """Scales an image so that its shorter side fits, and crops its center."""
    image = _decoded(encoded)
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    border = tf.round(size * BORDER)
    sides = tf.cast(tf.round(sides * border / tf.reduce_min(sides)), tf.int32)
    image = _scaled(image, sides)
    top = (sides - size) // 2
    image = image[top[0] : top[0] + size, top[1] : top[1] + size]
    return tf.ensure_shape(image, (size, size, 3))


def _decoded(encoded):
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    return image


def _scaled(image, sides):
    image = tf.image.resize(image, sides, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
