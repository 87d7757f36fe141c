import keras
import numpy as np
import pytest

import keras_resfam
from families import images, outputs_of, predict, randomize

SHAPE = (16, 16, 3)


def outputs(model, *names):
    return predict(outputs_of(model, *names), images(shape=SHAPE))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("branches", [2, 3])
def test_merge_and_run(branches):
    """x_i' = ReLU(H_i(x_i) + mean_j x_j), with projections where needed."""
    model = randomize(
        keras_resfam.DMRNet(14, branches=branches, input_shape=SHAPE)
    )
    ks = range(1, branches + 1)
    # An inner block: identity shortcuts.
    names = [f"stage1_block2_branch{k}_" for k in ks]
    below = outputs(model, *[f"stage1_block1_branch{k}_relu" for k in ks])
    residual = outputs(model, *[f"{n}bn2" for n in names])
    above = outputs(model, *[f"{n}relu" for n in names])
    for h, y in zip(residual, above, strict=True):
        close(y, np.maximum(h + np.mean(below, 0), 0))
    # A transition: each branch has a projection of its own.
    names = [f"stage2_block1_branch{k}_" for k in ks]
    projected = outputs(model, *[f"{n}shortcut_bn" for n in names])
    residual = outputs(model, *[f"{n}bn2" for n in names])
    above = outputs(model, *[f"{n}relu" for n in names])
    for h, y in zip(residual, above, strict=True):
        close(y, np.maximum(h + np.mean(projected, 0), 0))


def test_the_stem_goes_into_each_branch():
    model = randomize(keras_resfam.DMRNet(14, input_shape=SHAPE))
    stem, *rest = outputs(
        model,
        "stem_relu",
        "stage1_block1_branch1_bn2",
        "stage1_block1_branch2_bn2",
        "stage1_block1_branch1_relu",
        "stage1_block1_branch2_relu",
    )
    for h, y in (rest[::2], rest[1::2]):
        close(y, np.maximum(h + stem, 0))
    for k in (1, 2):
        conv = model.get_layer(f"stage1_block1_branch{k}_conv1")
        assert conv.input is model.get_layer("stem_relu").output


@pytest.mark.parametrize("mapping", ["merge_and_run", "identity"])
def test_the_last_block_adds_all_branches_to_one_average(mapping):
    model = randomize(
        keras_resfam.DMRNet(14, mapping=mapping, input_shape=SHAPE)
    )
    a, b, h_a, h_b, y = outputs(
        model,
        "stage3_block1_branch1_relu",
        "stage3_block1_branch2_relu",
        "stage3_block2_branch1_bn2",
        "stage3_block2_branch2_bn2",
        "stage3_block2_relu",
    )
    close(y, np.maximum(h_a + h_b + (a + b) / 2, 0))


def test_the_identity_mapping_leaves_branches_alone():
    model = randomize(
        keras_resfam.DMRNet(14, mapping="identity", input_shape=SHAPE)
    )
    below, h, above = outputs(
        model,
        "stage1_block1_branch2_relu",
        "stage1_block2_branch2_bn2",
        "stage1_block2_branch2_relu",
    )
    close(above, np.maximum(h + below, 0))
    # Nothing of the other branch reaches a branch before the end.
    x = images(shape=SHAPE)
    probe = outputs_of(model, "stage3_block1_branch1_relu")
    before = predict(probe, x)
    conv = model.get_layer("stage1_block1_branch2_conv1")
    conv.kernel.assign(conv.kernel * 0)
    np.testing.assert_array_equal(predict(probe, x), before)


def test_one_branch_is_a_residual_network():
    model = randomize(keras_resfam.DMRNet(14, branches=1, input_shape=SHAPE))
    resnet = keras_resfam.ResNet(14, shortcut="projection", input_shape=SHAPE)
    for layer in resnet.layers:
        if layer.weights:
            name = layer.name
            if name.startswith("stage"):
                block, kind = name.split("_", 2)[:2], name.split("_", 2)[2]
                name = "_".join([*block, "branch1", kind])
            layer.set_weights(model.get_layer(name).get_weights())
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 2e-5
    x = images(shape=SHAPE)
    close(predict(model, x), predict(resnet, x))


def test_dilnet_adds_all_branches_to_one_shortcut():
    model = randomize(keras_resfam.DILNet(8, branches=3, input_shape=SHAPE))
    *terms, y = outputs(
        model,
        "stage2_block1_shortcut_bn",
        "stage2_block1_branch1_bn2",
        "stage2_block1_branch2_bn2",
        "stage2_block1_branch3_bn2",
        "stage2_block1_relu",
    )
    close(y, np.maximum(sum(terms), 0))


@pytest.mark.parametrize("builder", ["DMRNet", "DILNet"])
def test_width_and_epsilon(builder):
    model = getattr(keras_resfam, builder)(8, width=4)
    filters = {
        name: model.get_layer(name).filters
        for name in ("stem_conv", "stage1_block1_branch1_conv1")
    }
    assert set(filters.values()) == {64}
    assert model.get_layer("stage3_block1_branch1_conv2").filters == 256
    norms = [
        x
        for x in model.layers
        if isinstance(x, keras.layers.BatchNormalization)
    ]
    assert {(x.momentum, x.epsilon) for x in norms} == {(0.9, 2e-5)}


def test_imagenet_form_of_arxiv(quick_initializers):
    model = keras_resfam.DMRNet44(input_shape=(32, 32, 3))
    merges = [x for x in model.layers if isinstance(x, keras.layers.Average)]
    # All but one of 14 blocks project or get two tensors: every stage's first
    # projects, and so the average is a layer in each.
    assert len(merges) == 14
    assert (
        model.get_layer("stem_bn").input is model.get_layer("stem_conv").output
    )
    last = model.get_layer("stage4_block2_add")
    assert len(last.input) == 3
    assert last.output.shape[-1] == 2048


def test_imagenet_form_of_ijcai(quick_initializers):
    model = keras_resfam.DMRNet50(input_shape=(32, 32, 3))
    names = [layer.name for layer in model.layers]
    merges = [name for name in names if name.endswith("_merge")]
    # No merge and no shortcut in the first block of a stage.
    assert len(merges) == 16 - 4
    assert not any("_block1_" in name for name in merges)
    assert not any("shortcut" in name for name in names)
    assert "stem_bn" not in names
    assert model.get_layer("avg_pool").input.shape[-1] == 4096


@pytest.mark.parametrize("builder", ["DMRNet", "DILNet"])
@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(depth=55), r"`depth`.*6n \+ 2.*depth=55"),
        (dict(width=0), "`width`.*width=0"),
        (dict(branches=0), "`branches`.*at least 1.*branches=0"),
        (dict(branches=1.5), "`branches`.*branches=1.5"),
        (dict(branches=True), "`branches`.*branches=True"),
    ],
)
def test_errors(builder, arguments, match):
    with pytest.raises(ValueError, match=match):
        getattr(keras_resfam, builder)(**arguments)


def test_unknown_mapping():
    with pytest.raises(ValueError, match="`mapping`.*'identity'.*='id'"):
        keras_resfam.DMRNet(mapping="id")
