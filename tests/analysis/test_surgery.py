import keras
import numpy as np
import pytest

import dense_nets
import keras_resfam
import tiny_run
from keras_resfam.analysis import (
    delete_blocks,
    duplicate_blocks,
    permute_blocks,
    residual_blocks,
)
from policies import dtype_policy

NETWORKS = {
    "post-activation": ("ResNet", {"depth": 14}),
    "pre-activation": ("ResNet", {"depth": 14, "preactivation": True}),
    "projection": ("ResNet", {"depth": 14, "shortcut": "projection"}),
    "wide": ("WideResNet", {"depth": 10, "width": 2}),
    "inception": ("DILNet", {"depth": 8}),
    "merge-and-run": ("DMRNet", {"depth": 14, "branches": 2}),
    "streams": ("DMRNet", {"depth": 14, "mapping": "identity"}),
    "plain": ("OrthoPlainNet", {"depth": 14}),
}
X = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype("float32")


def build(name, **arguments):
    """One of the networks, with logits, which tell more than a softmax."""
    builder, usual = NETWORKS[name]
    return tiny_run.network(
        builder, usual | arguments, classifier_activation=None
    )


def predict(model, x=X):
    return keras.ops.convert_to_numpy(model(x, training=False))


def names(model):
    return [block.name for block in residual_blocks(model)]


@pytest.mark.parametrize("name", NETWORKS)
def test_deleting_nothing_changes_no_bit_and_leaves_the_original(name):
    model = build(name)
    expected, config = predict(model), model.get_config()
    np.testing.assert_array_equal(predict(delete_blocks(model, [])), expected)
    assert model.get_config() == config
    np.testing.assert_array_equal(predict(model), expected)


def test_deleting_nothing_changes_no_bit_of_the_compiled_model():
    model = build("pre-activation")
    np.testing.assert_array_equal(
        delete_blocks(model, []).predict(X, verbose=0),
        model.predict(X, verbose=0),
    )


@pytest.mark.parametrize("name", sorted({*NETWORKS} - {"plain"}))
def test_deleting_a_branch_of_zeros_changes_nothing(name):
    model = build(name)
    for block in residual_blocks(model):
        for branch in block.branches.values():
            for layer in branch[-2:]:
                zero_outputs(model.get_layer(layer))
    assert np.ptp(predict(model)) > 0.1
    lesioned = delete_blocks(model, names(model))
    assert len(lesioned.layers) < len(model.layers)
    np.testing.assert_allclose(predict(lesioned), predict(model), rtol=1e-5)


def zero_outputs(layer):
    for weight in layer.trainable_weights:
        weight.assign(np.zeros(weight.shape))


def test_deletion_takes_out_the_branch_and_keeps_the_projection():
    model = build("projection")
    block = residual_blocks(model)[2]
    assert block.shortcut and not block.identity
    lesioned = delete_blocks(model, [block])
    gone = {x.name for x in model.layers} - {x.name for x in lesioned.layers}
    (branch,) = block.branches.values()
    assert gone == {*branch, *block.additions}
    assert np.abs(predict(lesioned) - predict(model)).max() > 1e-4


def test_merge_and_run_deletion_against_the_equations():
    model = build("merge-and-run")
    layers = {x.name: x for x in model.layers}
    block = "stage1_block2"
    streams = keras.Model(
        model.input,
        [layers[f"stage1_block1_branch{k}_relu"].output for k in (1, 2)],
    )
    inputs = [keras.ops.convert_to_numpy(x) for x in streams(X)]
    mean = sum(inputs) / 2
    after = keras.Model(model.input, layers[f"{block}_branch2_relu"].output)
    after = predict(after)
    probes = {}
    for lost in ([block], [f"{block}_branch2"], [f"{block}_branch1"]):
        lesioned = delete_blocks(model, lost)
        reader = lesioned.get_layer("stage2_block1_branch2_conv1")
        node = keras.Model(lesioned.input, input_of(lesioned, reader))
        probes[lost[0]] = predict(node)
    np.testing.assert_allclose(probes[block], np.maximum(mean, 0), atol=1e-4)
    np.testing.assert_allclose(
        probes[f"{block}_branch2"], np.maximum(mean, 0), atol=1e-4
    )
    np.testing.assert_allclose(probes[f"{block}_branch1"], after, atol=1e-4)
    assert np.abs(after - np.maximum(mean, 0)).max() > 1e-2


def input_of(model, layer):
    """What a layer takes in this model, of the several that it is in."""
    found = []

    def record(operation, *args, **kwargs):
        if operation is layer:
            found.append(args[0])
        return operation(*args, **kwargs)

    clone = keras.models.clone_model(
        model,
        input_tensors=model.input,
        clone_function=lambda operation: operation,
        call_function=record,
    )
    assert clone.output is not None
    return found[0]


