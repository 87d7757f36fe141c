"""Models whose calls PyTorch compiles.

Internal, with one door: `compiled`. What it comes to rests on names of
PyTorch's graphs, and stays in here. `program` records a call, `passes` change
the recorded graph, and `norm_by_image` and `winograd` put faster operations
into it.
"""

from keras_resfam.compiling.model import Compiled, compiled

__all__ = ["Compiled", "compiled"]
