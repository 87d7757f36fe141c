"""Winograd's convolution against PyTorch's, and where it takes its place."""

import fractions

import keras
import numpy as np
import pytest

import keras_resfam
from torch_compiler import TORCH, torch_only

if not TORCH:
    pytest.skip("of PyTorch's compiler", allow_module_level=True)

import torch

from keras_resfam.compiling import winograd


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(winograd, "_compiled", lambda function: function)


def normal(*shape):
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


def test_combinations_come_to_a_correlation():
    """Exactly, of each input and each weight: both sides are bilinear."""
    of_inputs, of_kernels, of_outputs = (
        np.vectorize(lambda v: fractions.Fraction(v).limit_denominator(24))(
            np.array(matrix, object)
        )
        for matrix in (
            winograd.OF_INPUTS,
            winograd.OF_KERNELS,
            winograd.OF_OUTPUTS,
        )
    )
    for at in range(6):
        for tap in range(3):
            products = of_inputs[:, at] * of_kernels[:, tap]
            expected = [int(at == output + tap) for output in range(4)]
            assert (of_outputs @ products).tolist() == expected


# Of 36 products for each 16 pixels of three channels, 648 are of one image.
@pytest.mark.parametrize("part, images", [(647, 1), (1296, 2), (2**22, 5)])
@pytest.mark.parametrize("last", [True, False])
def test_convolves_with_gradients(part, images, last, uncompiled, monkeypatch):
    monkeypatch.setattr(winograd, "PART", part)
    x, kernel = normal(5, 3, 8, 12), normal(2, 3, 3, 3)
    if last:
        x, kernel = (
            v.contiguous(memory_format=torch.channels_last) for v in (x, kernel)
        )
    x.requires_grad_()
    kernel.requires_grad_()
    outputs = winograd.convolution(x, kernel)
    expected = torch.nn.functional.conv2d(x, kernel, padding=1)
    torch.testing.assert_close(outputs, expected)
    first, _ = next(winograd._parts(x, outputs))
    assert len(first) == images
    error = normal(*expected.shape)
    found, theirs = (
        torch.autograd.grad(y, (x, kernel), error) for y in (outputs, expected)
    )
    torch.testing.assert_close(found, theirs)


def test_operations_are_what_pytorch_takes_them_for(uncompiled):
    x, kernel, error = (
        normal(2, 3, 8, 4),
        normal(5, 3, 3, 3),
        normal(2, 5, 8, 4),
    )
    x.requires_grad_()
    kernel.requires_grad_()
    torch.library.opcheck(winograd.convolution, (x, kernel))
    torch.library.opcheck(winograd.gradient, (x.detach(), error))


def test_rounds_little(uncompiled):
    x, kernel = normal(2, 64, 32, 32).relu(), normal(64, 64, 3, 3) / 24
    exact = torch.nn.functional.conv2d(x, kernel, padding=1)
    rounded = winograd.convolution(x.float(), kernel.float())
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 0 < error < 2e-5


PAYS = {
    "images": (2, 64, 32, 32),
    "kernel": (64, 64, 3, 3),
    "dtype": torch.float32,
    "processor": "AVX2",
}


@pytest.mark.parametrize(
    "changes, faster",
    [
        ({}, True),
        ({"images": (1, 64, 32, 32)}, False),
        ({"images": (32, 64, 8, 8)}, True),
        ({"images": (31, 64, 8, 8)}, False),
        ({"images": (2, 64, 34, 32)}, False),
        ({"images": (2, 64, 32, 34)}, False),
        ({"images": (2, 32, 32, 32), "kernel": (64, 32, 3, 3)}, False),
        ({"kernel": (32, 64, 3, 3)}, False),
        ({"kernel": (640, 64, 3, 3)}, True),
        ({"kernel": (64, 64, 1, 1)}, False),
        ({"kernel": (64, 64, 5, 5)}, False),
        ({"dtype": torch.bfloat16}, False),
        ({"dtype": torch.float64}, False),
        ({"processor": "AVX512"}, False),
    ],
)
def test_is_faster(changes, faster, monkeypatch):
    given = {**PAYS, **changes}
    monkeypatch.setattr(
        torch.backends.cpu, "get_cpu_capability", lambda: given["processor"]
    )
    x, kernel = (
        torch.empty(given[name], dtype=given["dtype"])
        for name in ("images", "kernel")
    )
    assert winograd.is_faster(x, kernel) is faster


@pytest.fixture
def everywhere(monkeypatch):
    """Has it pay in networks of few channels, and counts the calls."""
    monkeypatch.setattr(
        torch.backends.cpu, "get_cpu_capability", lambda: "AVX2"
    )
    monkeypatch.setattr(winograd, "_CHANNELS", 8)
    monkeypatch.setattr(winograd, "_TILES", 1)
    calls = []
    parts = winograd._parts

    def counted(x, outputs):
        calls.append(x.shape)
        return parts(x, outputs)

    monkeypatch.setattr(winograd, "_parts", counted)
    return calls


def small():
    """A network with three convolutions that fit, one of them with a bias."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    convolution = keras_resfam.layers.Conv2D
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            convolution(8, 3, padding="same", use_bias=False),  # 3 channels
            layers.BatchNormalization(),
            layers.ReLU(),
            convolution(12, 3, padding="same", bias_initializer="normal"),
            convolution(12, 3, padding="valid", zeros=1, use_bias=False),
            layers.ReLU(),
            layers.Conv2D(8, 3, padding="same"),
            convolution(8, 3, padding="valid"),  # leaves 6 pixels
            convolution(8, 1),
            convolution(8, 3, padding="same", strides=2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


@torch_only
def test_compiled_networks_convolve_by_it(everywhere):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 8, 8, 3)).astype("float32")
    y = rng.integers(0, 10, 16)
    plain, own = small(), small()
    results = []
    for model, runner in (plain, plain), (own, keras_resfam.compiled(own)):
        runner.compile(
            keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy"
        )
        losses = [runner.train_on_batch(x, y) for _ in range(2)]
        results.append([losses, runner.predict(x, verbose=0)])
        results[-1] += model.get_weights()
        if model is plain:
            assert not everywhere
    # Forward, backward to the images and to the kernel, in each of two steps,
    # and the forward pass of the prediction.
    assert len(everywhere) == 3 * (3 * 2 + 1)
    for ours, theirs in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    before = small().get_weights()
    assert all(
        (a != b).any() for a, b in zip(before, results[1][2:], strict=True)
    )
