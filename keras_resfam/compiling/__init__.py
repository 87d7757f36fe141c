"""Compiles models with PyTorch.

Internal, except for `compiled` and `predictor`. The modules depend on names in
PyTorch's graphs, which may change. `program` records a call of a model as a
graph, `passes` change the graph, `norm_by_image` and `winograd` insert faster
operations into it, and `compiler` calls `torch.compile`.
"""

from keras_resfam.compiling.model import Compiled, compiled
from keras_resfam.compiling.predictor import predictor

__all__ = ["Compiled", "compiled", "predictor"]
