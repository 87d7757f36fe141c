"""Photographs too many or too varied to keep in memory, through tf.data.

They are decoded and cut to one size as they are needed. The order and the
crops are functions of the seed, the epoch and the position, as in `data`.
"""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import augmentation
import data

SHUFFLE = 10_000  # encoded images; about 1.1 GB of ImageNet
ASPECTS = (3 / 4, 4 / 3)
BORDER = 256 / 224  # shorter side before the central crop, to the crop's side


class Stream:
    """A training split as batches, one epoch after another.

    Has `steps` and `epoch()` as `data.Epochs` has.

    Args:
        builder: TFDS builder, prepared.
        recipe: `Recipe`, with `image_size`.
        seed: Integer.
        shard: `(index, count)`. This process reads the part `index` of the
            split. Defaults to `(0, 1)`.
    """

    def __init__(self, builder, recipe, seed, shard=(0, 1)):
        part, parts = shard
        self.builder = builder
        self.recipe = recipe
        self.seed = seed
        self.part = part
        split, _ = train_and_held_out(recipe)
        self.split = tfds.even_splits(split, parts, drop_remainder=True)[part]
        self.batch_size = recipe.batch_size // parts
        self.examples = builder.info.splits[self.split].num_examples
        self.steps = self.examples // self.batch_size
        data.check_batch(self.examples, self.batch_size)

    def epoch(self, epoch, skip=0):
        """Returns the batches of an epoch, as `data.Epochs.epoch` does."""
        rng = np.random.default_rng([self.seed, epoch, self.part])
        order_seed, crop_seed = rng.integers(2**31, size=2)
        draws = augmentation.draw(rng, self.examples, self.recipe.mixup)
        size = self.batch_size
        start = skip * size

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


def in_order(builder, split, size, devices=None, batch_size=100):
    """Returns central crops of a split, in batches, for `evaluate`.

    Args:
        builder: TFDS builder, prepared.
        split: String.
        size: Integer. Side of the crops.
        devices: `distribution.Devices`, or `None` for one. On more than one,
            what a last batch lacks is filled up as in `data.InOrder`.
        batch_size: Integer. About how many over all devices.
    """

    def cut(example):
        image = central_crop(example["image"], size)
        return image, tf.cast(example["label"], tf.int32)

    images = read(builder, split).map(cut, tf.data.AUTOTUNE, deterministic=True)
    if devices is None or devices.count == 1:
        return images.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    part, parts = devices.shard
    batch_size = devices.multiple(batch_size)
    examples = builder.info.splits[split].num_examples
    lacking = -examples % batch_size
    weight = (examples + lacking) / examples  # 1 on average
    real = images.map(lambda image, label: (image, label, weight))
    fill = real.take(1).repeat(lacking)
    fill = fill.map(lambda image, label, weight: (image, label, 0.0))
    full = real.concatenate(fill).batch(batch_size, drop_remainder=True)
    return full.rebatch(batch_size // parts).shard(parts, part)


def train_and_held_out(recipe):
    """The TFDS names of what a recipe trains on and what it holds out."""
    split, count = recipe.train_split, recipe.validation
    if not count:
        return split, None
    return f"{split}[:-{count}]", f"{split}[-{count}:]"


def read(builder, split, seed=None):
    """Returns a split's examples, not decoded, in an order that a seed sets."""
    config = tfds.ReadConfig(shuffle_seed=seed, enable_ordering_guard=False)
    config.options.deterministic = True
    dataset = builder.as_dataset(
        split=split,
        shuffle_files=seed is not None,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=config,
    )
    if seed is None:
        return dataset
    return dataset.shuffle(SHUFFLE, seed=seed)


def random_crop(encoded, size, area, seed):
    """Decodes a random window of an image, and scales it to a square."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        _shape(encoded),
        bounding_boxes=tf.zeros([1, 0, 4]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECTS,
        area_range=area,
        use_image_if_no_bounding_boxes=True,
    )
    return _scaled(_window(encoded, begin[:2], extent[:2]), (size, size))


def central_crop(encoded, size):
    """Scales an image by its shorter side, and cuts out its centre."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    border = tf.round(size * BORDER)
    sides = tf.cast(tf.round(sides * border / tf.reduce_min(sides)), tf.int32)
    image = _scaled(image, sides)
    top = (sides - size) // 2
    image = image[top[0] : top[0] + size, top[1] : top[1] + size]
    return tf.ensure_shape(image, (size, size, 3))


def _shape(encoded):
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded),
        lambda: tf.shape(
            tf.io.decode_image(encoded, channels=3, expand_animations=False)
        ),
    )


def _window(encoded, begin, extent):
    """Decodes a window; of a JPEG, only that window."""

    def part():
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        return tf.slice(
            image, tf.concat([begin, [0]], 0), tf.concat([extent, [3]], 0)
        )

    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.image.decode_and_crop_jpeg(
            encoded, tf.concat([begin, extent], 0), channels=3
        ),
        part,
    )


def _scaled(image, sides):
    image = tf.image.resize(image, sides, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
