# Written by tests/support/write_stub.py from the builders' signatures.
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import keras

from keras_resfam import analysis as analysis
from keras_resfam import initializers as initializers
from keras_resfam import layers as layers
from keras_resfam import regularizers as regularizers
from keras_resfam.compiling import compiled as compiled
from keras_resfam.compiling import predictor as predictor
from keras_resfam.datasets import decode_predictions as decode_predictions
from keras_resfam.graphs.counting import (
    count_multiply_adds as count_multiply_adds,
)
from keras_resfam.graphs.exporting import export as export
from keras_resfam.graphs.features import feature_extractor as feature_extractor
from keras_resfam.graphs.features import flatten_model as flatten_model
from keras_resfam.graphs.folding import fold_batch_norm as fold_batch_norm
from keras_resfam.graphs.stock import to_stock_layers as to_stock_layers
from keras_resfam.graphs.temperature import with_temperature as with_temperature
from keras_resfam.photographs import image_transform as image_transform
from keras_resfam.photographs import load_images as load_images
from keras_resfam.photographs import predict_images as predict_images
from keras_resfam.pretrained.class_names import class_names as class_names
from keras_resfam.pretrained.dialects import (
    to_torch_state_dict as to_torch_state_dict,
)
from keras_resfam.pretrained.errors import HubError as HubError
from keras_resfam.pretrained.registry import list_weights as list_weights

__version__: str
__all__: list[str]

def DILNet(
    depth: int = 56,
    width: float = 1,
    branches: int = 2,
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def DMRNet(
    depth: int = 56,
    width: float = 1,
    branches: int = 2,
    mapping: str = "merge_and_run",
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def DMRNet44(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def DMRNet50(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def OrthoPlainNet(
    depth: int = 44,
    width: float = 1,
    orthonormality: float = 0.0001,
    modulation: bool | float = True,
    modulation_at: str = "relu",
    regularizer: str = "orthonormal",
    initializer: str | None = None,
    shift: float = 0.0,
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def OrthoPlainNet101(
    orthonormality: float = 0.0001,
    modulation: bool | float = True,
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def OrthoPlainNet34(
    orthonormality: float = 0.0001,
    modulation: bool | float = True,
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def ResNet(
    depth: int = 110,
    width: float = 1,
    preactivation: bool = False,
    shortcut: str = "identity",
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def ResNet101(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def ResNet152(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def ResNet18(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def ResNet18CIFAR(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def ResNet34(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def ResNet50(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def ResNet98(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def WideResNet(
    depth: int = 28,
    width: float = 10,
    block: Sequence[int] = (3, 3),
    blocks: int | None = None,
    dropout: float = 0.0,
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def WideResNet101_2(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def WideResNet18(
    width: float = 1,
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def WideResNet34(
    width: float = 1,
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
def WideResNet50_2(
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
) -> keras.Model: ...
