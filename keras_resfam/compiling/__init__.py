"""Models whose calls PyTorch compiles.

Internal, with two doors: `compiled` and `predictor`. What they come to rests
on names of PyTorch's graphs, and stays in here. `program` records a call,
`passes` change the recorded graph, `norm_by_image` and `winograd` put faster
operations into it, and `compiler` is the one way from there to
`torch.compile`.
"""

from keras_resfam.compiling.model import Compiled, compiled
from keras_resfam.compiling.predictor import predictor

__all__ = ["Compiled", "compiled", "predictor"]
