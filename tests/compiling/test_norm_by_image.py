"""Batch normalization image by image against PyTorch's, and where it is."""

import keras
import numpy as np
import pytest

import keras_resfam
from torch_compiler import TORCH, torch_only, uncompiled_graphs

if not TORCH:
    pytest.skip("of PyTorch's compiler", allow_module_level=True)

import torch

from keras_resfam.compiling import norm_by_image

aten = torch.ops.aten


def theirs(x, gamma, beta, momentum=1.0):
    mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
    outputs = torch.nn.functional.batch_norm(
        x, mean, variance, gamma, beta, True, momentum, 1e-3
    )
    return outputs, mean, variance


def ours(x, gamma, beta):
    return norm_by_image.normalize(x, gamma, beta, 1e-3)


def normal(*shape):
    # Far from zero, as where the variance is what little is left.
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(50.0, 2.0, size=shape))


def with_gradients(function, *inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    outputs, *moments = function(*inputs)
    weights = torch.cos(torch.arange(outputs.numel())).view(outputs.shape)
    weights = weights.bfloat16()  # as a gradient exact in all types
    (outputs * weights).sum().backward()
    assert not any(moment.requires_grad for moment in moments)
    return outputs.detach(), *moments, *(x.grad for x in inputs)


@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (1, 3, 4, 5), (6, 3, 1, 1)])
def test_normalizes_with_gradients(shape):
    inputs = normal(*shape), normal(3), normal(3)
    expected = with_gradients(theirs, *inputs)
    found = with_gradients(ours, *inputs)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_computes_in_the_type_of_the_weights():
    half, gamma, beta = normal(6, 3, 4, 5).bfloat16(), normal(3), normal(3)
    inputs = half, gamma.float(), beta.float()
    found = with_gradients(ours, *inputs)
    half, one = torch.bfloat16, torch.float32
    assert [x.dtype for x in found] == [half, one, one, half, one, one]
    exact = with_gradients(theirs, *(x.double() for x in inputs))
    for a, b in zip(found, exact, strict=True):
        tolerance = 1e-2 if a.dtype == half else 1e-5
        scale = float(b.abs().max())
        np.testing.assert_allclose(
            a.double(), b, rtol=tolerance, atol=tolerance * scale
        )


def calls(graph, target):
    return len(graph.find_nodes(op="call_function", target=target))


@torch_only
@pytest.mark.parametrize("training, frozen", [(True, 0), (True, 1), (False, 0)])
def test_programs_that_train_normalize_by_it(training, frozen, monkeypatch):
    graphs = uncompiled_graphs(monkeypatch)
    model = keras_resfam.DMRNet(depth=8, input_shape=(8, 8, 3))
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in norms[:frozen]:
        layer.trainable = False
    x = np.zeros((2, 8, 8, 3), "float32")
    keras_resfam.compiled(model)(x, training=training)
    (graph,) = graphs
    by_it = len(norms) - frozen if training else 0
    assert calls(graph, norm_by_image.normalize) == by_it
    assert calls(graph, aten.batch_norm.default) == len(norms) - by_it
    # What replaces convolutions asks what shape they take.
    for node in graph.find_nodes(
        op="call_function", target=norm_by_image.normalize
    ):
        shapes = [result.meta["val"].shape for result in node.users]
        channels = shapes[0][1:2]
        assert shapes == [node.args[0].meta["val"].shape, channels, channels]


def test_averages_of_others_are_left():
    """A momentum, or averages that a call takes and updates."""

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(3, momentum=1.0)

        def forward(self, x, gamma, beta):
            return self.norm(x), theirs(x, gamma, beta, momentum=0.5)

    inputs = normal(6, 3, 4, 5).float(), normal(3).float(), normal(3).float()
    module = torch.export.export(Own(), inputs, strict=False).module()
    assert calls(module.graph, aten.batch_norm.default) == 2
    norm_by_image.put_in(module.graph)
    assert calls(module.graph, aten.batch_norm.default) == 2
