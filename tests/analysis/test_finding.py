import keras
import numpy as np
import pytest
from keras import layers

import dense_nets
import keras_resfam
import tiny_run
from keras_resfam.analysis import (
    delete_blocks,
    drop_blocks,
    duplicate_blocks,
    path_lengths,
    permute_blocks,
    plain_layers,
    residual_blocks,
)
from keras_resfam.analysis.execution import BlockRunner
from keras_resfam.analysis.plain import chain_of
from keras_resfam.analysis.surgery import deletion

SHAPE = (16, 16, 3)


def by_stage(blocks):
    stages = [block.stage for block in blocks]
    return [stages.count(stage) for stage in range(1, stages[-1] + 1)]


def test_stages_by_the_data_format_of_the_model():
    """Whatever Keras's own is when the blocks are counted."""
    keras.config.set_image_data_format("channels_first")
    try:
        model = keras_resfam.ResNet(depth=14, input_shape=(3, None, None))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert by_stage(residual_blocks(model)) == [2, 2, 2]


def test_finds_the_16_blocks_of_resnet50v2():
    model = keras.applications.ResNet50V2(weights=None, input_shape=(64, 64, 3))
    blocks = residual_blocks(model)
    assert by_stage(blocks) == [3, 4, 6, 3]
    assert blocks[0].name == "conv2_block1"
    assert blocks[0].shortcut == ("conv2_block1_0_conv",)
    assert [b.name for b in blocks if not b.identity] == [
        "conv2_block1",
        "conv2_block3",
        "conv3_block1",
        "conv3_block4",
        "conv4_block1",
        "conv4_block6",
        "conv5_block1",
    ]
    (branch,) = blocks[1].branches.values()
    assert branch[0] == "conv2_block2_preact_bn"
    assert branch[-1] == "conv2_block2_3_conv"


def test_finds_the_10_blocks_of_mobilenetv2():
    model = keras.applications.MobileNetV2(weights=None)
    blocks = residual_blocks(model)
    numbers = [2, 4, 5, 7, 8, 9, 11, 12, 14, 15]
    assert [b.name for b in blocks] == [f"block_{k}" for k in numbers]
    assert all(b.identity and b.keeps_shape for b in blocks)


def test_finds_the_blocks_of_convnext_in_its_additions_by_ops():
    model = keras.applications.ConvNeXtTiny(
        weights=None, input_shape=(32, 32, 3)
    )
    blocks = residual_blocks(model)
    assert by_stage(blocks) == [3, 3, 9, 3]
    assert blocks[3].name == "convnext_tiny_stage_1_block_0"


@pytest.mark.parametrize("preactivation", [False, True])
def test_shortcut_of_zeros_is_a_shortcut(preactivation):
    model = keras_resfam.ResNet(
        depth=14, preactivation=preactivation, input_shape=SHAPE
    )
    blocks = residual_blocks(model)
    assert by_stage(blocks) == [2, 2, 2]
    assert [b.identity for b in blocks] == [True, True, False] + [
        True,
        False,
        True,
    ]
    assert blocks[2].shortcut == (
        "stage2_block1_shortcut_pool",
        "stage2_block1_shortcut_zeros",
        "stage2_block1_shortcut_concat",
    )


def test_activation_that_branch_and_shortcut_share_stays():
    model = keras_resfam.WideResNet(depth=10, width=2, input_shape=SHAPE)
    first = residual_blocks(model)[0]
    assert first.shortcut == ("stage1_block1_shortcut_conv",)
    assert first.branches == {
        "stage1_block1": (
            "stage1_block1_conv1",
            "stage1_block1_bn2",
            "stage1_block1_relu2",
            "stage1_block1_conv2",
        )
    }


