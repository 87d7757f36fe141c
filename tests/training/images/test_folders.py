"""Photographs in folders: found, decoded, cut, ordered and refused."""

import types

import numpy as np
import pytest
from PIL import Image

import photographs
from training.images import folders, reading

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.backend_independent


@pytest.fixture
def root(tmp_path):
    return photographs.write(tmp_path / "photos")


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_labels_are_those_of_the_folders(root):
    images, labels = reading.photographs("shapes", "train", root, 16)
    assert images.shape == (24, 16, 16, 3)
    assert reading.class_names("shapes", root) == ("blue", "red")
    assert reading.classes_of("shapes", labels, root) == 2
    for path, label in zip(images.paths, labels, strict=True):
        assert path.parent.name == ("blue", "red")[label]
    blue_over_red = images[:][..., 2].mean((1, 2)) > images[:][..., 0].mean(
        (1, 2)
    )
    np.testing.assert_array_equal(blue_over_red, labels == 0)


def test_the_last_images_of_a_split_have_all_classes(root):
    _, held_out = reading.photographs("shapes", "train[-8:]", root, 16)
    _, kept = reading.photographs("shapes", "train[:-8]", root, 16)
    assert set(held_out) == set(kept) == {0, 1}
    assert (len(held_out), len(kept)) == (8, 16)


def test_hidden_files_and_folders_are_left_out(tmp_path):
    for name in ("b/1.png", "a.png", ".a.png", ".cache/2.png", "b/.c/3.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = folders.files_in("--images", tmp_path)
    assert found == [tmp_path / "a.png", tmp_path / "b" / "1.png"]


def test_images_of_one_size_are_read_into_memory(tmp_path):
    root = photographs.write(tmp_path / "photos", sizes=(9, 9))
    images, labels = reading.load("shapes", "test", root)
    assert images.shape == (8, 9, 9, 3)
    assert images.dtype == np.uint8
    paths, _ = folders.files(root, "test", ("blue", "red"))
    for image, path in zip(images, paths, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(path)))


def test_gray_images_have_one_channel(tmp_path):
    pixels = RNG.integers(0, 256, (2, 5, 5), dtype="uint8")
    paths = [save(tmp_path / f"{k}.png", x) for k, x in enumerate(pixels)]
    np.testing.assert_array_equal(folders.load(paths), pixels[..., None])


