"""The example learns a folder of images, and saves what Keras loads."""

import json

import keras
import numpy as np
import pytest

import keras_resfam
import photographs
import tiny_run
from keras_resfam import analysis
from keras_resfam.pretrained.files import WEIGHTS
from training.examples import fine_tune_folder
from training.images import reading

pytestmark = pytest.mark.backend_independent

OPTIONS = "--builder DMRNet --set depth=8 --image-size 16 --epochs 1".split()


@pytest.fixture
def weights(tmp_path):
    """A run on color images, to start from."""
    images = {"input_shape": (16, 16, 3)}
    run = tiny_run.make(tmp_path / "run", preprocessing="cifar10", **images)
    keras_resfam.DMRNet(depth=8, **images).save_weights(run / WEIGHTS)
    return run


def test_it_learns_and_saves(tmp_path, weights, capsys):
    root, out = photographs.write(tmp_path / "photos"), tmp_path / "mine.keras"
    places = ["--data-dir", str(root), "--out", str(out)]
    fine_tune_folder.main([str(weights), *OPTIONS, *places])
    said = capsys.readouterr().out
    assert json.loads(out.with_suffix(".json").read_text()) == ["blue", "red"]

    model = keras.saving.load_model(out)
    images, labels = reading.photographs("photos", "test", root, 16)
    answers = model.predict(images[:], verbose=0).argmax(axis=1)
    right = 100 * np.mean(answers == labels)
    assert f"whole network: {right:.2f} % right" in said
    assert right == 100  # by their color
    assert len(analysis.residual_blocks(model)) == 3
    # Trained from the weights, and not from new ones.
    start = keras_resfam.DMRNet(depth=8, weights=str(weights))
    (new, old) = (
        m.get_layer("stem_conv").get_weights()[0] for m in (model, start)
    )
    assert 0 < np.abs(new - old).max() < 0.1 * np.abs(old).max()


@pytest.mark.backend_independent
def test_what_it_refuses(tmp_path, weights, capsys):
    places = ["--data-dir", str(tmp_path), "--out", str(tmp_path / "a.keras")]
    with pytest.raises(SystemExit, match="train/<class>/.*--data-dir"):
        fine_tune_folder.main([str(weights), *OPTIONS, *places])
    with pytest.raises(SystemExit):
        fine_tune_folder.main(["cifar10", *OPTIONS, *places[:-1], "a.h5"])
    assert "--out should end in .keras" in capsys.readouterr().err
    assert not (tmp_path / "a.keras").exists()