def test_of_one_convolution_each_the_smaller_is_the_shortcut():
    model = keras_resfam.WideResNet(
        depth=10, width=2, block=(3,), input_shape=SHAPE
    )
    block = residual_blocks(model)[0]
    assert block.shortcut == ("stage1_block1_shortcut_conv",)
    assert block.branches["stage1_block1"] == ("stage1_block1_conv1",)


def test_merge_and_run_blocks():
    model = keras_resfam.DMRNet(depth=14, branches=3, input_shape=SHAPE)
    blocks = residual_blocks(model)
    assert len(blocks) == 6
    assert [b.merge for b in blocks] == [None] + [
        f"stage{s}_block{b}_merge"
        for s, b in [(1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    ]
    assert all(
        list(b.branches) == [f"{b.name}_branch{k}" for k in (1, 2, 3)]
        for b in blocks
    )
    assert [len(b.input_shapes) for b in blocks] == [1, 3, 3, 3, 3, 3]
    assert [len(b.output_shapes) for b in blocks] == [3, 3, 3, 3, 3, 1]
    assert blocks[1].identity and not blocks[2].identity
    assert len(blocks[2].shortcut) == 6  # three projections with BN


def test_streams_that_never_meet_share_their_blocks():
    model = keras_resfam.DMRNet(depth=14, mapping="identity", input_shape=SHAPE)
    assert [len(b.additions) for b in residual_blocks(model)] == [2] * 5 + [1]


def test_inception_like_blocks():
    model = keras_resfam.DILNet(depth=8, branches=3, input_shape=SHAPE)
    blocks = residual_blocks(model)
    assert [len(b.branches) for b in blocks] == [3, 3, 3]
    assert blocks[1].shortcut == (
        "stage2_block1_shortcut_conv",
        "stage2_block1_shortcut_bn",
    )


def test_a_side_input_makes_no_branch_a_shortcut():
    """Such as the switches of `drop_blocks`, and gates by the input."""
    model = keras_resfam.ResNet(depth=8)
    plain = residual_blocks(model)
    dropping = residual_blocks(drop_blocks(model, active=2))
    assert [b.name for b in dropping] == [b.name for b in plain]
    assert [b.shortcut for b in dropping] == [b.shortcut for b in plain]

    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, name="stem1")(inputs)
    x = keras.layers.Dense(4, name="stem2")(x)
    for k in (1, 2):
        f = keras.layers.Dense(4, name=f"block{k}_dense")(x)
        gate = keras.layers.Dense(4, "sigmoid", name=f"block{k}_gate")(inputs)
        f = keras.layers.Multiply(name=f"block{k}_multiply")([f, gate])
        x = keras.layers.Add(name=f"block{k}_add")([x, f])
    blocks = residual_blocks(keras.Model(inputs, x))
    assert [block.name for block in blocks] == ["block1", "block2"]
    assert [block.shortcut for block in blocks] == [(), ()]


def test_sum_of_equals_is_no_block():
    inputs = keras.Input((4,))
    x = layers.Add()([layers.Dense(4)(inputs), layers.Dense(4)(inputs)])
    x = x + 1.0
    assert residual_blocks(keras.Model(inputs, x)) == []


def test_blocks_without_telling_names_are_named_by_their_addition():
    x = inputs = keras.Input((4,))
    for k in range(2):
        f = layers.Dense(4, name=f"dense_{2 * k}")(x)
        f = layers.Dense(4, name=f"dense_{2 * k + 1}")(f)
        x = layers.Add(name=f"sum_{k}")([x, f])
    names = [b.name for b in residual_blocks(keras.Model(inputs, x))]
    assert names == ["sum_0", "sum_1"]


def test_branches_without_telling_names_are_numbered():
    x = inputs = keras.Input((8, 8, 4))
    for k in range(2):
        f, g = x, x
        for _ in range(2):
            f = layers.Conv2D(4, 3, padding="same")(f)
            g = layers.SeparableConv2D(4, 3, padding="same")(g)
        x = layers.Add(name=f"sum_{k}")([x, f, g])
    model = keras.Model(inputs, x)
    blocks = residual_blocks(model)
    assert [list(block.branches) for block in blocks] == [
        ["sum_0_branch1", "sum_0_branch2"],
        ["sum_1_branch1", "sum_1_branch2"],
    ]
    rest = delete_blocks(model, ["sum_1_branch2"])
    kept = {layer.name for layer in rest.layers}
    for name, layers_of_branch in blocks[1].branches.items():
        assert kept.isdisjoint(layers_of_branch) == (name == "sum_1_branch2")


def test_what_two_branches_read_stays_with_both():
    """As `x + f(h) + g(h)` does, with `h` made of `x`."""
    x = inputs = keras.Input((4,))
    for k in range(2):
        h = layers.LayerNormalization(name=f"norm_{k}")(x)
        for half in "ab":
            f = layers.Dense(4, "tanh", name=f"dense_{k}{half}")(h)
            x = layers.Add(name=f"sum_{k}{half}")([x, f])
    model = keras.Model(inputs, x)
    weights = {
        v.path: keras.ops.convert_to_numpy(v).astype("float64")
        for v in model.variables
    }

    def reference(x, lost):
        for k in range(2):
            h = x - x.mean(-1, keepdims=True)
            h = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-3)
            for half in "ab":
                if f"{k}{half}" != lost:
                    x = x + np.tanh(h @ weights[f"dense_{k}{half}/kernel"])
        return x

    data = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    chain = chain_of(model)
    runner = BlockRunner(chain)
    for lost in (None, "0a", "0b", "1a", "1b"):
        branch = lost and f"sum_{lost[0]}b_branch{'ab'.index(lost[1]) + 1}"
        blocks = [branch] if lost else []
        expected = reference(data.astype("float64"), lost)
        lesioned = delete_blocks(model, blocks)(data)
        blockwise = runner.predict(
            keras.ops.convert_to_tensor(data), deletion(chain, blocks)
        )
        for found in (lesioned, blockwise):
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(found), expected, atol=1e-5
            )


