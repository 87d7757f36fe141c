"""Deep image classifiers from four papers, for Keras 3.

The builders of networks are functions that return a functional `keras.Model`.
Those with a number in their names, such as `ResNet50`, are for ImageNet, except
for `ResNet18CIFAR`. The others are for small images.
"""

from keras_resfam import analysis, initializers, layers, regularizers
from keras_resfam.compiling import compiled, predictor
from keras_resfam.datasets import decode_predictions
from keras_resfam.graphs.counting import count_multiply_adds
from keras_resfam.graphs.exporting import export
from keras_resfam.graphs.features import feature_extractor, flatten_model
from keras_resfam.graphs.folding import fold_batch_norm
from keras_resfam.graphs.stock import to_stock_layers
from keras_resfam.graphs.temperature import with_temperature
from keras_resfam.models.dmrnet import DILNet, DMRNet, DMRNet44, DMRNet50
from keras_resfam.models.ortho_plain_net import (
    OrthoPlainNet,
    OrthoPlainNet34,
    OrthoPlainNet101,
)
from keras_resfam.models.resnet import (
    ResNet,
    ResNet18,
    ResNet18CIFAR,
    ResNet34,
    ResNet50,
    ResNet98,
    ResNet101,
    ResNet152,
)
from keras_resfam.models.wide_resnet import (
    WideResNet,
    WideResNet18,
    WideResNet34,
    WideResNet50_2,
    WideResNet101_2,
)
from keras_resfam.photographs import (
    image_transform,
    load_images,
    predict_images,
)
from keras_resfam.pretrained.class_names import class_names
from keras_resfam.pretrained.dialects import to_torch_state_dict
from keras_resfam.pretrained.errors import HubError
from keras_resfam.pretrained.registry import list_weights

__version__ = "0.2.0"

__all__ = [
    "DILNet",
    "DMRNet",
    "DMRNet44",
    "DMRNet50",
    "HubError",
    "OrthoPlainNet",
    "OrthoPlainNet34",
    "OrthoPlainNet101",
    "ResNet",
    "ResNet18",
    "ResNet18CIFAR",
    "ResNet34",
    "ResNet50",
    "ResNet98",
    "ResNet101",
    "ResNet152",
    "WideResNet",
    "WideResNet18",
    "WideResNet34",
    "WideResNet50_2",
    "WideResNet101_2",
    "analysis",
    "class_names",
    "compiled",
    "count_multiply_adds",
    "decode_predictions",
    "export",
    "feature_extractor",
    "flatten_model",
    "fold_batch_norm",
    "image_transform",
    "initializers",
    "layers",
    "list_weights",
    "load_images",
    "predict_images",
    "predictor",
    "regularizers",
    "to_stock_layers",
    "to_torch_state_dict",
    "with_temperature",
]
