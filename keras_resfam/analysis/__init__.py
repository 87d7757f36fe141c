"""Instruments to look inside any functional residual Keras model.

They are those of Veit, Wilber & Belongie 2016, "Residual Networks Behave Like
Ensembles of Relatively Shallow Networks" (https://arxiv.org/abs/1605.06431),
and a measurement of Xie et al. 2017 (https://arxiv.org/abs/1703.01827).

- `finding` and `plain` cut a graph into a `Chain` of blocks (`chain`), with the
  help of `ancestry`, `sums` and `names`.
- `surgery` changes the layout of the blocks, and `execution` runs a layout.
- `lesions`, `paths`, `path_gradients` and `error_moments` measure networks,
  with what `data` and `records` read and write. `dropping` trains them.
- `pictures` draws the results beside the authors' numbers (`published`).
"""

from keras_resfam.analysis import pictures
from keras_resfam.analysis.chain import Block
from keras_resfam.analysis.dropping import drop_blocks, linear_survival
from keras_resfam.analysis.error_moments import error_moments
from keras_resfam.analysis.finding import residual_blocks
from keras_resfam.analysis.lesions import lesion_study
from keras_resfam.analysis.path_gradients import (
    effective_lengths,
    gradient_by_path_length,
)
from keras_resfam.analysis.paths import path_lengths
from keras_resfam.analysis.plain import plain_layers
from keras_resfam.analysis.records import read_records
from keras_resfam.analysis.surgery import (
    delete_blocks,
    duplicate_blocks,
    permute_blocks,
)

__all__ = [
    "Block",
    "delete_blocks",
    "drop_blocks",
    "duplicate_blocks",
    "effective_lengths",
    "error_moments",
    "gradient_by_path_length",
    "lesion_study",
    "linear_survival",
    "path_lengths",
    "permute_blocks",
    "pictures",
    "plain_layers",
    "read_records",
    "residual_blocks",
]