def test_activation_before_the_head_is_no_block_s():
    """Pre-activation blocks without normalization, swapped and repeated."""
    x = inputs = keras.Input((4,))
    for k in range(3):
        f = layers.ReLU(name=f"block{k}_relu")(x)
        f = layers.Dense(4, name=f"block{k}_dense")(f)
        x = layers.Add(name=f"block{k}_add")([x, f])
    x = layers.ReLU(name="head_relu")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    data = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")

    def reference(order):
        h = data.astype("float64")
        for k in order:
            kernel, bias = model.get_layer(f"block{k}_dense").get_weights()
            h = h + np.maximum(h, 0) @ kernel + bias
        kernel, bias = model.get_layer("head").get_weights()
        return np.maximum(h, 0) @ kernel + bias

    for changed, order in (
        (permute_blocks(model, ["block0", "block2", "block1"]), (0, 2, 1)),
        (duplicate_blocks(model, ["block2"]), (0, 1, 2, 2)),
    ):
        found = keras.ops.convert_to_numpy(changed(data))
        np.testing.assert_allclose(found, reference(order), atol=1e-4)


def test_a_block_that_runs_twice_is_two_blocks():
    model = duplicate_blocks(dense_nets.build(3), ["stage1_block2"])
    names = [b.name for b in residual_blocks(model)]
    assert names == [
        "stage1_block1",
        "stage1_block2",
        "stage1_block2_run2",
        "stage1_block3",
    ]
    x, _ = dense_nets.data()
    once = delete_blocks(model, ["stage1_block2_run2"])
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(once(x)),
        keras.ops.convert_to_numpy(dense_nets.build(3)(x)),
    )
    same = permute_blocks(model, names)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(same(x)),
        keras.ops.convert_to_numpy(model(x)),
    )


