"""Decoding and cutting photographs, on a real TFDS data_dir."""

import json
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resfam
from keras_resfam.datasets import DATASETS
from tiny_tfds import write_images
from training import recipes
from training.images import evaluation, reading, streams
from training.run import loop, session
from training.run.distribution import Devices
from training.run.network import color_of_zero

RECIPE = recipes.find("fine_tune").replace(
    dataset="tiny_photographs",
    image_size=8,
    batch_size=4,
    crop_area=(0.3, 1.0),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (12 + i, 16 - i % 3, 3), dtype="uint8")
        for i in range(18)
    ]
    write_images(
        folder, "tiny_photographs", images, range(18), classes=18, sized=False
    )
    return folder


@pytest.fixture(scope="module")
def builder(folder):
    return reading.tfds_builder("tiny_photographs", folder)


def batches(stream, epoch, skip=0):
    return list(stream.epoch(epoch, skip).as_numpy_iterator())


def labels_of(batches):
    return np.concatenate([answers for _, answers in batches])


def test_batches_are_squares_with_their_chance(builder):
    stream = streams.Stream(builder, RECIPE, seed=0)
    assert stream.steps == 4
    got = batches(stream, 0)
    assert len(got) == 4
    for (images, draws), answers in got:
        assert images.shape == (4, 8, 8, 3)
        assert images.dtype == np.uint8
        assert draws.shape == (4, 12)
        assert answers.dtype == np.int32
    assert len(set(labels_of(got))) == 16


def test_skip_goes_on_where_the_epoch_was(builder):
    stream = streams.Stream(builder, RECIPE, seed=0)
    whole, rest = batches(stream, 2), batches(stream, 2, skip=3)
    assert len(rest) == 1
    keras.tree.map_structure(np.testing.assert_array_equal, whole[3], rest[0])


def test_epoch_and_seed_set_the_order_and_the_crops(builder):
    stream = streams.Stream(builder, RECIPE, seed=0)
    first = batches(stream, 0)
    tf.random.set_seed(5)  # as another part of the process may
    again, other = (batches(stream, epoch) for epoch in (0, 1))
    keras.tree.map_structure(np.testing.assert_array_equal, first, again)
    assert (labels_of(first) != labels_of(other)).any()
    seeded = batches(streams.Stream(builder, RECIPE, seed=1), 0)
    assert (labels_of(first) != labels_of(seeded)).any()

    def crop_of(label, batches):
        for (images, _), answers in batches:
            if label in answers:
                return images[list(answers).index(label)]

    for others in (other, seeded):
        label = next(iter(set(labels_of(first)) & set(labels_of(others))))
        assert (crop_of(label, first) != crop_of(label, others)).any()


def test_shards_are_apart(builder):
    parts = [
        streams.Stream(builder, RECIPE, seed=0, shard=(i, 2)) for i in range(2)
    ]
    seen = [set(labels_of(batches(part, 0))) for part in parts]
    assert [part.batch_size for part in parts] == [2, 2]
    assert not seen[0] & seen[1]


@pytest.mark.parametrize(
    "split, reason",
    [
        ("extra", "should have the split.*split=extra: .*train"),
        ("train[-5", r"should have the split.*split=train\[-5: "),
        ("train[:0]", r"should have images.*Received: train\[:0\]"),
        ("train[90%:10%]", r"should have images.*Received: train\[90%:10%\]"),
    ],
)
def test_splits_that_are_none_end_in_a_line(builder, split, reason):
    with pytest.raises(ValueError, match=reason):
        streams.Stream(builder, RECIPE.replace(train_split=split), seed=0)
    with pytest.raises(ValueError, match=reason):
        streams.in_order(builder, split, 8)


