"""The study of an ImageNet network counts the labels that folders name."""

import csv
import re

import numpy as np
import pytest

import keras_resfam
import photographs
import tiny_run
from keras_resfam import analysis
from keras_resfam.datasets import DATASETS
from training.examples import lesion_study_imagenet

pytestmark = pytest.mark.backend_independent

ARGUMENTS = {"depth": 8, "preactivation": True}
OPTIONS = "--builder ResNet --set depth=8 --set preactivation=True".split()


@pytest.fixture
def network(tmp_path):
    """A run of a random network for 1000 classes of small images."""
    run = tiny_run.make(
        tmp_path / "run",
        "ResNet",
        ARGUMENTS,
        classes=1000,
        input_shape=(16, 16, 3),
        preprocessing="imagenet2012",
    )
    return [str(run), *OPTIONS, "--image-size", "16"]


def test_labels_are_those_of_imagenet():
    names = ["tench", "n01440764", "toilet_tissue", "n02102040", "crane_(bird)"]
    labels = lesion_study_imagenet.labels_of(names)
    assert labels.tolist() == [0, 0, 999, 217, 134]
    imagenet = DATASETS["imagenet2012"]
    for names in (imagenet.class_names, imagenet.wordnet_ids):
        labels = lesion_study_imagenet.labels_of(names)
        assert labels.tolist() == list(range(1000))


def test_errors_are_those_of_the_network_without_each_block(
    tmp_path, network, capsys
):
    # The classes that the network sees in blue and in red images.
    model = keras_resfam.ResNet(**ARGUMENTS, weights=network[0])
    root = photographs.write(tmp_path / "photos", sizes=(16, 16))
    paths = sorted((root / "train").glob("*/*"))
    images = keras_resfam.load_images(paths, 16)
    answers = model.predict(images, verbose=0).argmax(axis=1)
    imagenet = DATASETS["imagenet2012"]
    blue, red = answers[0], answers[-1]
    other = next(k for k in range(1000) if k not in (blue, red))
    red = red if red != blue else other
    folders = imagenet.wordnet_ids[blue], imagenet.class_names[red]
    for color, name in zip(("blue", "red"), folders, strict=True):
        (root / "train" / color).rename(root / "train" / name)
    labels = np.where([p.parent.name == "blue" for p in paths], blue, red)

    out = tmp_path / "lesions.csv"
    places = ["--images", str(root / "train"), "--out", str(out)]
    lesion_study_imagenet.main([*network, *places, "--batch-size", "10"])
    said = capsys.readouterr().out
    expected = {"": error(model, images, labels)}
    for block in analysis.residual_blocks(model):
        lesioned = analysis.delete_blocks(model, [block])
        expected[block.name] = error(lesioned, images, labels)
    assert len(set(expected.values())) > 1
    with out.open() as file:
        rows = list(csv.DictReader(file))
    found = {row["blocks"]: float(row["error"]) for row in rows}
    assert found == pytest.approx(expected, abs=1e-4)

    assert f": {expected.pop(''):.2f} %\n" in said
    printed = re.findall(r"without (\w+): ([\d.]+) %", said)
    errors = [float(value) for _, value in printed]
    blocks = [name for name, _ in printed]
    assert dict(zip(blocks, errors, strict=True)) == pytest.approx(
        expected, abs=0.01
    )
    assert errors == sorted(errors, reverse=True)


def error(model, images, labels):
    answers = model.predict(images, verbose=0).argmax(axis=1)
    return 100 * np.mean(answers != labels)


def test_a_share_of_the_images(tmp_path, network, capsys):
    colors = {"tench": (40, 60, 200), "goldfish": (200, 50, 40)}
    root = photographs.write(tmp_path / "photos", colors=colors)
    out = tmp_path / "lesions.csv"
    places = ["--images", str(root / "test"), "--out", str(out)]
    lesion_study_imagenet.main([*network, *places, "--examples", "3"])
    with out.open() as file:
        assert {row["examples"] for row in csv.DictReader(file)} == {"3"}


@pytest.mark.backend_independent
def test_what_it_refuses(tmp_path, network):
    root = photographs.write(tmp_path / "photos", train=1, test=1)
    out = tmp_path / "lesions.csv"
    for images, complaint in (
        (root / "train", "WordNet ids.*tench. Received: blue, red"),
        (root / "train" / "red", "`--images` should be a folder with.*red"),
    ):
        places = ["--images", str(images), "--out", str(out)]
        with pytest.raises(SystemExit, match=complaint):
            lesion_study_imagenet.main([*network, *places])
    few = tiny_run.make(
        tmp_path / "few",
        "ResNet",
        ARGUMENTS,
        input_shape=(16, 16, 3),
        preprocessing="cifar10",
    )
    with pytest.raises(SystemExit, match="1000 classes.*with 10 classes"):
        lesion_study_imagenet.main([str(few), *network[1:], *places])
    assert not out.exists()
