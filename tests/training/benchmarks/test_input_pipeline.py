import re

import numpy as np
import pytest

from training.benchmarks import input_pipeline
from training.images.batches import Epochs

pytestmark = pytest.mark.backend_independent


def test_prints_both_times_and_their_ratio(capsys):
    input_pipeline.main(["--recipe=digits", "--steps=3", "--turns=2"])
    head, *lines = capsys.readouterr().out.strip().splitlines()
    assert head.startswith("digits, batch 64, float32, ")
    times = [
        float(re.match(rf"{kind} +([\d.]+) ms a step", line)[1])
        for kind, line in zip(["data", "one batch"], lines, strict=False)
    ]
    ratio = float(re.fullmatch(r"real data: ([+-][\d.]+)%", lines[2])[1])
    assert ratio == pytest.approx(100 * (times[0] / times[1] - 1), abs=2)


def test_one_batch_is_repeated():
    images = np.arange(12, dtype="uint8").reshape(6, 2, 1, 1)
    epochs = Epochs(images, np.arange(6), 2, seed=0)
    batch = next(iter(epochs.epoch(0)))
    again = input_pipeline.repeated(batch, 3)
    assert len(again) == 3
    for _, one in zip(range(3), again, strict=False):
        np.testing.assert_array_equal(one[1], batch[1])
        np.testing.assert_array_equal(one[0][0], batch[0][0])


def test_data_that_are_missing_are_one_line(tmp_path):
    with pytest.raises(SystemExit, match="input_pipeline.py: .*missing.npz"):
        input_pipeline.main([f"--data-dir={tmp_path / 'missing.npz'}"])