def fine_tuned(backbone, **mode):
    """A backbone within a model within a model, as an app may have it."""
    inner = keras.Sequential([layers.Rescaling(1 / 255), backbone])
    x = keras.Input(backbone.input_shape[1:])
    y = layers.Dense(3, activation="softmax")(inner(x, **mode))
    return keras.Model(x, y)


def test_looks_into_the_models_among_the_layers():
    backbone = tiny_run.network(
        "DMRNet", {"depth": 14}, include_top=False, pooling="avg"
    )
    model = fine_tuned(backbone)
    assert residual_blocks(model) == residual_blocks(backbone)
    name = residual_blocks(backbone)[3].name
    lesioned = fine_tuned(delete_blocks(backbone, [name]))
    lesioned.layers[-1].set_weights(model.layers[-1].get_weights())
    x = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(delete_blocks(model, [name])(x)),
        keras.ops.convert_to_numpy(lesioned(x)),
    )


def test_a_model_among_the_layers_stays_in_its_mode():
    inner = keras.Sequential([layers.Dense(4), layers.Dropout(0.9)])
    inputs = x = keras.Input((4,))
    for k in range(2):  # of one model both blocks
        x = layers.Add(name=f"add{k}")([x, inner(x, training=k == 1)])
    model = keras.Model(inputs, x)
    assert len(residual_blocks(model)) == 2
    data = np.ones((8, 4), "float32")
    for deleted, share in (("add1", 0), ("add0", 0.9)):
        left = delete_blocks(model, [deleted])
        branch = keras.ops.convert_to_numpy(left(data)) - data
        assert (branch == 0).mean() == pytest.approx(share, abs=0.4)


def test_models_among_the_layers_are_read_in_the_size_they_get():
    open_size = keras_resfam.ResNet(
        8, include_top=False, input_shape=(None, None, 3)
    )
    model = keras.Sequential([keras.Input((8, 8, 3)), open_size])
    shapes = [b.output_shapes[0][1:] for b in residual_blocks(model)]
    assert shapes == [(8, 8, 16), (4, 4, 32), (2, 2, 64)]
    assert residual_blocks(open_size)[2].output_shapes[0][1:3] == (None, None)
    units = chain_of(open_size, (8, 8, 3)).units
    assert [u.block.output_shapes[0][1:] for u in units] == shapes


def test_layers_of_one_name_are_refused():
    one, other = dense_nets.build(2), dense_nets.build(2)
    other = keras.Model(other.input, other.output, name="other")
    x = keras.Input((5,))
    mean = layers.Average()([one(x), other(x)])
    with pytest.raises(ValueError, match="different names.*'stem'"):
        residual_blocks(keras.Model(x, mean))


SUMS = {  # of a shortcut and parallel branches of one, two, ... layers
    "x + (f + g)": lambda x, f: x + (f(2) + f(1)),
    "x + ((f + g) + h)": lambda x, f: x + ((f(1) + f(2)) + f(3)),
    "x + (f + (g + h))": lambda x, f: x + (f(1) + (f(2) + f(3))),
    "x + [f + g + h]": lambda x, f: x + layers.Add()([f(3), f(2), f(1)]),
    "x + f + g": lambda x, f: x + f(2) + f(1),
    "f + x + g": lambda x, f: f(1) + x + f(2),
    "g + (x + f)": lambda x, f: f(1) + (x + f(2)),
    "x + f + g + h": lambda x, f: x + f(2) + f(1) + f(3),
    "x + (f + g) + h": lambda x, f: x + (f(2) + f(1)) + f(3),
}


