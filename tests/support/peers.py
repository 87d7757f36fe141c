"""timm and torchvision, whose networks ours should equal.

PyPI's torchvision is built for CUDA. Beside a torch for CPUs some operators
are missing that no classifier needs: to declare them is enough.
"""

import functools

import pytest
import torch


@functools.cache
def _declare_operators():
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(
            f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    return library  # which has to stay alive


def peer(name):
    """The module of a name, or the test is skipped, by the name."""
    if not hasattr(torch.ops.torchvision, "nms"):
        _declare_operators()
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
