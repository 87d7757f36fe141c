"""Models whose calls PyTorch compiles.

Internal, with one door: `compiled`. What it comes to rests on names of
PyTorch's graphs, and stays in here. `program` records a call, `passes` change
the recorded graph, `norm_by_image` and `winograd` put faster operations into
it, and `compiler` is the one way from there to `torch.compile`.
"""

from keras_resfam.compiling.model import Compiled, compiled

__all__ = ["Compiled", "compiled"]
