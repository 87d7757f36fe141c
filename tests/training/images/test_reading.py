"""Reading, ordering and batching."""

import itertools
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_resfam.datasets import DATASETS
from tiny_tfds import write_images
from training.images import reading

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


def test_digits_are_scikit_learns_in_two_parts():
    train, train_labels = reading.load("digits", "train")
    test, test_labels = reading.load("digits", "test")
    assert train.shape == (1437, 8, 8, 1)
    assert test.shape == (360, 8, 8, 1)
    assert train.dtype == np.uint8
    assert train.max() == 255
    source = load_digits()
    both = np.concatenate([train, test])[..., 0]
    expected = np.round(source.images * (255 / 16)).astype("uint8")

    def sorted_rows(images, labels):
        rows = np.c_[images.reshape(len(images), -1), labels]
        return rows[np.lexsort(rows.T)]

    np.testing.assert_array_equal(
        sorted_rows(both, np.concatenate([train_labels, test_labels])),
        sorted_rows(expected, source.target),
    )


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn_cropped"])
def test_moments_are_those_of_the_training_images(name):
    import tensorflow_datasets as tfds

    if not tfds.builder(name).is_prepared():
        pytest.skip("not on this machine, where TFDS looks (TFDS_DATA_DIR)")
    images, _ = reading.load(name, "train")
    pixels = images.reshape(-1, 3)
    record = DATASETS[name]
    np.testing.assert_allclose(pixels.mean(0), record.mean, atol=1e-3)
    np.testing.assert_allclose(pixels.std(0), record.std, atol=1e-3)


def test_npz_joins_splits(tmp_path):
    images, labels = arrays()
    path = tmp_path / "pictures.npz"
    np.savez(
        path,
        x_train=images[:8],
        y_train=labels[:8, None],
        x_extra=images[8:],
        y_extra=labels[8:],
    )
    for data_dir in (path, tmp_path):
        loaded = reading.load("pictures", "train+extra", data_dir)
        np.testing.assert_array_equal(loaded[0], images)
        np.testing.assert_array_equal(loaded[1], labels)
        assert loaded[1].dtype == np.int32
    with pytest.raises(ValueError, match="x_test.*Received: split=test"):
        reading.load("pictures", "test", path)


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train[:5]", slice(5)),
        ("train[-3:]", slice(5, 8)),
        ("train[2:-3]+extra[:4]", [2, 3, 4, 8, 9, 10, 11]),
        ("train+extra[:-2]", slice(18)),
        ("extra[-2:]", slice(18, 20)),
    ],
)
def test_slices_of_arrays(tmp_path, split, rows):
    images, labels = arrays()
    path = tmp_path / "pictures.npz"
    parts = {"train": slice(8), "extra": slice(8, 20)}
    np.savez(
        path,
        **{f"x_{name}": images[part] for name, part in parts.items()},
        **{f"y_{name}": labels[part] for name, part in parts.items()},
    )
    loaded = reading.load("pictures", split, path)
    np.testing.assert_array_equal(loaded[0], images[rows])
    np.testing.assert_array_equal(loaded[1], labels[rows])


@pytest.mark.parametrize("split", ["", "train[", "train[5%:]", "train[0]"])
def test_what_is_no_slice_is_refused(split):
    with pytest.raises(ValueError, match=r"such as train\[-500:\]. Received"):
        reading.load("digits", split)


def test_npz_of_another_shape_than_the_data_sets_is_refused(tmp_path):
    images, labels = arrays()
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels)
    with pytest.raises(ValueError, match=r"cifar10.*\(32, 32, 3\).*\(4, 4, 3"):
        reading.load("cifar10", "train", tmp_path / "mine.npz")


def test_npz_of_floats_is_refused(tmp_path):
    path = tmp_path / "scaled.npz"
    np.savez(path, x_train=np.zeros((2, 4, 4, 3)), y_train=[0, 1])
    with pytest.raises(ValueError, match="should be uint8"):
        reading.load("cifar10", "train", path)
    with pytest.raises(ValueError, match="data_dir="):
        reading.load("cifar10", "train", tmp_path / "absent.npz")


def no_npz(kind, path):
    if kind == "one array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
        return
    images = np.zeros((2, 4, 4, 3), "uint8")
    np.savez(path, x_train=images, y_train=[0, 1])
    contents = bytearray(path.read_bytes())
    if kind == "cut":
        del contents[-30:]
    elif kind == "empty":
        contents.clear()
    else:
        contents[200] ^= 1  # of an image
    path.write_bytes(contents)


@pytest.mark.parametrize("kind", ["cut", "empty", "one array", "one bit"])
def test_a_file_of_arrays_that_cannot_be_read(tmp_path, kind):
    path = tmp_path / "mine.npz"
    no_npz(kind, path)
    with pytest.raises(ValueError, match="can be read. Received: .*mine.npz"):
        reading.load("cifar10", "train", path)


def test_images_are_held_out_of_a_whole_split():
    assert reading.split_in_two("train+extra", 5) == (
        "train+extra[:-5]",
        "extra[-5:]",
    )
    with pytest.raises(ValueError, match=r"=train\[:10\], validation=4"):
        reading.split_in_two("train[:10]", 4)


def test_a_checksum_is_of_the_examples_in_any_order():
    images, labels = arrays(12)
    order = RNG.permutation(12)
    known = reading.checksum(images, labels)
    assert reading.checksum(images[order], labels[order]) == known
    assert reading.checksum(images, labels[order]) != known
    images[3, 2, 1, 0] ^= 1
    assert reading.checksum(images, labels) != known