@pytest.mark.parametrize("form", SUMS)
def test_a_sum_of_branches_is_no_block_of_its_own(form):
    """x + f(x) + g(x), as in parallel transformers, in whatever order."""
    x = inputs = keras.Input((4,))
    for block in ("one", "two"):

        def branch(depth, x=x, block=block):
            for k in range(depth):
                name = f"{block}_f{depth}_{k}"
                x = layers.Dense(4, "relu", name=name, use_bias=False)(x)
            return x

        x = SUMS[form](x, branch)
    model = keras.Model(inputs, x)
    branches = form.count("+")
    blocks = residual_blocks(model)
    assert [b.name for b in blocks] == ["one", "two"]
    assert [len(b.branches) for b in blocks] == [branches] * 2
    lengths = path_lengths(model)
    np.testing.assert_array_equal(lengths["length"], [0, 1, 2])
    counts = np.array([1, 2 * branches, branches**2])
    np.testing.assert_allclose(lengths["probability"], counts / counts.sum())
    data = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(delete_blocks(model, [])(data)),
        keras.ops.convert_to_numpy(model(data)),
    )
    lost = [
        name
        for block in blocks
        for name, steps in block.branches.items()
        if len(steps) != 1
    ]
    expected = data.astype("float64")
    for name in ("one_f1_0", "two_f1_0"):
        kernel = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
        expected = expected + np.maximum(expected @ kernel, 0)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(delete_blocks(model, lost)(data)),
        expected,
        atol=1e-6,
    )


@pytest.mark.parametrize("shortcut", ["identity", "projection"])
def test_a_block_within_a_branch_stays_a_block(shortcut):
    inputs = keras.Input((4,))
    s = h = layers.Dense(4, name="inner_in")(inputs)
    if shortcut == "projection":
        s = layers.Dense(4, name="inner_projection")(h)
    f = layers.Dense(4, "relu", name="inner_f1")(h)
    f = layers.Dense(4, name="inner_f2")(f)
    h = layers.Add(name="inner_add")([s, f])
    model = keras.Model(inputs, layers.Add(name="outer_add")([inputs, h]))
    additions = [b.additions for b in residual_blocks(model)]
    assert additions == [("inner_add",), ("outer_add",)]


def test_an_activation_with_weights_is_no_layer():
    x = inputs = keras.Input((4, 4, 2))
    for k in range(2):
        x = layers.Conv2D(2, 3, padding="same", name=f"conv{k}")(x)
        x = layers.PReLU(name=f"prelu{k}")(x)
    names = [b.name for b in plain_layers(keras.Model(inputs, x))]
    assert names == ["conv0", "conv1"]


def test_plain_layers_are_those_that_keep_the_shape():
    model = keras.applications.VGG16(
        weights=None, input_shape=(32, 32, 3), include_top=False
    )
    assert residual_blocks(model) == []
    assert [b.name for b in plain_layers(model)] == [
        "block1_conv2",
        "block2_conv2",
        "block3_conv2",
        "block3_conv3",
        "block4_conv2",
        "block4_conv3",
        "block5_conv1",
        "block5_conv2",
        "block5_conv3",
    ]


@pytest.mark.parametrize("modulation", [False, True])
def test_plain_layers_of_orthoplainnet(modulation):
    model = keras_resfam.OrthoPlainNet(
        depth=14, modulation=modulation, input_shape=SHAPE
    )
    assert len(plain_layers(model)) == 10  # 12 less two that halve the size


def test_a_stage_of_a_plain_network_ends_where_the_channels_change():
    x = inputs = keras.Input((8, 8, 8))
    for k, filters in enumerate([8, 8, 16, 16, 8, 8, 16, 16]):
        x = layers.Conv2D(filters, 3, padding="same", name=f"c{k}")(x)
    found = {b.name: b.stage for b in plain_layers(keras.Model(inputs, x))}
    assert found == {"c0": 1, "c1": 1, "c3": 2, "c5": 3, "c7": 4}


def test_residual_networks_have_no_plain_layers():
    with pytest.raises(ValueError, match="`model` should be a plain.*3 res"):
        plain_layers(dense_nets.build(3))


