"""Reads, changes, copies and runs the graphs of functional models.

Internal: users import `keras_resfam.feature_extractor`, `flatten_model`,
`fold_batch_norm`, `to_stock_layers` and `with_temperature`. Other packages of
keras_resfam import the functions of `graphs.graph` from here.
"""

from keras_resfam.graphs.graph import (
    Graph,
    Step,
    alias,
    channel_axis,
    count_kernels,
    flat,
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
    run_on_inputs,
    same,
    shell,
)
from keras_resfam.graphs.moments import data_config, image_moments
from keras_resfam.graphs.softmax import is_softmax, softmax_step

__all__ = [
    "Graph",
    "Step",
    "alias",
    "channel_axis",
    "count_kernels",
    "data_config",
    "flat",
    "fresh_input",
    "image_moments",
    "in_mode",
    "is_a",
    "is_addition",
    "is_graph",
    "is_softmax",
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
    "run_on_inputs",
    "same",
    "shell",
    "softmax_step",
]
