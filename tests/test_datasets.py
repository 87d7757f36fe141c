import keras
import numpy as np
import pytest

import keras_resfam
from keras_resfam.datasets import DATASETS


def test_records_are_consistent():
    counts = {"cifar10": 10, "cifar100": 100, "svhn_cropped": 10}
    counts |= {"imagenet2012": 1000, "digits": 10}
    assert {name: d.classes for name, d in DATASETS.items()} == counts
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert len(dataset.mean) == len(dataset.std) == dataset.image_shape[-1]
        if name != "imagenet2012":
            assert len(set(dataset.class_names)) == dataset.classes


def test_digits_moments_are_those_of_the_images():
    from sklearn.datasets import load_digits

    images = np.rint(load_digits().images * 255 / 16)
    digits = DATASETS["digits"]
    np.testing.assert_allclose(images.mean(), digits.mean[0], atol=0.01)
    np.testing.assert_allclose(images.std(), digits.std[0], atol=0.01)


def test_deviations_are_not_the_means_of_images():
    # 0.2023 and so on circulate for CIFAR-10; the true ones are larger.
    np.testing.assert_allclose(
        np.array(DATASETS["cifar10"].std) / 255,
        [0.2470, 0.2435, 0.2616],
        atol=5e-5,
    )


def test_decode_predictions():
    scores = np.array([[0.1] * 10, np.arange(10) / 45])
    decoded = keras_resfam.decode_predictions(scores, "cifar10", top=3)
    assert decoded[1] == [
        ("truck", 9 / 45),
        ("ship", 8 / 45),
        ("horse", 7 / 45),
    ]
    names = [name for name, _ in decoded[0]]
    assert names == ["airplane", "automobile", "bird"]  # ties: in order
    everything = keras_resfam.decode_predictions(scores, "cifar10", top=99)
    assert len(everything[0]) == 10


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float16"])
def test_decode_predictions_of_any_type(dtype):
    scores = np.eye(10).astype(dtype)
    decoded = keras_resfam.decode_predictions(scores, "digits", top=np.int64(1))
    assert decoded == [[(str(k), 1.0)] for k in range(10)]


@pytest.mark.parametrize("name", ["cifar100", "svhn_cropped", "digits"])
def test_decode_predictions_of_other_data_sets(name):
    classes = DATASETS[name].class_names
    decoded = keras_resfam.decode_predictions(np.eye(len(classes)), name, top=1)
    assert [row[0][0] for row in decoded] == list(classes)


def test_imagenet_names_are_those_of_keras_applications(monkeypatch):
    # Keras downloads the names: here only what is made of them is tested.
    def decode(scores, top):
        return [[(f"n{k:08d}", f"class {k}", 1.0)] for k in scores.argmax(1)]

    utils = keras.applications.imagenet_utils
    monkeypatch.setattr(utils, "decode_predictions", decode)
    decoded = keras_resfam.decode_predictions(
        np.eye(1000)[[3, 999]], "imagenet2012", top=1
    )
    assert decoded == [[("class 3", 1.0)], [("class 999", 1.0)]]


@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(predictions=np.ones((2, 9))), r"\(batch, 10\).*\(2, 9\)"),
        (dict(predictions=np.ones(10)), r"predictions.shape=\(10,\)"),
        (dict(predictions=np.ones((2, 10)), top=0), "`top`.*top=0"),
        (dict(predictions=np.ones((2, 10)), top=True), "`top`.*top=True"),
        (
            dict(predictions=np.ones((2, 10)), dataset="mnist"),
            "dataset='mnist'",
        ),
    ],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        keras_resfam.decode_predictions(**{"dataset": "cifar10"} | arguments)
