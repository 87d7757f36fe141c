import keras
import numpy as np
import pytest

import keras_resfam
from families import images, outputs_of, predict, randomize


def check_blocks(model, branch_end, activated):
    """Each block's output is the branch's plus the shortcut's."""
    x = images(shape=(16, 16, 3))
    names = [
        layer.name[: -len("_add")]
        for layer in model.layers
        if layer.name.endswith("_add")
    ]
    below = "stem_relu" if activated else "stem_conv"
    for name in names:
        out = f"{name}_relu" if activated else f"{name}_add"
        has_shortcut = [
            layer.name
            for layer in model.layers
            if layer.name.startswith(f"{name}_shortcut")
        ]
        skip = has_shortcut[-1] if has_shortcut else below
        y, residual, shortcut = predict(
            outputs_of(model, out, f"{name}_{branch_end}", skip), x
        )
        total = residual + shortcut
        if activated:
            total = np.maximum(total, 0)
        np.testing.assert_allclose(y, total, rtol=1e-4, atol=1e-4)
        below = out
    return names


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("shortcut", ["identity", "projection"])
def test_blocks(preactivation, shortcut):
    model = randomize(
        keras_resfam.ResNet(
            14,
            preactivation=preactivation,
            shortcut=shortcut,
            input_shape=(16, 16, 3),
        )
    )
    end = "conv2" if preactivation else "bn2"
    names = check_blocks(model, end, activated=not preactivation)
    assert names == [
        f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2)
    ]


@pytest.mark.parametrize("width", [0.3, 1.3, 1.5])
def test_identity_shortcuts_double_the_channels(width):
    first = int(16 * width)
    model = keras_resfam.ResNet(14, width, input_shape=(8, 8, 3))
    for stage in (1, 2, 3):
        layer = model.get_layer(f"stage{stage}_block2_conv2")
        assert layer.filters == first * 2 ** (stage - 1)


def test_option_a_strides_and_pads_channels_with_zeros():
    model = randomize(keras_resfam.ResNet(8, input_shape=(16, 16, 3)))
    x, y = predict(
        outputs_of(
            model, "stage1_block1_relu", "stage2_block1_shortcut_concat"
        ),
        images(shape=(16, 16, 3)),
    )
    expected = np.zeros((2, 8, 8, 32))
    expected[..., :16] = x[:, ::2, ::2]
    np.testing.assert_allclose(y, expected, atol=1e-6)
    shortcuts = [x for x in model.layers if "shortcut" in x.name]
    assert not any(layer.weights for layer in shortcuts)


def test_strided_convolutions_are_padded_alike_on_both_sides():
    """As in Torch; Keras's "same" would pad on the right only."""
    model = randomize(keras_resfam.ResNet(8, input_shape=(16, 16, 3)))
    conv = model.get_layer("stage2_block1_conv1")
    x, y = predict(
        outputs_of(model, "stage1_block1_relu", conv.name),
        images(shape=(16, 16, 3)),
    )
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = keras.ops.convert_to_numpy(conv.kernel).astype("float64")
    for i, j in [(0, 0), (0, 7), (3, 5), (7, 7)]:
        window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        np.testing.assert_allclose(
            y[:, i, j], np.einsum("bhwc,hwcf->bf", window, kernel), rtol=1e-4
        )


def test_the_preactivation_net():
    model = keras_resfam.ResNet(110, preactivation=True)
    adds = [x for x in model.layers if isinstance(x, keras.layers.Add)]
    assert len(adds) == 54
    # Also the first block starts with BN and ReLU, on the bare stem.
    assert model.get_layer("stage1_block1_bn1").input is (
        model.get_layer("stem_conv").output
    )
    # BN and ReLU of the last block's sum.
    assert model.get_layer("head_bn").input is (
        model.get_layer("stage3_block18_add").output
    )


def test_batch_normalization_is_torchs():
    for layer in keras_resfam.ResNet(8).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


def test_initial_kernels_have_the_papers_deviation():
    keras.utils.set_random_seed(0)
    model = keras_resfam.ResNet(8, width=4)
    kernel = model.get_layer("stage3_block1_conv2").kernel
    values = keras.ops.convert_to_numpy(kernel)
    np.testing.assert_allclose(values.std(), np.sqrt(2 / (9 * 256)), rtol=0.01)
    # Not truncated: some of 590,000 lie beyond four deviations.
    assert np.abs(values).max() > 4 * values.std()
    dense = keras.ops.convert_to_numpy(model.get_layer("predictions").kernel)
    assert 0.95 / 16 < np.abs(dense).max() <= 1 / 16


def test_resnet98_has_no_shortcut_where_the_shape_changes(quick_initializers):
    model = keras_resfam.ResNet98(input_shape=(32, 32, 3))
    adds = [x for x in model.layers if isinstance(x, keras.layers.Add)]
    assert len(adds) == 32 - 4
    names = [layer.name for layer in model.layers]
    assert "stem_bn" not in names
    assert not any("shortcut" in name for name in names)
    assert model.get_layer("stage1_block1_bn1").epsilon == 2e-5


def test_resnet101_is_torchvisions(quick_initializers):
    model = keras_resfam.ResNet101(input_shape=(64, 64, 3))
    adds = [x for x in model.layers if isinstance(x, keras.layers.Add)]
    assert len(adds) == 33
    strides = {
        k: model.get_layer(f"stage2_block1_conv{k}").strides for k in (1, 2, 3)
    }
    assert strides == {1: (1, 1), 2: (2, 2), 3: (1, 1)}
    assert model.get_layer("stage1_block1_shortcut_conv").strides == (1, 1)


@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(depth=21), r"`depth`.*6n \+ 2.*8, 14, 20.*depth=21"),
        (dict(depth=2), "`depth`.*depth=2"),
        (dict(depth=-4), "`depth`.*depth=-4"),
        (dict(depth=20.0), "`depth`.*depth=20.0"),
        (dict(depth=True), "`depth`.*depth=True"),
        (dict(depth="20"), "`depth`.*depth='20'"),
        (dict(width=0), "`width`.*width=0"),
        (dict(width=-1), "`width`.*width=-1"),
        (dict(width=0.01), "`width`.*width=0.01"),
        (dict(width=float("nan")), "`width`.*width=nan"),
        (dict(width=float("inf")), "`width`.*width=inf"),
        (dict(preactivation="no"), "`preactivation`.*='no'"),
        (dict(shortcut="A"), "`shortcut`.*'identity', 'projection'.*'A'"),
    ],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=f"{match}"):
        keras_resfam.ResNet(**arguments)