def test_files_that_are_not_there_or_damaged_are_named(tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (40, 12, 12, 3), dtype="uint8")
    write_images(tmp_path, "broken", images, range(40), 40)
    builder = reading.tfds_builder("broken", tmp_path)
    (path,) = tmp_path.glob("**/*-train.tfrecord-*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    recipe = {"image_size": 8}
    batches, _ = evaluation.load_data("broken", "train", recipe, tmp_path)
    with pytest.raises(OSError, match="of the split train. Received: corrupt"):
        list(batches)
    path.unlink()
    with pytest.raises(ValueError, match="split train.*none at .*tfrecord"):
        streams.in_order(builder, "train", 8)
    with pytest.raises(ValueError, match="split train.*none at .*tfrecord"):
        streams.Stream(builder, RECIPE, seed=0)


def test_a_second_look_sees_the_same(builder):
    """Keras takes one, with JAX and torch."""
    epoch = streams.Stream(builder, RECIPE, seed=0).epoch(1)
    looks = [list(epoch.as_numpy_iterator()) for _ in range(2)]
    keras.tree.map_structure(np.testing.assert_array_equal, *looks)


def test_a_run_does_not_go_on_with_other_photographs(folder, tmp_path):
    recipe = RECIPE.replace(
        builder="ResNet", arguments={"depth": 8}, weights=None
    )
    run = tmp_path / "run"
    session.prepare(recipe, run, data_dir=folder)
    session.prepare(recipe, run, data_dir=folder)
    images = [np.zeros((12, 16, 3), "uint8")] * 18
    write_images(
        tmp_path, "tiny_photographs", images, range(18), 18, sized=False
    )
    with pytest.raises(ValueError, match="evaluation_data=.*Received: eval"):
        session.prepare(recipe, run, data_dir=tmp_path)


def test_fine_tuning_that_was_cut_ends_as_if_it_were_not(folder, tmp_path):
    """From a network of other images, on photographs of a TFDS data_dir."""
    start = keras_resfam.ResNet(
        depth=8, classes=5, include_preprocessing="cifar100"
    )
    start.save_weights(tmp_path / "model.weights.h5")
    description = {
        "builder": "ResNet",
        "arguments": {"depth": 8},
        "dataset": "cifar100",
        "classes": 5,
        "input_shape": [32, 32, 3],
    }
    (tmp_path / "recipe.json").write_text(json.dumps(description))
    recipe = RECIPE.replace(
        builder="ResNet",
        arguments={"depth": 8},
        weights=str(tmp_path / "model.weights.h5"),
        epochs=2,
    )

    def prepared(name):
        run = session.prepare(recipe, tmp_path / name, data_dir=folder)
        run.restore()
        return run

    whole = prepared("whole")
    moments = DATASETS["cifar100"].mean
    np.testing.assert_allclose(
        color_of_zero(whole.trainer.network), moments, rtol=1e-6
    )
    assert whole.trainer.network.output_shape == (None, 18)
    whole.train(verbose=0)

    cut = prepared("cut")
    cut.signal = signal.SIGTERM
    cut.asked_to_stop = lambda: cut.step == 6
    with pytest.raises(loop.Interrupted):
        cut.train(verbose=0)
    rest = prepared("cut")
    assert (rest.epoch, rest.batch) == (1, 2)
    rest.train(verbose=0)
    for ours, theirs in zip(
        rest.trainer.network.get_weights(),
        whole.trainer.network.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_held_out_of_joined_splits_is_not_trained_on(builder):
    recipe = RECIPE.replace(train_split="train+test", validation=4)
    split, held_out = reading.split_in_two(
        recipe.train_split, recipe.validation
    )
    assert (split, held_out) == ("train+test[:-4]", "test[-4:]")
    counts = [builder.info.splits[s].num_examples for s in (split, held_out)]
    assert counts == [18 + 14, 4]


def test_held_out_is_not_trained_on(builder):
    recipe = RECIPE.replace(validation=6)
    stream = streams.Stream(builder, recipe, seed=0)
    _, held_out = reading.split_in_two(recipe.train_split, recipe.validation)
    kept = streams.in_order(builder, held_out, 8)
    kept = {int(y) for _, ys in kept.as_numpy_iterator() for y in ys}
    assert len(kept) == 6
    assert not kept & set(labels_of(batches(stream, 0)))


def crops(builder, devices=None):
    """Labels of the central crops of a split, and their weights, if any."""
    batches = streams.in_order(builder, "test", 8, devices, batch_size=5)
    _, *columns = zip(*batches.as_numpy_iterator(), strict=True)
    return [np.concatenate(column) for column in columns]


def test_central_crops_come_in_order_and_once(builder):
    (labels,) = crops(builder)
    np.testing.assert_array_equal(labels, np.arange(18))


def test_an_evaluation_cuts_as_the_weights_ask(builder, folder):
    transform = {"crop": 1.0, "interpolation": "bicubic"}
    description = {"image_size": 8, "transform": transform}
    batches, _ = evaluation.load_data(
        "tiny_photographs", "test", description, folder
    )
    images, labels = evaluation.first_examples(batches)
    np.testing.assert_array_equal(labels, np.arange(18))
    whole = builder.as_dataset(split="test").as_numpy_iterator()
    whole = [example["image"] for example in whole]
    expected = keras_resfam.load_images(whole, 8, **transform)
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("processes", [1, 2])
def test_devices_share_full_batches_of_central_crops(builder, processes):
    parts = [
        crops(builder, Devices(count=4, processes=processes, index=index))
        for index in range(processes)
    ]
    labels, weights = map(np.concatenate, zip(*parts, strict=True))
    assert len(labels) == 24
    assert weights.mean() == pytest.approx(1)
    assert sorted(labels[weights > 0]) == list(range(18))
    # None of the processes is left with what only fills up.
    assert min((w > 0).sum() for _, w in parts) == 18 // processes


def test_central_crop_is_of_the_center():
    ramp = np.tile(
        np.arange(0, 240, 4, dtype="uint8")[:, None, None], (1, 40, 3)
    )
    encoded = tf.io.encode_png(ramp)
    crop = streams.central_crop(encoded, 35).numpy()
    # 60 x 40 is kept at its scale, 40 = 35 * 256 / 224, and cut to 35 x 35.
    np.testing.assert_array_equal(crop[:, 0, 0], np.arange(0, 240, 4)[12:47])


def test_random_crop_takes_the_share_asked_for():
    # Of a ramp, a window's span shows its height: never all of it.
    ramp = np.tile(np.arange(200, dtype="uint8")[:, None, None], (1, 200, 3))
    for encode in (tf.io.encode_png, tf.io.encode_jpeg):
        spans, tops = [], []
        for i in range(40):
            crop = streams.random_crop(
                encode(ramp), 32, (0.2, 0.5), tf.constant([0, i], tf.int64)
            ).numpy()
            spans.append(int(crop[-1, 0, 0]) - int(crop[0, 0, 0]))
            tops.append(int(crop[0, 0, 0]))
        # Heights of 200 * sqrt(share * 3/4 or 4/3), less a pixel's step.
        assert 70 < min(spans) < max(spans) < 175
        assert max(tops) - min(tops) > 40
