"""Photographs of any size: read, cut and classified."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import keras_resfam
import peers
import tiny_run

RNG = np.random.default_rng(0)


def pixels(height=60, width=90, channels=3):
    coarse = RNG.integers(
        0, 256, (height // 10, width // 10, channels), "uint8"
    )
    image = Image.fromarray(coarse if channels > 1 else coarse[..., 0])
    grown = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    return grown.reshape(height, width, channels)


@pytest.mark.parametrize("sizes", [(60, 90), (90, 60), (50, 50), (333, 500)])
@pytest.mark.parametrize(
    ("size", "crop", "interpolation"),
    [(32, 0.875, "bilinear"), (28, 0.95, "bicubic"), (20, 1.0, "nearest")],
)
def test_the_transform_is_timms(sizes, size, crop, interpolation):
    """timm resizes the shorter side to `floor(size / crop)`."""
    image = Image.fromarray(pixels(*sizes))
    short = int(size / crop)
    if image.width <= image.height:
        shape = short, int(short * image.height / image.width)
    else:
        shape = int(short * image.width / image.height), short
    filter = Image.Resampling[interpolation.upper()]
    resized = np.asarray(image.resize(shape, filter))
    top, left = (round((side - size) / 2) for side in resized.shape[:2])
    expected = resized[top : top + size, left : left + size]
    found = keras_resfam.load_images(image, size, crop, interpolation)
    np.testing.assert_array_equal(found, expected[None])


@pytest.mark.parametrize("crop", [0.875, 0.95, 1.0])
def test_the_transform_of_timm_itself(crop):
    transform = peers.peer("timm").data.create_transform(
        (3, 32, 32), interpolation="bicubic", crop_pct=crop, mean=0, std=1
    )
    for sizes in ((60, 90), (91, 60), (333, 500)):
        image = Image.fromarray(pixels(*sizes))
        expected = transform(image).numpy().transpose(1, 2, 0) * 255
        found = keras_resfam.load_images(image, 32, crop, "bicubic")[0]
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_images_may_be(tmp_path):
    array = pixels()
    image = Image.fromarray(array)
    path = tmp_path / "x.png"
    image.save(path)
    for one in (array, image, path, str(path)):
        found = keras_resfam.load_images(one, 16)
        assert found.shape == (1, 16, 16, 3)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(
            found, keras_resfam.load_images([array], 16)
        )
    both = keras_resfam.load_images([path, pixels(20, 30)], (16, 24))
    assert both.shape == (2, 16, 24, 3)
    batch = keras_resfam.load_images(np.stack([array, array]), 16)
    np.testing.assert_array_equal(batch[1], found[0])


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "LA"])
def test_images_are_converted(mode):
    image = Image.fromarray(pixels()).convert(mode)
    for channels in (1, 3, 4):
        found = keras_resfam.load_images(image, 16, channels=channels)
        assert found.shape == (1, 16, 16, channels)


def test_photographs_are_rotated_as_their_exif_says(tmp_path):
    array = pixels(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    path = tmp_path / "x.png"
    Image.fromarray(array).save(path, exif=exif)
    np.testing.assert_array_equal(
        keras_resfam.load_images(path, (20, 40), crop=1)[0], np.rot90(array, -1)
    )


def test_predictions_are_those_of_the_pixels(tmp_path):
    model = keras_resfam.DMRNet(depth=8, weights="digits")
    digits = (np.arange(64).reshape(8, 8) * 4).astype("uint8")
    large = Image.fromarray(digits).resize((24, 24), Image.Resampling.NEAREST)
    path = tmp_path / "x.png"
    large.save(path)
    found = keras_resfam.predict_images(
        model, [path] * 3, "digits", top=10, interpolation="box", batch_size=2
    )
    expected = model.predict(digits[None, ..., None], verbose=0)
    assert len(found) == 3
    for pairs in found:
        assert [name for name, _ in pairs] == [
            str(k) for k in np.argsort(-expected[0])
        ]
        np.testing.assert_allclose(
            [p for _, p in pairs], -np.sort(-expected[0]), atol=1e-5
        )


def test_names_of_classes():
    model = keras_resfam.ResNet(depth=8, classes=2)
    image = pixels()
    for names in (["cat", "dog"], ("cat", "dog")):
        (pairs,) = keras_resfam.predict_images(model, image, names=names)
        assert {name for name, _ in pairs} == {"cat", "dog"}
    with pytest.raises(
        ValueError, match="names of the 2 classes.*weights=None"
    ):
        keras_resfam.predict_images(model, image)
    with pytest.raises(ValueError, match="names of the 2 classes.*10 names"):
        keras_resfam.predict_images(model, image, "cifar10")


def test_what_a_checkpoint_says(tmp_path):
    """Names of classes, crop and interpolation."""
    config = {
        "pretrained_cfg": {
            "crop_pct": 0.5,
            "interpolation": "bicubic",
            "label_names": ["cat", "dog"],
        }
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()  # it is not read
    model = keras_resfam.ResNet(depth=8, classes=2, input_shape=(80, 80, 3))
    image, options = pixels(300, 200), {"names": ["cat", "dog"]}
    found = keras_resfam.predict_images(model, image, str(tmp_path))
    stated = {"crop": 0.5, "interpolation": "bicubic"}
    assert found == keras_resfam.predict_images(
        model, image, **options, **stated
    )
    assert found != keras_resfam.predict_images(model, image, **options)
    assert found != keras_resfam.predict_images(
        model, image, str(tmp_path), crop=1.0
    )


def test_a_run_crops_as_training_does(tmp_path):
    run = tiny_run.make(tmp_path / "run", classes=2, input_shape=(16, 16, 1))
    recipe = json.loads((run / "recipe.json").read_text()) | {
        "dataset": "shapes",
        "class_names": ["blue", "red"],
        "image_size": 16,
    }
    (run / "recipe.json").write_text(json.dumps(recipe))
    model, image = keras_resfam.DMRNet(depth=8, weights=str(run)), pixels()
    found, wide = (
        keras_resfam.predict_images(model, image, str(run), crop=crop)
        for crop in (None, 0.875)
    )
    assert found == wide
    assert {name for name, _ in found[0]} == {"blue", "red"}


def test_models_that_would_be_wrong_are_refused():
    image, names = pixels(), ["a", "b"]
    options = {"depth": 8, "classes": 2}
    model = keras_resfam.ResNet(**options, include_preprocessing=False)
    with pytest.raises(ValueError, match="`include_preprocessing=True`"):
        keras_resfam.predict_images(model, image, names=names)
    model = keras_resfam.ResNet(**options, classifier_activation=None)
    with pytest.raises(ValueError, match='`classifier_activation="softmax"`'):
        keras_resfam.predict_images(model, image, names=names)
    model = keras_resfam.ResNet(**options, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="images of one size"):
        keras_resfam.predict_images(model, image, names=names)


def encoded(image, format):
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (b"text", "x.png: cannot identify"),
        (
            encoded(Image.fromarray(pixels()), "png")[:-600],
            "x.png: .*truncated",
        ),
        (
            encoded(Image.fromarray(np.zeros((9, 9), "uint16")), "png"),
            "8 bits a channel",
        ),
    ],
)
def test_files_that_cannot_be_read(contents, complaint, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=complaint):
        keras_resfam.load_images(path, 16)
    with pytest.raises(ValueError, match="that can be read"):
        keras_resfam.load_images(tmp_path, 16)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (pixels() / 255, "float64"),
        (np.zeros((4, 4, 2), "uint8"), r"\(4, 4, 2\)"),
        (np.zeros((0, 4, 3), "uint8"), r"\(0, 4, 3\)"),
        ([], r"images=\[\]"),
    ],
)
def test_arrays_that_are_no_images(array, complaint):
    with pytest.raises(ValueError, match=f"`images`.*{complaint}"):
        keras_resfam.load_images(array, 16)
