"""Reading, ordering and batching."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_resfam.datasets import DATASETS
from tiny_tfds import write_images
from training import recipes
from training.images import reading
from training.run import network

RNG = np.random.default_rng(0)


def arrays(examples=20, size=4):
    images = RNG.integers(0, 256, (examples, size, size, 3), dtype="uint8")
    images[:, 0, 0, 0] = np.arange(examples)
    return images, np.arange(examples, dtype="int32")


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


def kinds():
    """What features are refused, and what is said of them."""
    from tensorflow_datasets import features

    def png(dtype):
        return features.Image(
            shape=(8, 8, 1), dtype=dtype, encoding_format="png"
        )

    return {
        "floats in 0..1": (
            {"image": features.Tensor(shape=(8, 8, 1), dtype=np.float32)},
            lambda x: (x / 255).astype("float32"),
            lambda y: y,
            "The images of kind should be uint8.*Received: images of float32",
        ),
        "uint16": (
            {"image": png(np.uint16)},
            lambda x: x.astype("uint16") * 257,
            lambda y: y,
            "The images of kind should be uint8.*Received: images of uint16",
        ),
        "numbers": (
            {"label": features.Scalar(np.int64)},
            lambda x: x,
            lambda y: y,
            "The labels of kind should be a ClassLabel.*a Scalar",
        ),
        "texts": (
            {"label": features.Text()},
            lambda x: x,
            lambda y: f"class {y}",
            "The labels of kind should be a ClassLabel.*a Text",
        ),
    }


@pytest.mark.parametrize(
    "kind", ["floats in 0..1", "uint16", "numbers", "texts"]
)
def test_tfds_of_another_kind_is_refused(kind, tmp_path):
    given, change, rename, message = kinds()[kind]
    x = change(RNG.integers(0, 256, (8, 8, 8, 1), dtype="uint8"))
    y = [rename(k % 4) for k in range(8)]
    write_images(tmp_path, "kind", list(x), y, 4, **given)
    for read in (
        lambda: reading.load("kind", "train", tmp_path),
        lambda: reading.tfds_builder("kind", tmp_path),  # of the streams
    ):
        with pytest.raises(ValueError, match=message):
            read()


def damage(tmp_path, kind):
    """Damages or removes the files of a data set's training split."""
    for path in tmp_path.glob("**/*-train.tfrecord-*"):
        if kind == "missing":
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 255
            path.write_bytes(data)


@pytest.mark.parametrize("kind", ["damaged", "missing"])
def test_files_that_cannot_be_read_are_named(kind, tmp_path):
    images = RNG.integers(0, 256, (40, 8, 8, 3), dtype="uint8")
    write_images(tmp_path, "broken", images, range(40), 40)
    damage(tmp_path, kind)
    message = "broken should have files that can be read, of the split train. "
    with pytest.raises(OSError, match=message + r"Received: .*(record|tfrec)"):
        reading.load("broken", "train", tmp_path)
    assert len(reading.load("broken", "test", tmp_path)[1]) == 40


@pytest.mark.parametrize(
    "name, record",
    [
        ("cifar10", "cifar10"),
        ("cifar10:3.0.2", "cifar10"),
        ("imagenet2012:5.*.*", "imagenet2012"),
        ("svhn_cropped/plain:3.1.0", "svhn_cropped"),
        ("cifar10_1/v4", None),
        ("cifar", None),
    ],
)
def test_a_version_is_no_part_of_a_name(name, record):
    assert reading.record_of(name) is DATASETS.get(record)
    recipe = recipes.find("digits").replace(dataset=name)
    taken = network.preprocessing_of(recipe, None, 3)
    assert taken == (record or "imagenet2012")
    if record:
        assert reading.class_names(name) == reading.class_names(record)
        found = reading.classes_of(name, np.arange(2))
        assert found == DATASETS[record].classes


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
