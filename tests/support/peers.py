"""timm and torchvision, whose networks ours should equal."""

import contextlib

import pytest
import torch

from training.benchmarks.torch_networks import import_torchvision


def peer(name):
    """The module of a name, or the test is skipped, by the name."""
    with contextlib.suppress(ImportError):
        import_torchvision()
    return pytest.importorskip(name, exc_type=ImportError)


def randomized(network, seed=0):
    """Gives a network of PyTorch other statistics, scales and biases."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1:
            noise = torch.randn(tensor.shape, generator=draw) / 4
            positive = "var" in name or "weight" in name
            tensor.copy_(noise.exp() if positive else noise)
    return network.eval()
