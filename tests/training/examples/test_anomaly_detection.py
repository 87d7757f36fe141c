"""The example finds a planted defect, and chooses patches as the paper does."""

import itertools
import re

import numpy as np
import pytest
from PIL import Image

import keras_resfam
import photographs
import tiny_run
from training.examples import anomaly_detection

pytestmark = pytest.mark.backend_independent

RNG = np.random.default_rng(0)
DEFECT = slice(18, 26), slice(4, 12)  # rows and columns


@pytest.fixture
def network(tmp_path):
    """A run of a random network for small images."""
    run = tiny_run.make(
        tmp_path / "run",
        "WideResNet",
        {"depth": 10, "width": 1},
        input_shape=(32, 32, 3),
        preprocessing="cifar10",
    )
    options = "--builder WideResNet --set depth=10 --set width=1 --levels P0 P1"
    return [str(run), *options.split(), "--image-size", "32"]


def test_it_finds_a_defect(tmp_path, network, capsys):
    root = photographs.write(
        tmp_path / "photos", sizes=(32, 32), colors={"blue": (40, 60, 200)}
    )
    new = root / "test"
    pixels = np.array(Image.open(new / "blue" / "1.png"))
    pixels[DEFECT] = pixels[DEFECT][..., ::-1]  # from blue to red
    (new / "broken").mkdir()
    Image.fromarray(pixels).save(new / "broken" / "1.png")

    maps = tmp_path / "maps"
    places = ["--good", str(root / "train"), "--images", str(new)]
    more = ["--heat-maps", str(maps), "--share", "0.05", "--batch-size", "5"]
    anomaly_detection.main([*network, *places, *more])
    said = capsys.readouterr().out
    assert "memory bank: 614 of 12288 features" in said
    ranking = re.findall(r"([\d.]+)  (\S+)\n", said)
    scores = [float(score) for score, _ in ranking]
    assert [path for _, path in ranking][0] == str(new / "broken" / "1.png")
    assert len(scores) == 5
    assert scores[0] > 1.5 * scores[1]

    written = sorted(path.relative_to(maps) for path in maps.rglob("*.png"))
    assert [str(path) for path in written] == [
        *(f"blue/{k}.{'png' if k % 2 else 'jpg'}.png" for k in range(4)),
        "broken/1.png.png",
    ]
    heats = [redness(maps / path) for path in written]
    row, column = np.unravel_index(heats[-1].argmax(), (32, 32))
    assert DEFECT[0].start <= row < DEFECT[0].stop
    assert DEFECT[1].start <= column < DEFECT[1].stop
    assert heats[-1].max() > 1.2 * max(heat.max() for heat in heats[:-1])


def test_features_are_averages_of_3_x_3_positions(network):
    options = anomaly_detection.parse_arguments(
        [*network, "--good", "a", "--images", "b"]
    )
    images = RNG.integers(0, 256, (1, 32, 32, 3)).astype("uint8")
    found = anomaly_detection.patch_features(options).predict(images, verbose=0)
    model = keras_resfam.WideResNet(depth=10, width=1, weights=network[0])
    maps = keras_resfam.feature_extractor(model).predict(images, verbose=0)
    fine, coarse = (averaged(maps[level][0]) for level in ("P0", "P1"))
    channels = [Image.fromarray(x) for x in np.moveaxis(coarse, -1, 0)]
    resized = [x.resize((32, 32), Image.Resampling.BILINEAR) for x in channels]
    expected = np.concatenate([fine, np.stack(resized, axis=-1)], axis=-1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


def averaged(features):
    """The means of the 3 x 3 positions around each, of those in the map."""
    padding = (1, 1), (1, 1), (0, 0)
    padded = np.pad(features, padding, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    return np.nanmean(windows, axis=(-2, -1))


def redness(path):
    pixels = np.array(Image.open(path)).astype("int")
    np.testing.assert_array_equal(pixels[..., 1], pixels[..., 2])
    return pixels[..., 0] - pixels[..., 1]


def distances(a, b):
    a, b = a.astype("float64"), b.astype("float64")
    return np.sqrt(((a[:, None] - b) ** 2).sum(axis=-1))


@pytest.mark.backend_independent
def test_the_coreset_is_greedy():
    """Every feature is, when it is chosen, farthest from those before."""
    features = RNG.normal(3, 1, (200, 20)).astype("float32")
    chosen = anomaly_detection.coreset(features, 0.25)
    assert len(set(chosen)) == 50
    apart = distances(features, features)
    for count in range(1, 50):
        nearest = apart[:, chosen[:count]].min(axis=1)
        assert nearest[chosen[count]] >= nearest.max() * (1 - 1e-5)
    everything = anomaly_detection.coreset(features, 1.0)
    assert sorted(everything) == list(range(200))
    assert len(anomaly_detection.coreset(features, 1e-4)) == 1


@pytest.mark.backend_independent
def test_the_coreset_is_near_the_best():
    """The greedy k-center is at most twice as far as the best."""
    features = RNG.normal(size=(14, 3)).astype("float32")
    apart = distances(features, features)
    best = min(
        apart[:, list(rows)].min(axis=1).max()
        for rows in itertools.combinations(range(14), 4)
    )
    chosen = anomaly_detection.coreset(features, 4 / 14)
    assert best <= apart[:, chosen].min(axis=1).max() <= 2 * best


@pytest.mark.backend_independent
def test_the_projection_keeps_the_coreset_near():
    centers = RNG.normal(size=(10, 300))
    features = np.repeat(centers, 20, axis=0) + RNG.normal(0, 0.01, (200, 300))
    chosen = anomaly_detection.coreset(features.astype("float32"), 0.05)
    assert sorted(chosen // 20) == list(range(10))  # one of each cluster


@pytest.mark.backend_independent
def test_scores_are_distances_to_the_nearest():
    bank = RNG.normal(size=(9, 5)).astype("float32")
    batches = [RNG.normal(size=(n, 3, 4, 5)).astype("float32") for n in (2, 1)]
    found = anomaly_detection.score(bank, batches)
    patches = np.concatenate(batches).reshape(-1, 5)
    expected = distances(patches, bank).min(axis=1).reshape(3, 3, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.backend_independent
def test_what_it_refuses(tmp_path, network, capsys):
    root = photographs.write(tmp_path / "photos", train=1, test=1)
    good = ["--good", str(root / "train")]
    images = ["--images", str(root / "test")]
    with pytest.raises(SystemExit, match="`--good` should.*nowhere"):
        anomaly_detection.main([*network, "--good", "nowhere", *images])
    with pytest.raises(SystemExit, match="some of P0, P1, P2.*P0 P7"):
        options = [*good, *images, "--levels", "P0", "P7"]
        anomaly_detection.main([*network, *options])
    with pytest.raises(SystemExit):
        anomaly_detection.main([*network, *good, *images, "--share", "0"])
    assert "above 0 and at most 1" in capsys.readouterr().err
