"""Batches of images that are in memory.

The order of an epoch, and the random numbers of its augmentation, are functions
of the seed and the epoch only. A resumed run therefore has the same batches as
an uninterrupted one.
"""

import keras
import numpy as np

from training.images import augmentation


def check_batch(examples, batch_size):
    """Checks that a batch has no more examples than there are."""
    if examples < batch_size:
        raise ValueError(
            f"`batch_size` should be at most the {examples} examples there "
            f"are. Received: batch_size={batch_size}"
        )


class Epochs:
    """The training set as batches, one epoch after another.

    Args:
        images: uint8 array of shape `(examples, height, width, channels)`.
        labels: int32 array of shape `(examples,)`.
        batch_size: int. Over all processes. A last partial batch is dropped.
        seed: int.
        mixup: float. See `augmentation.draw`. Defaults to `0.0`.
        shard: `(index, count)`. This process takes the part `index` of each
            batch. Defaults to `(0, 1)`.

    Raises:
        ValueError: If there are fewer examples than a batch takes.
    """

    def __init__(
        self, images, labels, batch_size, seed, mixup=0.0, shard=(0, 1)
    ):
        check_batch(len(images), batch_size)
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.seed = seed
        self.mixup = mixup
        self.shard = shard
        self.steps = len(images) // batch_size
        self.drawn = None, None

    def epoch(self, epoch, skip=0):
        """Returns the batches of an epoch, for `fit`.

        Args:
            epoch: int, from 0.
            skip: int. Batches to leave out at the start.
        """
        batches = _Batches(self, epoch, skip)
        if keras.backend.backend() == "tensorflow":
            return as_tf_data(batches)
        return batches

    def take(self, epoch, rows):
        """Returns the images at some positions in the order of an epoch.

        Args:
            epoch: int.
            rows: slice of the positions.
        """
        order, _ = self.order_and_draws(epoch)
        return self.images[order[rows]]

    def order_and_draws(self, epoch):
        """Returns the order of an epoch's examples, and their random numbers.

        Only those of one epoch are kept. The batches, which TensorFlow never
        releases, do not have copies.
        """
        known, drawn = self.drawn
        if known != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            order = rng.permutation(len(self.images))
            drawn = order, augmentation.draw(rng, len(order), self.mixup)
            self.drawn = epoch, drawn
        return drawn


class _Batches(keras.utils.PyDataset):
    """One epoch of `Epochs`."""

    def __init__(self, epochs, epoch, skip):
        super().__init__()
        self.epochs = epochs
        self.epoch = epoch
        self.skip = skip

    def __len__(self):
        return self.epochs.steps - self.skip

    def __getitem__(self, index):
        size = self.epochs.batch_size
        part, parts = self.epochs.shard
        start = (index + self.skip) * size + part * size // parts
        rows = slice(start, start + size // parts)
        order, draws = self.epochs.order_and_draws(self.epoch)
        inputs = self.epochs.take(self.epoch, rows), draws[rows]
        return inputs, self.epochs.labels[order[rows]]


def as_tf_data(batches):
    """Converts a `PyDataset` to a `tf.data.Dataset`, with static shapes.

    Args:
        batches: `keras.utils.PyDataset` with batches of one shape.
    """
    import tensorflow as tf

    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec(array.shape, array.dtype), batches[0]
    )
    dataset = tf.data.Dataset.from_generator(
        lambda: map(batches.__getitem__, range(len(batches))),
        output_signature=signature,
    )
    counted = tf.data.experimental.assert_cardinality(len(batches))
    # There is nothing to tune, and the end of an epoch would wait for the
    # tuner, which sleeps for as long as it has run.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.apply(counted).prefetch(2).with_options(options)


class InOrder(keras.utils.PyDataset):
    """Batches in the order of the arrays, for `evaluate` and `predict`.

    Args:
        images: uint8 array of shape `(examples, height, width, channels)`.
        labels: int32 array of shape `(examples,)`.
        batch_size: int. Over all processes. Defaults to `500`.
        shard: `(index, count)`. This process takes the part `index` of each
            batch. Defaults to `(0, 1)`.
        full: bool. Whether to fill the last batch with examples of weight
            zero, for devices that share batches evenly. Batches are then
            `(images, labels, weights)`. The mean weight is 1, so that the mean
            over all examples is right however they are shared. Defaults to
            `False`.
    """

    def __init__(
        self, images, labels, batch_size=500, shard=(0, 1), full=False
    ):
        super().__init__()
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.shard = shard
        self.full = full

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        part, parts = self.shard
        size = self.batch_size // parts
        # Alternating, so that all processes have as many real examples.
        rows = start + part + parts * np.arange(size)
        real = rows < len(self.labels)
        if not self.full:
            return self.images[rows[real]], self.labels[rows[real]]
        rows = np.where(real, rows, 0)
        share = len(self.labels) / (len(self) * self.batch_size)
        weights = np.where(real, 1 / share, 0).astype("float32")
        return self.images[rows], self.labels[rows], weights
