"""Multiply-adds against the loops of each kind of layer, and the papers."""

import keras
import pytest
from keras import layers

import keras_resfam
from keras_resfam import count_multiply_adds

# Output positions by numbers of the kernel, of images of 9 x 8 x 4.
BY_HAND = [
    (layers.Conv2D(6, 3), 7 * 6 * 3 * 3 * 4 * 6),
    (layers.Conv2D(6, 3, padding="same"), 9 * 8 * 3 * 3 * 4 * 6),
    (layers.Conv2D(6, (3, 2), strides=2), 4 * 4 * 3 * 2 * 4 * 6),
    (layers.Conv2D(6, 3, groups=2), 7 * 6 * 3 * 3 * 2 * 6),
    (layers.Conv2D(6, 3, dilation_rate=2), 5 * 4 * 3 * 3 * 4 * 6),
    (keras_resfam.layers.Conv2D(6, 3, 2, zeros=1), 5 * 4 * 3 * 3 * 4 * 6),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), 7 * 6 * 3 * 3 * 4 * 2),
    (layers.SeparableConv2D(6, 3), 7 * 6 * (3 * 3 * 4 + 4 * 6)),
    (layers.Conv2DTranspose(6, 3, strides=2), 9 * 8 * 3 * 3 * 4 * 6),
    (layers.Dense(6), 9 * 8 * 4 * 6),
    (layers.BatchNormalization(), 0),
    (layers.PReLU(), 0),
]


def model_of(layer, shape=(9, 8, 4)):
    return keras.Sequential([keras.Input(shape), layer])


@pytest.mark.parametrize(
    "layer, expected", BY_HAND, ids=[type(x).__name__ for x, _ in BY_HAND]
)
def test_by_hand(layer, expected):
    assert count_multiply_adds(model_of(layer)) == expected


def test_channels_first():
    layer = layers.Conv2DTranspose(6, 3, data_format="channels_first")
    model = model_of(layer, (4, 9, 8))
    assert count_multiply_adds(model) == 9 * 8 * 3 * 3 * 4 * 6


def test_layers_called_twice_and_models_within():
    shared = layers.Conv2D(4, 3, padding="same")
    image = keras.Input((9, 8, 4))
    inner = keras.Model(image, shared(shared(image)))
    model = keras.Sequential([keras.Input((9, 8, 4)), inner, layers.Dense(2)])
    found = count_multiply_adds(model)
    assert found == 9 * 8 * (2 * 3 * 3 * 4 * 4 + 4 * 2)


def wide_16_4():
    """Zagoruyko & Komodakis, by hand: stem, six blocks, classifier."""
    stem = 32 * 32 * 9 * 3 * 16
    first = 32 * 32 * (9 * 16 * 64 + 9 * 64 * 64 + 16 * 64)
    second = 16 * 16 * (9 * 64 * 128 + 9 * 128 * 128 + 64 * 128)
    third = 8 * 8 * (9 * 128 * 256 + 9 * 256 * 256 + 128 * 256)
    others = 3 * 32 * 32 * 2 * 9 * 64 * 64  # alike in each stage
    return stem + first + second + third + others + 256 * 10


def test_wide_16_4():
    model = keras_resfam.WideResNet(16, 4)
    assert count_multiply_adds(model) == wide_16_4() == 392_612_352
    folded = keras_resfam.fold_batch_norm(model)
    stock = keras_resfam.to_stock_layers(model)
    assert count_multiply_adds(folded) == wide_16_4()
    assert count_multiply_adds(stock) == wide_16_4()


@pytest.mark.parametrize(
    "builder, published",
    # GFLOPS in torchvision's table of models, each with its addition.
    [("WideResNet18", 1.81), ("WideResNet50_2", 11.40), ("ResNet101", 7.80)],
)
def test_imagenet_forms(builder, published, quick_initializers):
    model = getattr(keras_resfam, builder)()
    assert round(count_multiply_adds(model) / 1e9, 2) == published


def test_open_sizes():
    model = keras_resfam.DMRNet(depth=8, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="`input_shape`.*Received: input_sha"):
        count_multiply_adds(model)
    fixed = keras_resfam.DMRNet(depth=8, input_shape=(16, 12, 3))
    expected = count_multiply_adds(fixed)
    assert count_multiply_adds(model, (16, 12, 3)) == expected


def test_kernels_of_another_kind_are_refused():
    model = model_of(layers.LSTM(3), (5, 2))
    with pytest.raises(ValueError, match="`model`.*Received: the LSTM 'lstm"):
        count_multiply_adds(model)


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="a counter of PyTorch's"
)
def test_the_profiler_of_pytorch_counts_as_many():
    """Which knows convolutions by their padding in numbers only."""
    import torch
    from torch.profiler import profile

    model = keras_resfam.WideResNet(
        10, 1, input_shape=(16, 16, 3), include_preprocessing=False
    )
    with torch.no_grad(), profile(with_flops=True) as found:
        model(torch.zeros(1, 16, 16, 3), training=False)
    flops = sum(
        event.flops
        for event in found.key_averages()
        if event.key in ("aten::conv2d", "aten::addmm", "aten::mm")
    )
    assert flops == 2 * count_multiply_adds(model)
