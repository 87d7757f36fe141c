import keras
import numpy as np
import pytest

import keras_resfam
from families import images, outputs_of, predict, randomize

SHAPE = (16, 16, 3)


def bn_relu(x, layer):
    """BatchNormalization's inference and a ReLU, in float64."""
    gamma, beta, mean, variance = (
        keras.ops.convert_to_numpy(v).astype("float64") for v in layer.weights
    )
    y = gamma * (x - mean) / np.sqrt(variance + layer.epsilon) + beta
    return np.maximum(y, 0)


def test_the_first_activation_is_shared_where_channels_change():
    model = randomize(keras_resfam.WideResNet(10, 2, input_shape=SHAPE))
    stem, shortcut, y, residual = predict(
        outputs_of(
            model,
            "stem_conv",
            "stage1_block1_shortcut_conv",
            "stage1_block1_add",
            "stage1_block1_conv2",
        ),
        images(shape=SHAPE),
    )
    activated = bn_relu(stem, model.get_layer("stage1_block1_bn1"))
    conv = model.get_layer("stage1_block1_shortcut_conv")
    kernel = keras.ops.convert_to_numpy(conv.kernel).astype("float64")
    assert kernel.shape == (1, 1, 16, 32)
    assert not conv.use_bias
    np.testing.assert_allclose(
        shortcut, activated @ kernel[0, 0], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(y, residual + shortcut, rtol=1e-4, atol=1e-4)


def test_the_shortcut_is_the_bare_input_where_they_do_not():
    model = randomize(keras_resfam.WideResNet(10, 1, input_shape=SHAPE))
    stem, y, residual = predict(
        outputs_of(
            model, "stem_conv", "stage1_block1_add", "stage1_block1_conv2"
        ),
        images(shape=SHAPE),
    )
    assert stem.min() < -0.1  # no ReLU before
    np.testing.assert_allclose(y, residual + stem, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "block",
    [(3, 3), (3, 1, 3), (1, 3, 1), (1, 3), (3, 1), (3, 1, 1), (3,), (3,) * 4],
)
def test_block_types(block):
    model = keras_resfam.WideResNet(10, 1, block=block, input_shape=SHAPE)
    for stage, channels in ((1, 16), (2, 32), (3, 64)):
        for k, size in enumerate(block, start=1):
            conv = model.get_layer(f"stage{stage}_block1_conv{k}")
            assert conv.kernel_size == (size, size)
            assert conv.filters == channels
            strided = stage > 1 and k == 1
            assert conv.strides == ((2, 2) if strided else (1, 1))
    assert model.get_layer("head_relu").output.shape == (None, 4, 4, 64)


def test_blocks_of_table_3():
    model = keras_resfam.WideResNet(40, 1, block=(3, 3, 3), blocks=4)
    adds = [x for x in model.layers if isinstance(x, keras.layers.Add)]
    assert len(adds) == 12


def test_a_list_serves_as_block():
    model = keras_resfam.WideResNet(10, 1, block=[1, 3])
    assert model.get_layer("stage1_block1_conv1").kernel_size == (1, 1)


def test_dropout_is_in_the_branch_before_the_second_convolution():
    model = randomize(
        keras_resfam.WideResNet(10, 2, dropout=0.4, input_shape=SHAPE)
    )
    dropouts = [x for x in model.layers if isinstance(x, keras.layers.Dropout)]
    assert [x.rate for x in dropouts] == [0.4] * 3
    for stage in (1, 2, 3):
        prefix = f"stage{stage}_block1"
        dropout = model.get_layer(f"{prefix}_dropout")
        assert dropout.input is model.get_layer(f"{prefix}_relu2").output
        assert dropout.output is model.get_layer(f"{prefix}_conv2").input
    # In training about 4 of 10 values are zero that were not, and the others
    # larger by 1 / 0.6.
    drop = outputs_of(model, "stage1_block1_relu2", "stage1_block1_dropout")
    x = keras.ops.convert_to_tensor(images(shape=SHAPE), "float32")
    before, after = (
        keras.ops.convert_to_numpy(y) for y in drop(x, training=True)
    )
    alive = before > 0
    kept = after[alive] > 0
    assert 0.55 < kept.mean() < 0.65
    np.testing.assert_allclose(
        after[alive][kept], before[alive][kept] / 0.6, rtol=1e-5
    )


def test_the_stem_keeps_16_channels_and_width_may_be_a_fraction():
    model = keras_resfam.WideResNet(10, 1.5)
    assert model.get_layer("stem_conv").filters == 16
    assert model.get_layer("stage1_block1_conv1").filters == 24
    assert model.get_layer("stage3_block1_conv1").filters == 96


def test_wide_resnet_50_2_widens_only_inside(quick_initializers):
    model = keras_resfam.WideResNet50_2(input_shape=(64, 64, 3))
    filters = [
        model.get_layer(f"stage{stage}_block2_conv{k}").filters
        for stage in (1, 4)
        for k in (1, 2, 3)
    ]
    assert filters == [128, 128, 256, 1024, 1024, 2048]
    assert model.get_layer("stage4_block1_conv2").strides == (2, 2)
    assert model.get_layer("stem_conv").filters == 64


@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(depth=29), r"`depth`.*6N \+ 4.*10, 16, 22.*depth=29"),
        (dict(depth=4), "`depth`.*depth=4"),
        (dict(width=0), "`width`.*width=0"),
        (dict(block=()), r"`block`.*block=\(\)"),
        (dict(block=(3, 2)), r"`block`.*odd.*block=\(3, 2\)"),
        (dict(block="33"), "`block`.*block='33'"),
        (dict(block=3), "`block`.*block=3"),
        (dict(block=(3, 0)), "`block`"),
        (dict(blocks=0), "`blocks`.*blocks=0"),
        (dict(blocks=2.0), "`blocks`.*blocks=2.0"),
        (dict(blocks=1), "`depth`.*be 10.*depth=28, blocks=1"),
        (dict(dropout=1), "`dropout`.*below 1.*dropout=1"),
        (dict(dropout=-0.1), "`dropout`.*dropout=-0.1"),
        (dict(dropout="x"), "`dropout`.*dropout='x'"),
        (dict(dropout=0.3, block=(3,)), "`dropout`.*second.*dropout=0.3"),
    ],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        keras_resfam.WideResNet(**arguments)


@pytest.mark.parametrize("family", ["WideResNet18", "WideResNet34"])
def test_errors_of_imagenet_forms(family):
    with pytest.raises(ValueError, match="`width`.*width=-2"):
        getattr(keras_resfam, family)(width=-2)
