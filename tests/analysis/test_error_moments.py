"""The error's second moments, by NumPy in float64 and by mean field theory."""

import math

import keras
import numpy as np
import pytest

import keras_resfam
from families import images
from keras_resfam.analysis import error_moments
from keras_resfam.layers import GradientModulation


def pixelwise(activation):
    """1 x 1 convolutions, BN and ReLU: a matrix product for each pixel."""
    keras.utils.set_random_seed(0)
    image = x = keras.Input((2, 3, 4))
    link = None
    for k, filters in enumerate((5, 6, 5)):
        x = keras.layers.Conv2D(filters, 1, name=f"conv{k}")(x)
        x = keras.layers.BatchNormalization(epsilon=1e-3)(x)
        x = keras.layers.ReLU()(x)
        x, link = GradientModulation(1.0)(x, link)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3, activation)(x))


def reference(model, x, y):
    """Forward and backward in float64; moments at the convolutions."""
    weights = [w.astype("float64") for w in model.get_weights()]
    kept, a = [], x.reshape(-1, 4).astype("float64")
    for k in range(3):
        w, b, gamma, beta = weights[6 * k : 6 * k + 4]
        w = w[0, 0]
        h = a @ w + b
        std = np.sqrt(h.var(0) + 1e-3)
        z = (h - h.mean(0)) / std
        out = gamma * z + beta
        kept.append((w, gamma, z, std, out > 0))
        a = np.maximum(out, 0)
    w, b = weights[-2:]
    logits = a.reshape(len(x), 6, -1).mean(1) @ w + b
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (p - np.eye(3)[y]) / len(x) @ w.T
    error = np.repeat(error / 6, 6, axis=0)
    moments = []
    for w, gamma, z, std, on in reversed(kept):
        g = error * on * gamma
        g = (g - g.mean(0) - z * (g * z).mean(0)) / std
        moments.append(np.mean(g**2))
        error = g @ w.T
    return moments[::-1]


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_moments_are_those_of_numpy(activation):
    model = pixelwise(activation)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2, 3, 4)), rng.integers(0, 3, 7)
    before = model.get_weights()
    found = error_moments(model, x.astype("float32"), y)
    assert list(found) == ["conv0", "conv1", "conv2"]
    np.testing.assert_allclose(
        list(found.values()), reference(model, x, y), rtol=1e-4
    )
    # Modulation is another network's error, and one-hot labels are labels.
    assert error_moments(model, x, y, modulated=True) != found
    one_hot = error_moments(model, x.astype("float32"), np.eye(3)[y])
    assert one_hot == pytest.approx(found)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def growth(shift):
    """By what BN and ReLU multiply an error's second moment, in theory.

    ReLU lets it pass where z + shift > 0, and BN divides it by the variance of
    what lies below, which is max(z + shift, 0), of a normal z.
    """
    share = (1 + math.erf(shift / math.sqrt(2))) / 2
    density = math.exp(-(shift**2) / 2) / math.sqrt(2 * math.pi)
    mean = shift * share + density
    square = (1 + shift**2) * share + shift * density
    return share / (square - mean**2)


@pytest.mark.parametrize(
    "shift, told", [(0, math.pi / (math.pi - 1)), (0, 1.467), (1, 1.12)]
)
def test_growth_in_a_wide_layer(shift, told):
    """What the docstrings say, by a layer of 400 channels in float64."""
    rng = np.random.default_rng(0)
    below = np.maximum(rng.normal(size=(4000, 400)) + shift, 0)
    w, _ = np.linalg.qr(rng.normal(size=(400, 400)))
    h = below @ w
    z = (h - h.mean(0)) / h.std(0)
    error = rng.normal(size=h.shape)
    g = error * (z + shift > 0)
    g = (g - g.mean(0) - z * (g * z).mean(0)) / h.std(0)
    found = np.mean((g @ w.T) ** 2) / np.mean(error**2)
    assert found == pytest.approx(growth(shift), rel=0.01)
    assert found == pytest.approx(told, rel=0.01)


def plain_net(**arguments):
    keras.utils.set_random_seed(0)
    model = keras_resfam.OrthoPlainNet(20, input_shape=(16, 16, 3), **arguments)
    return model, images(32, (16, 16, 3)), np.arange(32) % 10


def ratios(moments):
    moments = np.array(list(moments.values()))
    return moments[:-1] / moments[1:]  # downwards


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_growth_in_a_fresh_plain_net(shift):
    found = ratios(error_moments(*plain_net(shift=shift, modulation=False)))
    assert len(found) == 18
    assert np.median(found) == pytest.approx(growth(shift), rel=0.12)


def test_modulation_at_convolutions_keeps_the_error_there():
    network = plain_net(modulation=1.1, modulation_at="conv")
    found = ratios(error_moments(*network, modulated=True))
    assert 1 / 1.11 < found.min() and found.max() < 1.11
    # At the outputs of ReLU it would not have.
    network = plain_net(modulation=1.1, modulation_at="relu")
    found = ratios(error_moments(*network, modulated=True))
    assert found.min() < 1 / 1.11


def test_a_model_without_convolutions():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="convolutions. Received: model="):
        error_moments(model, np.ones((2, 3)), [0, 1])