def test_lesioned_model_shares_the_weights():
    model = dense_nets.build()
    lesioned = delete_blocks(model, ["stage1_block3"])
    x, _ = dense_nets.data()
    for weight in model.weights:
        weight.assign(weight * 0.7)
    order = [0, 1, 3, 4, 5, 6, 7]
    expected = dense_nets.Reference(model).predict(x, order)
    np.testing.assert_allclose(predict(lesioned, x), expected, atol=1e-4)


@pytest.mark.parametrize("use_ops", [False, True])
def test_order_and_repetition_against_numpy(use_ops):
    model = dense_nets.build(use_ops=use_ops)
    reference = dense_nets.Reference(model)
    x, _ = dense_nets.data()
    blocks = residual_blocks(model)
    order = [3, 0, 7, 1, 2, 6, 5, 4]
    permuted = permute_blocks(model, [blocks[k] for k in order])
    np.testing.assert_allclose(
        predict(permuted, x), reference.predict(x, order), atol=1e-4
    )
    repeated = duplicate_blocks(model, [blocks[1], blocks[1], blocks[4]])
    order = [0, 1, 1, 1, 2, 3, 4, 4, 5, 6, 7]
    np.testing.assert_allclose(
        predict(repeated, x), reference.predict(x, order), atol=1e-4
    )


@pytest.mark.parametrize("name", ["pre-activation", "merge-and-run"])
def test_permuting_there_and_back_is_the_identity(name):
    model = build(name, depth=20)
    order = names(model)
    order[1], order[2] = order[2], order[1]
    order[4], order[5] = order[5], order[4]
    permuted = permute_blocks(model, order)
    assert np.abs(predict(permuted) - predict(model)).max() > 1e-5
    assert names(permuted) == order
    back = permute_blocks(permuted, names(model))
    np.testing.assert_array_equal(predict(back), predict(model))


def test_shapes_that_cannot_be_joined_are_named():
    model = keras_resfam.ResNet(depth=14, input_shape=(8, 8, 3))
    order = names(model)
    order[1], order[3] = order[3], order[1]
    with pytest.raises(ValueError) as error:
        permute_blocks(model, order)
    assert "(None, 4, 4, 32)" in str(error.value)
    assert "(None, 8, 8, 16)" in str(error.value)
    with pytest.raises(ValueError, match=r"8, 8, 16.*4, 4, 32"):
        duplicate_blocks(model, ["stage2_block1"])


def test_one_addition_for_all_blocks():
    """Of which some add up branches before the shortcut."""
    add, inner = keras.layers.Add(), keras.layers.Add()
    x = inputs = keras.Input((5,))
    for _ in range(2):
        f, g = keras.layers.Dense(5)(x), keras.layers.Dense(5, "relu")(x)
        x = add([x, inner([f, g])])
    model = keras.Model(inputs, x)
    images, _ = dense_nets.data()
    expected = model.predict(images, verbose=0)
    same = delete_blocks(model, []).predict(images, verbose=0)
    np.testing.assert_array_equal(same, expected)
    names = [block.name for block in residual_blocks(model)]
    none = delete_blocks(model, names).predict(images, verbose=0)
    np.testing.assert_array_equal(none, images)


def test_unknown_and_incomplete_blocks_are_refused():
    model = dense_nets.build(3)
    with pytest.raises(ValueError, match="Received: 'block9'"):
        delete_blocks(model, ["block9"])
    with pytest.raises(ValueError, match="list.*Received: blocks='stage1_b"):
        delete_blocks(model, "stage1_block1")
    with pytest.raises(ValueError, match="each block of the model once"):
        permute_blocks(model, ["stage1_block1", "stage1_block2"])


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_model_in_it_may_take_its_inputs_by_name(kind):
    z, a = keras.Input((6,), name="z"), keras.Input((6,), name="a")
    inner = keras.Model(kind((z, a)), z + keras.layers.Dense(6)(a))
    inputs = keras.Input((6,))
    p = keras.layers.Dense(6)(inputs)
    outputs = inner({"z": p, "a": keras.layers.Dense(6)(p)})
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    unchanged = delete_blocks(model, [])
    np.testing.assert_array_equal(predict(unchanged, x), predict(model, x))


def test_deleting_nothing_changes_no_bit_of_models_in_half_precision():
    """Keras casts what it gives to a model to the type of its input."""
    keras.utils.set_random_seed(0)
    with dtype_policy("mixed_bfloat16"):
        inputs = keras.Input((6,))
        x = keras.layers.Dense(6)(inputs)
        for _ in range(8):
            own = keras.Input((6,))
            branch = keras.layers.Dense(6)(keras.layers.ReLU()(own))
            x = keras.Model(own, own + branch)(x)
        model = keras.Model(inputs, keras.layers.Dense(5, dtype="float32")(x))
    x = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    assert len(residual_blocks(model)) == 8
    unchanged = delete_blocks(model, [])
    np.testing.assert_array_equal(predict(unchanged, x), predict(model, x))
