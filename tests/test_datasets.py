import importlib.resources

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
        assert len(set(dataset.class_names)) == dataset.classes


def test_wordnet_ids_are_those_of_the_labels():
    """TFDS has the same ids."""
    tfds = importlib.resources.files("tensorflow_datasets")
    imagenet = DATASETS["imagenet2012"]
    labels = (tfds / "datasets/imagenet2012/labels.txt").read_text().split()
    assert list(imagenet.wordnet_ids) == labels
    names = dict(zip(imagenet.wordnet_ids, imagenet.class_names, strict=True))
    assert names["n01440764"] == "tench"
    assert names["n02102040"] == "English_springer"
    assert names["n03000684"] == "chain_saw"
    assert names["n03888257"] == "parachute"
    assert names["n15075141"] == "toilet_tissue"


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


def test_a_probability_of_zero_may_have_its_logarithm():
    with np.errstate(divide="ignore"):
        scores = np.log(np.eye(10))
    decoded = keras_resfam.decode_predictions(scores, "digits", top=1)
    assert decoded == [[(str(k), 0.0)] for k in range(10)]


@pytest.mark.parametrize("name", ["cifar100", "svhn_cropped", "digits"])
def test_decode_predictions_of_other_data_sets(name):
    classes = DATASETS[name].class_names
    decoded = keras_resfam.decode_predictions(np.eye(len(classes)), name, top=1)
    assert [row[0][0] for row in decoded] == list(classes)


def test_imagenet_names_need_no_network():
    # As in everybody's lists: a fish, a bird, two machines, a paper.
    known = {0: "tench", 134: "crane_(bird)", 517: "crane_(machine)"}
    known |= {207: "golden_retriever", 999: "toilet_tissue"}
    decoded = keras_resfam.decode_predictions(
        np.eye(1000)[list(known)], "imagenet", top=1
    )
    assert [row[0][0] for row in decoded] == list(known.values())


def test_decode_predictions_by_names():
    names = ("cat", "dog", "owl")
    decoded = keras_resfam.decode_predictions(np.eye(3), names, top=1)
    assert [row[0][0] for row in decoded] == list(names)


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
        (
            dict(predictions=np.ones((2, 10)), dataset=("cat", "dog")),
            r"\(batch, 2\), with one column per class\.",
        ),
        (dict(predictions=np.full((2, 10), np.nan)), "predictions of 2 images"),
        (dict(predictions=np.diag([np.inf] * 10)), "predictions of 10 images"),
        (dict(predictions="cat"), "predictions='cat'"),
    ],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        keras_resfam.decode_predictions(**{"dataset": "cifar10"} | arguments)