def test_the_central_crop_is_that_of_the_usual_two_steps(tmp_path):
    """Scaled to a shorter side of 256, and cut to 224."""
    ramp = np.linspace(0, 255, 600)[None, :, None] * np.ones((400, 1, 3))
    path = save(tmp_path / "ramp.png", ramp.astype("uint8"))
    image = Image.open(path).resize((384, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(image.crop((80, 16, 304, 240)), int)
    images = folders.Photographs(np.array([path], object), 224)
    assert np.abs(images[:][0] - expected).max() <= 1
    other = {"crop": 1.0, "interpolation": "box"}
    images = folders.Photographs(np.array([path], object), 200, **other)
    expected = Image.open(path).resize((300, 200), Image.Resampling.BOX)
    expected = expected.crop((50, 0, 250, 200))
    np.testing.assert_array_equal(images[:][0], np.asarray(expected))


def test_a_random_crop_is_of_the_image_and_repeats(tmp_path):
    rows, columns = np.mgrid[:120, :160]
    pixels = np.stack([rows, columns, 0 * rows], -1).astype("uint8")
    path = save(tmp_path / "places.png", pixels)
    crops = [
        folders.random_crop(path, 32, (0.1, 0.5), [0, k]) for k in range(50)
    ]
    again = folders.random_crop(path, 32, (0.1, 0.5), [0, 7])
    np.testing.assert_array_equal(crops[7], again)
    for crop in crops:
        spans = (
            np.ptp(crop[..., :2].astype(int).reshape(-1, 2), axis=0) * 32 / 31
        )
        share = spans.prod() / pixels[..., 0].size
        assert 0.1 - 0.02 < share < 0.5 + 0.02
        assert 3 / 4 - 0.05 < spans[1] / spans[0] < 4 / 3 + 0.05
    assert len({crop.tobytes() for crop in crops}) == 50


def test_epochs_are_functions_of_seed_and_epoch(root):
    recipe = types.SimpleNamespace(batch_size=8, mixup=0.0, crop_area=(0.5, 1))
    data = reading.photographs("shapes", "train", root, 16)

    def first(seed, epoch):
        epochs = folders.Epochs(*data, recipe, seed)
        order, draws = epochs.order_and_draws(epoch)
        return epochs.take(epoch, slice(0, 8)), data[1][order[:8]], draws

    for this, other in zip(first(0, 1), first(0, 1), strict=True):
        np.testing.assert_array_equal(this, other)
    images, labels, _ = first(0, 1)
    assert (images[..., 2].mean((1, 2)) > 120).tolist() == (
        labels == 0
    ).tolist()
    for changed in (first(0, 2), first(1, 1)):
        assert (changed[0] != images).any()
    # A resumed epoch takes the rows that are left, and their crops.
    epochs = folders.Epochs(*data, recipe, 0)
    np.testing.assert_array_equal(epochs.take(1, slice(4, 8)), images[4:])


def test_photographs_are_turned_as_their_exif_says(tmp_path):
    pixels = RNG.integers(0, 256, (6, 4, 3), dtype="uint8")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    path = save(tmp_path / "x.png", pixels, exif=exif)
    np.testing.assert_array_equal(folders.load([path])[0], np.rot90(pixels, -1))


def test_folders_named_by_wordnet_are_imagenets(tmp_path):
    names = [f"n{k:08}" for k in range(1000)]
    for name in names:
        (tmp_path / "val" / name).mkdir(parents=True)
    assert reading.has_split("imagenet2012", "validation", tmp_path)
    assert list(reading._class_folders("imagenet2012", tmp_path)) == names
    assert reading.class_names("imagenet2012")[0] == "tench"


def test_folders_of_a_known_data_set_are_in_its_order(tmp_path):
    names = [str(k) for k in (7, 3, 9, 0, 1, 2, 4, 5, 6, 8)]
    colors = {name: (25 * int(name),) * 3 for name in names}
    photographs.write(tmp_path / "x", 1, 1, (32, 32), colors)
    images, labels = reading.load("svhn_cropped", "test", tmp_path / "x")
    means = images.mean((1, 2, 3))
    np.testing.assert_array_equal(means.argsort(), labels.argsort())


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda r: (r / "train/red/note.txt").write_text("x"), "red/note.txt"),
        (lambda r: (r / "test/blue/1.png").write_bytes(b""), "blue/1.png"),
        (lambda r: (r / "test/red/a").mkdir(), "test/red/a"),
        (lambda r: (r / "test/list.txt").touch(), "class.*test/list.txt"),
        (lambda r: (r / "test/green").mkdir(), "green not in both"),
        (
            lambda r: save(r / "train/red/x.png", np.zeros((4, 4), "uint16")),
            "red/x.png: it has more than 8 bits",
        ),
    ],
)
def test_what_is_not_as_it_should_be(root, damage, complaint):
    damage(root)
    with pytest.raises(ValueError, match=complaint):
        for split in ("train", "test"):
            reading.photographs("shapes", split, root, 16)


@pytest.mark.parametrize("name", ["0.jpg", "1.png"])
def test_a_damaged_image_is_named_before_training(root, name):
    path = root / "train" / "red" / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"red/{name}: .*[Tt]runcated"):
        reading.photographs("shapes", "train", root, 16)


def test_other_errors(root):
    with pytest.raises(ValueError, match="folder for the split extra"):
        reading.photographs("shapes", "extra", root, 16)
    with pytest.raises(ValueError, match="`--set image_size=...`"):
        reading.load("shapes", "train", root)
    with pytest.raises(ValueError, match="`--set dataset=...`.*blue, red"):
        reading.load("cifar10", "train", root)
    for path in (root / "test" / "blue").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="blue, which is empty"):
        reading.photographs("shapes", "test", root, 16)


def test_changed_files_change_the_checksum(root):
    images, labels = reading.photographs("shapes", "train", root, 16)
    before = reading.checksum(images, labels)
    path = images.paths[0]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # of the same size
    assert reading.checksum(images, labels) != before


def test_one_class_is_refused(tmp_path):
    root = photographs.write(tmp_path, colors={"blue": (40, 60, 200)})
    _, labels = reading.photographs("shapes", "train", root, 16)
    with pytest.raises(ValueError, match="labels up to 0"):
        reading.classes_of("shapes", labels, root)