def test_arrays_may_lie_in_any_order(tmp_path):
    images, labels = arrays(12)
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=np.asfortranarray(images), y_train=labels)
    loaded, _ = reading.load("mine", "train", path)
    np.testing.assert_array_equal(loaded, images)
    assert reading.checksum(loaded, labels) == reading.checksum(images, labels)


def test_labels_that_do_not_fit_are_refused(tmp_path):
    images, labels = arrays(12)
    for wrong in (labels + 0.7, np.eye(12)[labels], labels.astype(str)):
        np.savez(tmp_path / "wrong.npz", x_train=images, y_train=wrong)
        with pytest.raises(ValueError, match="integers, one for .* y_train"):
            reading.load("cifar10", "train", tmp_path / "wrong.npz")
    np.savez(tmp_path / "less.npz", x_train=images, y_train=labels[:11])
    with pytest.raises(ValueError, match="12 in x_train, 11 in y_train"):
        reading.load("cifar10", "train", tmp_path / "less.npz")
    assert reading.classes_of("cifar10", labels[:10]) == 10
    with pytest.raises(ValueError, match="0 to 9.*labels from 0 to 11"):
        reading.classes_of("cifar10", labels)
    with pytest.raises(ValueError, match="labels from -1 to 3"):
        reading.classes_of("cifar10", np.array([3, -1]))


def test_tfds_arrays_are_what_its_files_hold(tmp_path):
    images, labels = arrays(12)
    write_images(tmp_path, "tiny_pictures", images, labels % 3, classes=3)
    loaded = reading.load("tiny_pictures", "train", tmp_path)
    np.testing.assert_array_equal(loaded[0], images)
    np.testing.assert_array_equal(loaded[1], labels % 3)
    with pytest.raises(ValueError, match="tiny_pictures.*split=extra"):
        reading.load("tiny_pictures", "extra", tmp_path)
    # The last class has no image.
    write_images(tmp_path, "more_classes", images, labels % 3, classes=4)
    assert reading.classes_of("more_classes", labels % 3, tmp_path) == 4
    with pytest.raises(ValueError, match=r"split=test\[12:\].*no data"):
        reading.load("tiny_pictures", "test[12:]", tmp_path)


def test_cifar10_through_mocked_tfds():
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=7):
        images, labels = reading.load("cifar10", "train")
    assert images.shape == (7, 32, 32, 3)
    assert images.dtype == np.uint8
    assert labels.shape == (7,)


def test_data_that_cannot_be_prepared_end_in_a_line(tmp_path):
    with pytest.raises(ValueError, match="(?s)prepare imagenet2012: .*Rec"):
        reading.tfds_builder("imagenet2012", tmp_path)
    with pytest.raises(ValueError, match="smallnorb has .*label_category"):
        reading.tfds_builder("smallnorb", tmp_path)


def test_a_failed_download_ends_in_a_line(tmp_path, monkeypatch):
    from tensorflow_datasets.core import download

    def fail(*args, **kwargs):
        raise download.DownloadError("HTTP code 503")

    manager = download.DownloadManager
    monkeypatch.setattr(manager, "download_and_extract", fail)
    with pytest.raises(ValueError, match="prepare cifar10: HTTP code 503"):
        reading.tfds_builder("cifar10", tmp_path)


def test_unknown_tfds_name():
    with pytest.raises(ValueError, match="Received: dataset=no_such_set"):
        reading.load("no_such_set", "train")


def test_images_of_many_sizes_need_a_size(tmp_path):
    images = [
        RNG.integers(0, 256, (4 + i, 5, 3), dtype="uint8") for i in range(3)
    ]
    write_images(
        tmp_path, "tiny_pictures", images, [0, 1, 2], classes=3, sized=False
    )
    with pytest.raises(ValueError, match="image_size=224"):
        reading.load("tiny_pictures", "train", tmp_path)


WITHOUT_TENSORFLOW = """
import sys
for name in ("tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None
from training.images import reading
print(reading.load("digits", "test")[0].shape)
try:
    reading.load("cifar10", "test")
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="of the others"
)
def test_digits_need_no_tensorflow(pytestconfig):
    output = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "(360, 8, 8, 1)" in output
    assert "tensorflow is not installed" in output


def test_epochs_that_are_over_are_forgotten():
    epochs = reading.Epochs(*arrays(12), batch_size=4, seed=0)
    batches_of(epochs.epoch(0))
    _, draws = epochs.order_and_draws(0)
    gone = weakref.ref(draws)
    del draws
    batches_of(epochs.epoch(1))
    assert gone() is None


def test_an_epoch_is_a_permutation_set_by_seed_and_epoch():
    images, labels = arrays(22)

    def order(seed, epoch, skip=0):
        epochs = reading.Epochs(images, labels, 4, seed)
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
    epochs = reading.Epochs(images, labels, 4, 0, mixup=0.3)
    whole = batches_of(epochs.epoch(3))
    rest = batches_of(epochs.epoch(3, skip=1))
    for (a, _), (b, _) in zip(whole[1:], rest, strict=True):
        np.testing.assert_array_equal(a[1], b[1])


def test_shards_make_up_the_batch():
    images, labels = arrays(16)
    whole = batches_of(reading.Epochs(images, labels, 8, 0).epoch(0))
    parts = [
        batches_of(reading.Epochs(images, labels, 8, 0, shard=(i, 2)).epoch(0))
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
        reading.Epochs(*arrays(20), 21, 0)


@pytest.mark.parametrize("full", [False, True])
def test_in_order_gives_each_example_once(full):
    images, labels = arrays(10)
    parts = [
        reading.InOrder(images, labels, 4, shard=(i, 2), full=full)
        for i in range(2)
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
