"""Batches of images in memory."""

import itertools
import weakref

import keras
import numpy as np
import pytest

from training.images.batches import Epochs, InOrder

RNG = np.random.default_rng(0)


def arrays(examples=20, size=4):
    images = RNG.integers(0, 256, (examples, size, size, 3), dtype="uint8")
    images[:, 0, 0, 0] = np.arange(examples)
    return images, np.arange(examples, dtype="int32")


def batches_of(dataset):
    """Batches as NumPy, from a PyDataset or from tf.data."""
    if isinstance(dataset, keras.utils.PyDataset):
        return [dataset[i] for i in range(len(dataset))]
    return list(dataset.as_numpy_iterator())


def test_epochs_that_are_over_are_forgotten():
    epochs = Epochs(*arrays(12), batch_size=4, seed=0)
    batches_of(epochs.epoch(0))
    _, draws = epochs.order_and_draws(0)
    gone = weakref.ref(draws)
    del draws
    batches_of(epochs.epoch(1))
    assert gone() is None


def test_an_epoch_is_a_permutation_set_by_seed_and_epoch():
    images, labels = arrays(22)

    def order(seed, epoch, skip=0):
        epochs = Epochs(images, labels, 4, seed)
        assert epochs.steps == 5
        batches = batches_of(epochs.epoch(epoch, skip))
        assert len(batches) == 5 - skip
        for (pixels, draws), answers in batches:
            assert pixels.shape == (4, 4, 4, 3)
            assert draws.shape == (4, 12)
            np.testing.assert_array_equal(pixels[:, 0, 0, 0], answers)
        return np.concatenate([answers for _, answers in batches])

    first = order(0, 0)
    assert len(set(first)) == 20
    np.testing.assert_array_equal(first, order(0, 0))
    np.testing.assert_array_equal(first[8:], order(0, 0, skip=2))
    assert (first != order(0, 1)).any()
    assert (first != order(1, 0)).any()


def test_chance_goes_with_the_example():
    images, labels = arrays(16)
    epochs = Epochs(images, labels, 4, 0, mixup=0.3)
    whole = batches_of(epochs.epoch(3))
    rest = batches_of(epochs.epoch(3, skip=1))
    for (a, _), (b, _) in zip(whole[1:], rest, strict=True):
        np.testing.assert_array_equal(a[1], b[1])


def test_shards_make_up_the_batch():
    images, labels = arrays(16)
    whole = batches_of(Epochs(images, labels, 8, 0).epoch(0))
    parts = [
        batches_of(Epochs(images, labels, 8, 0, shard=(i, 2)).epoch(0))
        for i in range(2)
    ]
    for (inputs, answers), *halves in zip(whole, *parts, strict=True):
        for k in range(2):
            joined = np.concatenate([half[0][k] for half in halves])
            np.testing.assert_array_equal(inputs[k], joined)
        joined = np.concatenate([half[1] for half in halves])
        np.testing.assert_array_equal(answers, joined)


def test_batch_larger_than_the_data():
    with pytest.raises(ValueError, match="at most the 20 .*batch_size=21"):
        Epochs(*arrays(20), 21, 0)


@pytest.mark.parametrize("full", [False, True])
def test_in_order_gives_each_example_once(full):
    images, labels = arrays(10)
    parts = [
        InOrder(images, labels, 4, shard=(i, 2), full=full) for i in range(2)
    ]
    seen, total = [], 0.0
    for batch in itertools.chain.from_iterable(map(batches_of, parts)):
        weights = batch[2] if full else np.ones(len(batch[1]))
        if full:
            assert len(batch[1]) == 2
        total += weights.mean() * len(batch[1])
        seen += [y for y, w in zip(batch[1], weights, strict=True) if w]
    assert sorted(seen) == list(range(10))
    # 1 on average, also where two of twelve places are filled up.
    np.testing.assert_allclose(total, 12 if full else 10, rtol=1e-6)
