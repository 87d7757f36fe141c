"""Photographs of any size: read, cut and classified."""

import io
import json

import keras
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import keras_resfam
import peers
import tiny_run
from keras_resfam.pretrained import foreign

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
        model, [path] * 3, top=10, interpolation="box", batch_size=2
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


def test_a_model_keeps_its_data_format():
    """Whatever Keras's own is when the model is used."""
    keras.config.set_image_data_format("channels_first")
    try:
        model = keras_resfam.ResNet(depth=8, input_shape=(3, 32, 48))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert keras_resfam.image_transform(model)["size"] == (32, 48)
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolution on the CPU")
    keras_resfam.predict_images(model, pixels(), names="cifar10")


def test_names_of_classes():
    model = keras_resfam.ResNet(depth=8, classes=2)
    image = pixels()
    for names in (["cat", "dog"], ("cat", "dog")):
        (pairs,) = keras_resfam.predict_images(model, image, names=names)
        assert {name for name, _ in pairs} == {"cat", "dog"}
    with pytest.raises(ValueError, match="of the 2 classes.*names=None"):
        keras_resfam.predict_images(model, image)
    with pytest.raises(ValueError, match="names of the 2 classes.*10 names"):
        keras_resfam.predict_images(model, image, "cifar10")


CONFIG = {
    "crop_pct": 0.5,
    "interpolation": "bicubic",
    "test_input_size": [3, 96, 80],
    "test_crop_pct": 0.75,
    "label_names": ["cat", "dog"],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}


@pytest.fixture
def checkpoint(tmp_path):
    """Builds a network with the weights of another project's checkpoint."""
    folder, small = tmp_path / "checkpoint", {"depth": 10, "width": 1}
    folder.mkdir()
    config = {"pretrained_cfg": CONFIG}
    (folder / "config.json").write_text(json.dumps(config))
    network = keras_resfam.WideResNet(**small, classes=2)
    state = keras_resfam.to_torch_state_dict(network)
    save_file(state, folder / "model.safetensors")

    def build(size=(80, 80), **options):
        return keras_resfam.WideResNet(
            **small, weights=folder, input_shape=(*size, 3), **options
        )

    return build


def test_what_a_checkpoint_says(checkpoint):
    """Names of classes, crop and interpolation."""
    model, image = checkpoint(), pixels(300, 200)
    stated = {"crop": 0.5, "interpolation": "bicubic"}
    images = {"size": (80, 80), "channels": 3}
    assert keras_resfam.image_transform(model) == {**images, **stated}
    cut = keras_resfam.load_images(image, (80, 80), **stated)
    expected = model.predict(cut, verbose=0)[0]
    ((first, p), (second, q)) = keras_resfam.predict_images(model, image)[0]
    assert (first, second) == ("cat", "dog")[:: 1 if expected[0] > 0.5 else -1]
    np.testing.assert_allclose((p, q), sorted(expected)[::-1], rtol=1e-5)
    others = keras_resfam.predict_images(
        model, image, ["a", "b"], crop=1.0, interpolation="box"
    )
    assert {name for name, _ in others[0]} == {"a", "b"}
    assert others[0][0][1] != p


@pytest.mark.parametrize(
    ("size", "crop"), [((96, 80), 0.75), ((80, 96), 0.5), ((64, 64), 0.5)]
)
def test_the_crop_is_that_of_the_size(checkpoint, size, crop):
    transform = keras_resfam.image_transform(checkpoint(size))
    assert (transform["size"], transform["crop"]) == (size, crop)


def test_a_model_keeps_what_the_checkpoint_says(checkpoint, tmp_path):
    model, image = checkpoint(), pixels(300, 200)
    expected = keras_resfam.predict_images(model, image)[0]
    model.save(tmp_path / "model.keras")
    for other in (
        keras.saving.load_model(tmp_path / "model.keras"),
        keras_resfam.fold_batch_norm(model),
        keras_resfam.with_temperature(model, 1.0),
        keras.Sequential([keras.Input((80, 80, 3)), model]),
    ):
        (found,) = keras_resfam.predict_images(other, image)
        for pair, known in zip(found, expected, strict=True):
            assert pair == (known[0], pytest.approx(known[1], rel=1e-4))