def test_outputs_that_nothing_reads_make_no_blocks():
    inner = dense_nets.build(4)
    tap = inner.get_layer("stage1_block2_add").output
    backbone = keras.Model(inner.input, [tap, inner.output])
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(3)(backbone(inputs)[0]))
    names = [block.name for block in residual_blocks(model)]
    assert names == ["stage1_block1", "stage1_block2"]


def test_reading_leaves_the_layers_as_they_are():
    model = dense_nets.build(3)
    layer = model.get_layer("stage1_block1_in")
    blocks = residual_blocks(model)
    path_lengths(model)
    assert len(layer._inbound_nodes) == 1
    assert len({*blocks, *blocks}) == 3  # they can be told from each other


def test_what_is_no_functional_model_is_refused():
    with pytest.raises(ValueError, match="functional"):
        residual_blocks(keras.layers.Dense(2))
    two = [keras.Input((2,)), keras.Input((2,))]
    with pytest.raises(ValueError, match="one input"):
        residual_blocks(keras.Model(two, layers.Add()(two)))


def test_an_addition_by_an_operation_counts_as_one_by_a_layer():
    """Of two branches as deep, also where the one holds such an addition."""

    def conv(x):
        return layers.Conv2D(4, 3, padding="same")(x)

    def blocks_and_paths(add):
        inputs = keras.Input((8, 8, 4))
        x = conv(inputs)
        a = layers.Add()([x, conv(x)])
        b = layers.Add()([x, conv(conv(x))])
        outputs = layers.Add()([conv(add([a, b])), conv(b)])
        model = keras.Model(inputs, outputs)
        lengths = path_lengths(model)
        return len(residual_blocks(model)), lengths["probability"].tolist()

    by_operation = blocks_and_paths(lambda tensors: tensors[0] + tensors[1])
    assert by_operation == blocks_and_paths(layers.Add())


@pytest.mark.parametrize("stem", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_an_early_tensor_is_no_shortcut_of_a_late_block(stem, order):
    """`x + f(x) + image` in each block, from the first on."""
    inputs = early = x = keras.Input((4,), name="image")
    if stem:
        x = layers.Dense(4, name="stem")(x)
    else:  # the first block has no other tensor to go round
        x = layers.Add(name="zero_add")([x, layers.Dense(4, name="zero")(x)])
    for k in range(3):
        f = layers.Dense(4, "relu", name=f"block{k}_in")(x)
        f = layers.Dense(4, name=f"block{k}_out")(f)
        tensors = [x, f, early]
        tensors = [tensors[place] for place in order]
        x = layers.Add(name=f"block{k}_add")(tensors)
    model = keras.Model(inputs, x)
    blocks = residual_blocks(model)
    found = {b.name: list(b.branches.values()) for b in blocks[-3:]}
    assert found == {
        f"block{k}": [(f"block{k}_in", f"block{k}_out")] for k in range(3)
    }
    data = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    lesioned = delete_blocks(model, ["block0", "block1", "block2"])
    first = model.get_layer("stem" if stem else "zero_add").output
    expected = keras.Model(inputs, first + 3 * early)(data)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(lesioned(data)),
        keras.ops.convert_to_numpy(expected),
        rtol=1e-5,
        atol=1e-5,  # sums near zero of random numbers near one
    )


def test_a_branch_of_a_branch_goes_round_the_same_shortcut():
    """`x + f(x) + f(f(x))`, PolyNet's poly-2."""
    x = inputs = keras.Input((4,))
    x = layers.Dense(4, name="stem")(x)
    x = layers.Add(name="one_add")([x, layers.Dense(4, name="one_f")(x)])
    first = layers.Dense(4, "relu", name="two_first")(x)
    second = layers.Dense(4, "relu", name="two_second")(first)
    x = layers.Add(name="two_add")([x, first, second])
    one, two = residual_blocks(keras.Model(inputs, x))
    assert list(one.branches.values()) == [("one_f",)]
    assert sorted(two.branches.values()) == [
        ("two_first",),
        ("two_first", "two_second"),
    ]
