"""Instruments to look inside any functional residual Keras model.

Those of Veit, Wilber & Belongie 2016, "Residual Networks Behave Like Ensembles
of Relatively Shallow Networks" (https://arxiv.org/abs/1605.06431).
"""

from keras_resfam.analysis import pictures as pictures
from keras_resfam.analysis.blocks import Block as Block
from keras_resfam.analysis.blocks import residual_blocks as residual_blocks
from keras_resfam.analysis.dropping import drop_blocks as drop_blocks
from keras_resfam.analysis.dropping import linear_survival as linear_survival
from keras_resfam.analysis.gradients import (
    effective_lengths as effective_lengths,
)
from keras_resfam.analysis.gradients import (
    gradient_by_path_length as gradient_by_path_length,
)
from keras_resfam.analysis.lesions import lesion_study as lesion_study
from keras_resfam.analysis.paths import path_lengths as path_lengths
from keras_resfam.analysis.plain import plain_layers as plain_layers
from keras_resfam.analysis.records import read_records as read_records
from keras_resfam.analysis.surgery import delete_blocks as delete_blocks
from keras_resfam.analysis.surgery import duplicate_blocks as duplicate_blocks
from keras_resfam.analysis.surgery import permute_blocks as permute_blocks