def test_stock_layers_do_not_know_it(checkpoint):
    model, image = checkpoint(), pixels(300, 200)
    plain = keras_resfam.to_stock_layers(model)
    with pytest.raises(ValueError, match="`keras_resfam.class_names`"):
        keras_resfam.predict_images(plain, image)
    given = {"names": ["cat", "dog"], "crop": 0.5, "interpolation": "bicubic"}
    (found,) = keras_resfam.predict_images(plain, image, **given)
    (expected,) = keras_resfam.predict_images(model, image)
    assert found[0][1] == pytest.approx(expected[0][1], rel=1e-4)


def test_a_new_classifier_has_other_names(checkpoint):
    """The transform stays that of the weights."""
    bare = checkpoint(include_top=False, pooling="avg")
    whole = checkpoint()
    for image, features in (
        (bare.input, bare.output),
        (whole.input, whole.get_layer("avg_pool").output),
    ):
        top = keras.layers.Dense(2, "softmax")(features)
        model = keras.Model(image, top)
        assert keras_resfam.image_transform(model)["crop"] == 0.5
        with pytest.raises(ValueError, match="names=None"):
            keras_resfam.predict_images(model, pixels())


def test_transformers_numbers_the_filters_as_pillow_does():
    for name in foreign.INTERPOLATIONS:
        config = {"resample": Image.Resampling[name.upper()].value}
        assert foreign._interpolation(config) == name


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"crop_pct": 1.5}, "at most 1, but one is 1.5"),
        ({"crop_pct": "all"}, "numbers above 0.*'all'"),
        ({"interpolation": ["box"]}, r"nearest, .*\['box'\]"),
        ({"interpolation": None, "resample": 9}, "nearest, .*9"),
        ({"test_input_size": [3]}, r"as `test_input_size`, but has \[3\]"),
    ],
)
def test_transforms_that_are_none(checkpoint, config, complaint, monkeypatch):
    monkeypatch.setattr(foreign, "_config", lambda files: CONFIG | config)
    with pytest.raises(ValueError, match=f"`weights` should.*{complaint}"):
        checkpoint()


def test_a_run_crops_as_training_does(tmp_path):
    run = tiny_run.make(tmp_path / "run", classes=2, input_shape=(16, 16, 1))
    recipe = json.loads((run / "recipe.json").read_text()) | {
        "dataset": "shapes",
        "class_names": ["blue", "red"],
        "image_size": 16,
    }
    (run / "recipe.json").write_text(json.dumps(recipe))
    model = keras_resfam.DMRNet(depth=8, weights=str(run))
    assert keras_resfam.image_transform(model)["crop"] == 0.875
    (found,) = keras_resfam.predict_images(model, pixels())
    assert {name for name, _ in found} == {"blue", "red"}


def test_models_that_would_be_wrong_are_refused():
    image, names = pixels(), ["a", "b"]
    options = {"depth": 8, "classes": 2}
    model = keras_resfam.ResNet(**options, include_preprocessing=False)
    with pytest.raises(ValueError, match="`include_preprocessing=True`"):
        keras_resfam.predict_images(model, image, names=names)
    model = keras_resfam.ResNet(**options)
    scaled = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Rescaling(255.0), model]
    )
    with pytest.raises(ValueError, match="raw images.* deviation of 0.262"):
        keras_resfam.predict_images(scaled, image, names=names)
    model = keras_resfam.ResNet(**options, classifier_activation=None)
    with pytest.raises(ValueError, match='`classifier_activation="softmax"`'):
        keras_resfam.predict_images(model, image, names=names)
    model = keras_resfam.ResNet(**options, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="images of one size"):
        keras_resfam.predict_images(model, image, names=names)
    model = keras_resfam.ResNet(**options, input_shape=(32, 32, 2))
    with pytest.raises(ValueError, match="`model`.*1, 3 or 4.* 2 channels"):
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
            "8 bits per channel",
        ),
    ],
)
def test_files_that_cannot_be_read(contents, complaint, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=complaint):
        keras_resfam.load_images(path, 16)
    with pytest.raises(ValueError, match="readable images"):
        keras_resfam.load_images(tmp_path, 16)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (pixels() / 255, "float64"),
        (np.zeros((4, 4, 2), "uint8"), r"\(4, 4, 2\)"),
        (np.zeros((0, 4, 3), "uint8"), r"\(0, 4, 3\)"),
        ([], r"images=\[\]"),
        (None, "images=None"),
        (b"PNG" * 99, r"images=b'PNG.*\.\.\."),
        ([None], "None"),
    ],
)
def test_arrays_that_are_no_images(array, complaint):
    with pytest.raises(ValueError, match=f"`images`.*{complaint}"):
        keras_resfam.load_images(array, 16)
