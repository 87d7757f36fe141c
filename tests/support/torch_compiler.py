"""For tests in which PyTorch compiles, which wants g++, and of its programs."""

import shutil

import keras
import pytest

TORCH = keras.backend.backend() == "torch"
REASON = "PyTorch compiles, by g++"
COMPILER = shutil.which("g++") is not None

# Of what is compiled with torch only, and of what runs elsewhere as it is.
torch_only = pytest.mark.skipif(not (TORCH and COMPILER), reason=REASON)
with_compiler = pytest.mark.skipif(TORCH and not COMPILER, reason=REASON)


def uncompiled_graphs(monkeypatch):
    """Has torch.compile leave programs as they are, and lists their graphs."""
    import torch

    graphs = []

    def keep(program, **options):
        graphs.append(program.__self__.graph)
        return program

    monkeypatch.setattr(torch, "compile", keep)
    return graphs
