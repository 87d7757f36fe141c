"""Reads, changes, copies and runs the graphs of functional models.

Internal: users import `keras_resfam.feature_extractor`, `flatten_model`,
`fold_batch_norm`, `to_stock_layers` and `with_temperature`. Other packages of
keras_resfam import the functions of `graphs.graph` from here.
"""

from keras_resfam.graphs.graph import (
    Graph,
    Step,
    alias,
    count_kernels,
    fresh_input,
    in_mode,
    is_a,
    is_addition,
    is_graph,
    layers_within,
    needed,
    only_for,
    part,
    read,
    read_single,
    readers,
    reads,
    renamed,
    run,
    run_anew,
    same,
    shell,
)
from keras_resfam.graphs.moments import image_moments

__all__ = [
    "Graph",
    "Step",
    "alias",
    "count_kernels",
    "fresh_input",
    "image_moments",
    "in_mode",
    "is_a",
    "is_addition",
    "is_graph",
    "layers_within",
    "needed",
    "only_for",
    "part",
    "read",
    "read_single",
    "readers",
    "reads",
    "renamed",
    "run",
    "run_anew",
    "same",
    "shell",
]
