"""Calibration and AUROC, against scikit-learn and SciPy."""

import keras
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score

from training.images import corruptions
from training.networks import accuracy, reliability, trust

RNG = np.random.default_rng(0)


def classified(count=2000, classes=5, temperature=2.0):
    """Logits, and labels that are drawn at a temperature."""
    logits = RNG.normal(size=(count, classes)) * 4
    chances = softmax(logits / temperature, axis=1)
    labels = (RNG.random((count, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return logits, labels


def nll(logits, labels):
    chances = softmax(logits, axis=1)
    return log_loss(labels, chances, labels=range(logits.shape[1]))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_temperature_is_the_likeliest(temperature):
    logits, labels = classified(temperature=temperature)
    found = trust.fit_temperature(logits, labels)
    best = minimize_scalar(
        lambda t: nll(logits / t, labels),
        bounds=(0.1, 10),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found == pytest.approx(best.x, rel=1e-5)
    assert found == pytest.approx(temperature, rel=0.15)


@pytest.mark.parametrize("right", [True, False])
def test_a_likelihood_without_a_maximum(right):
    logits = np.eye(4) * (3 if right else -3)
    with pytest.raises(ValueError, match="should be fitted to .*Received: 4"):
        trust.fit_temperature(logits, np.arange(4))


def test_it_is_measured_on_other_images_than_it_is_fitted_on():
    logits, labels = classified()
    found = trust.calibration(logits, labels, "test")
    temperature = trust.fit_temperature(logits[::2], labels[::2])
    assert found["temperature"] == temperature
    assert found["fitted_on"] == {"split": "test[::2]", "examples": 1000}
    assert found["measured_on"] == {"split": "test[1::2]", "examples": 1000}
    others = logits[1::2], labels[1::2]
    for key, t in (("before", 1), ("after", temperature)):
        expected = nll(others[0] / t, others[1])
        assert found[key]["nll"] == pytest.approx(expected, rel=1e-9)
    errors = [found[k]["calibration_error"] for k in ("before", "after")]
    assert errors[1] < errors[0] / 2

    held_out = classified(temperature=3.0)
    found = trust.calibration(logits, labels, "test", (*held_out, "train[:9]"))
    assert found["temperature"] == trust.fit_temperature(*held_out)
    assert found["fitted_on"]["split"] == "train[:9]"
    assert found["measured_on"] == {"split": "test", "examples": 2000}
    assert found["before"]["nll"] == pytest.approx(nll(logits, labels))


def test_reliability_is_scikit_learns():
    logits, labels = classified()
    chances = softmax(logits, axis=1)
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    true, told = calibration_curve(right, confidence, n_bins=accuracy.BINS)
    rows = trust.certainty(logits, labels)["reliability"]
    assert rows == accuracy.reliability(confidence, right)
    for rows_of, expected in (("accuracy", true), ("confidence", told)):
        found = [row[rows_of] for row in rows]
        np.testing.assert_allclose(found, 100 * expected, rtol=1e-9)
    assert sum(row["examples"] for row in rows) == 2000


@pytest.mark.parametrize("decimals", [1, 9])
def test_auroc_is_scikit_learns(decimals):
    """With ties and without."""
    high = RNG.normal(1, 1, 300).round(decimals)
    low = RNG.normal(0, 1, 200).round(decimals)
    expected = roc_auc_score(
        np.repeat([1, 0], [300, 200]), np.concatenate((high, low))
    )
    assert trust.auroc(high, low) == pytest.approx(expected, rel=1e-12)


def test_other_images_are_told_by_probability_and_energy():
    inside, outside = classified()[0], classified(count=500)[0] / 2
    found = trust.out_of_distribution(inside, outside)
    both = np.concatenate((inside, outside))
    own = np.repeat([1, 0], [2000, 500])
    for key, scores in (
        ("auroc_probability", softmax(both, axis=1).max(axis=1)),
        ("auroc_energy", logsumexp(both, axis=1)),
    ):
        expected = 100 * roc_auc_score(own, scores)
        assert found[key] == pytest.approx(expected, rel=1e-6)
        assert found[key] > 60
    assert found["examples"] == 500


def test_errors_on_corrupted_images():
    images = RNG.integers(0, 256, (30, 32, 32, 3), dtype="uint8")
    inputs = keras.Input((32, 32, 3))
    pixels = keras.layers.Rescaling(1 / 255, -0.5)(inputs)
    outputs = keras.layers.Dense(4)(keras.layers.Flatten()(pixels))
    model = keras.Model(inputs, outputs)

    def answers(images):
        kernel, bias = (w.astype("float64") for w in model.get_weights())
        flat = images.reshape(len(images), -1) / 255 - 0.5
        return np.argmax(flat @ kernel + bias, axis=1)

    labels = answers(images)
    found = trust.under_corruptions(model, images, labels, seed=3)
    errors = {
        name: [
            100
            * np.mean(
                answers(corruptions.corrupt(images, name, s, 3)) != labels
            )
            for s in (1, 2, 3, 4, 5)
        ]
        for name in corruptions.CORRUPTIONS
    }
    assert found.pop("errors") == {
        k: pytest.approx(v) for k, v in errors.items()
    }
    mean = np.mean(list(errors.values()))
    assert found == {
        "examples": 30,
        "seed": 3,
        "mean_error": pytest.approx(mean),
    }
    assert 0 < mean < 100


def test_the_diagram_is_the_same_file_each_time(tmp_path):
    measured = {"$net": trust.certainty(*classified())}
    for name in ("a.svg", "b.svg"):
        reliability.draw(tmp_path / name, measured, "a $ b")
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert "<svg" in drawn
