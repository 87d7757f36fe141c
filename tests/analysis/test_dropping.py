import keras
import numpy as np
import pytest

import dense_nets
import keras_resfam
import tiny_run
from keras_resfam.analysis import (
    delete_blocks,
    drop_blocks,
    dropping,
    linear_survival,
    path_lengths,
    residual_blocks,
)
from policies import dtype_policy


def factors(dropped, x):
    """The factors that a batch gets in training, and its output."""
    switches = dropped.get_layer("block_switches").output
    probe = keras.Model(dropped.input, [switches, dropped.output])
    found = probe(x, training=True)
    return [keras.ops.convert_to_numpy(part) for part in found]


def draws(dropped, count):
    layer = dropped.get_layer("block_switches")
    x = np.zeros((1, 5), "float32")
    return np.array(
        [
            keras.ops.convert_to_numpy(layer(x, training=True))
            for _ in range(count)
        ]
    )


def test_so_many_work_in_every_batch():
    found = draws(drop_blocks(dense_nets.build(54), active=23, seed=3), 40)
    assert set(np.unique(found)) == {0, 1}
    assert set(found.sum(-1)) == {23}
    assert len({tuple(row) for row in found}) == 40
    assert found.mean(0).min() > 0.1 and found.mean(0).max() < 0.8


def test_survival_is_each_blocks_own():
    survival = [1.0, 0.0, 0.25, 0.75]
    found = draws(drop_blocks(dense_nets.build(4), survival=survival), 400)
    np.testing.assert_allclose(found.mean(0), survival, atol=0.1)
    assert len(set(found.sum(-1))) > 1


def test_batch_in_training_is_the_network_without_the_dropped_blocks():
    model = dense_nets.build(8)
    x, _ = dense_nets.data()
    names = [block.name for block in residual_blocks(model)]
    works, output = factors(drop_blocks(model, active=3, seed=0), x)
    lost = [name for name, on in zip(names, works, strict=True) if not on]
    assert len(lost) == 5
    expected = delete_blocks(model, lost)(x)
    np.testing.assert_allclose(
        output, keras.ops.convert_to_numpy(expected), atol=1e-6
    )


def test_a_branch_that_others_read_is_theirs_as_it_is():
    inputs = keras.Input((5,))
    f = keras.layers.Dense(5, name="one")(inputs)
    y = keras.layers.Add(name="add1")([inputs, f])
    g = keras.layers.Concatenate()([y, f])
    g = keras.layers.Dense(5, name="two")(g)
    model = keras.Model(inputs, keras.layers.Add(name="add2")([y, g]))
    first = residual_blocks(model)[0].name
    x, _ = dense_nets.data()
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(
            drop_blocks(model, survival=[0, 1])(x, training=True)
        ),
        keras.ops.convert_to_numpy(delete_blocks(model, [first])(x)),
        atol=1e-6,
    )


def test_both_branches_of_a_block_go_together():
    model = tiny_run.network(arguments={"depth": 14})
    dropped = drop_blocks(model, active=2, seed=0)
    gates = [x for x in dropped.layers if x.name.endswith("_switch")]
    assert [gate.block for gate in gates] == [k for k in range(6) for _ in "ab"]


@pytest.mark.parametrize(
    "builder, arguments",
    [
        ("ResNet", {"depth": 14, "preactivation": True}),
        ("DMRNet", {"depth": 8}),
    ],
)
def test_inference_is_the_models_own_to_the_bit(builder, arguments):
    model = tiny_run.network(builder, arguments, classifier_activation=None)
    x = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1)).astype("float32")
    for scale in (None, "training"):
        dropped = drop_blocks(model, active=1, scale=scale)
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(dropped(x, training=False)),
            keras.ops.convert_to_numpy(model(x, training=False)),
        )


def test_precision_is_the_models_whatever_is_usual_now():
    model = dense_nets.build(3)
    x, _ = dense_nets.data()
    with dtype_policy("mixed_bfloat16"):
        dropped = drop_blocks(model, active=1)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(dropped(x, training=False)),
        keras.ops.convert_to_numpy(model(x, training=False)),
    )


def test_fit_trains_the_original_and_spares_the_dropped():
    model = dense_nets.build(4)
    before = [np.array(w) for w in model.get_weights()]
    dropped = drop_blocks(model, survival=[1, 0, 1, 0])
    dropped.compile("sgd", "sparse_categorical_crossentropy")
    dropped.fit(*dense_nets.data(32), batch_size=8, epochs=2, verbose=0)
    changed = [
        bool(np.any(old != new))
        for old, new in zip(before, model.get_weights(), strict=True)
    ]
    assert changed == [True] + [True] * 2 + [False] * 2 + [True] * 2 + [
        False
    ] * 2 + [True]


def count_in_python(counts, name):
    """A layer's call that counts when it runs, where Python can see it."""

    def count(x):
        counts[name] += 1
        return x

    if keras.backend.backend() != "tensorflow":
        return count
    import tensorflow as tf

    def count_in_graph(x):
        y = tf.numpy_function(count, [x], x.dtype)
        y.set_shape(x.shape)
        return x + 0 * tf.stop_gradient(y)

    return count_in_graph


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="there it is computed, and left out",
)
def test_what_is_dropped_is_not_computed():
    """Not even in the graph of a `fit`."""
    counts = {"block1": 0, "block2": 0}

    class Noted(keras.layers.Layer):
        def call(self, x):
            return count_in_python(counts, self.name[:6])(x)

        def compute_output_shape(self, shape):
            return shape

    x = inputs = keras.Input((5,))
    for k in (1, 2):
        f = keras.layers.Dense(5, name=f"block{k}_dense")(x)
        f = Noted(name=f"block{k}_noted")(f)
        x = keras.layers.Add(name=f"block{k}_add")([x, f])
    dropped = drop_blocks(keras.Model(inputs, x), survival=[0, 1])
    dropped.compile("sgd", "mse", jit_compile=False)
    dropped.train_on_batch(np.ones((2, 5)), np.ones((2, 5)))  # Keras tries it
    before = dict(counts)
    dropped.fit(np.ones((6, 5)), np.ones((6, 5)), batch_size=2, verbose=0)
    found = [counts[name] - before[name] for name in counts]
    assert found == [0, 3]


def test_a_layer_of_several_branches_stays_one(tmp_path):
    shared = keras.layers.Dense(5, name="shared")
    x = inputs = keras.Input((5,))
    for k in (1, 2):
        f = keras.layers.Dense(5, name=f"block{k}_dense")(x)
        x = keras.layers.Add(name=f"block{k}_add")([x, shared(f)])
    model = keras.Model(inputs, x)
    x = np.ones((2, 5), "float32")
    dropped = drop_blocks(model, survival=[0, 1])
    assert dropped.get_layer("shared") is shared
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(dropped(x, training=True)),
        keras.ops.convert_to_numpy(delete_blocks(model, ["block1_add"])(x)),
        atol=1e-6,
    )
    dropped.save(tmp_path / "dropped.keras")
    loaded = keras.saving.load_model(tmp_path / "dropped.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), dropped.predict(x, verbose=0), atol=1e-6
    )


def test_state_of_the_dropped_stays():
    """Their moving statistics do, and those of the others move."""
    model = tiny_run.network("ResNet", {"depth": 8})
    before = {w.path: np.array(w) for w in model.non_trainable_variables}
    x = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1))
    drop_blocks(model, survival=[1, 0, 1])(x, training=True)
    moved = {
        w.path.split("_conv")[0].split("_bn")[0].split("_shortcut")[0]
        for w in model.non_trainable_variables
        if np.any(np.array(w) != before[w.path])
    }
    assert "stage1_block1" in moved and "stage3_block1" in moved
    stayed = [
        w.path
        for w in model.non_trainable_variables
        if w.path.startswith("stage2_block1_bn")
        and np.all(np.array(w) == before[w.path])
    ]
    assert len(stayed) == 4


@pytest.mark.parametrize("eagerly", [False, True])
def test_decay_and_momentum_of_the_dropped_go_on(eagerly):
    """Their gradients are zero, where PyTorch would have none at all."""
    model = dense_nets.build(2)
    dropped = drop_blocks(model, survival=[1, 0])
    kernel = model.get_layer("stage1_block2_out").kernel
    before = np.array(kernel)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.5)
    dropped.compile(
        optimizer, "sparse_categorical_crossentropy", run_eagerly=eagerly
    )
    optimizer.build(dropped.trainable_variables)
    velocity = next(
        v
        for v in optimizer.variables
        if "block2_out" in v.path and "momentum" in v.path
    )
    velocity.assign(np.full(kernel.shape, 0.1, "float32"))
    dropped.train_on_batch(*dense_nets.data(8))
    # Keras decays the weight first, and the velocity has a momentum of 0.9.
    expected = 0.95 * before + 0.09
    np.testing.assert_allclose(np.array(kernel), expected, rtol=1e-5)


@pytest.mark.parametrize("freeze_first", [False, True])
def test_frozen_layers_of_a_branch_stay(freeze_first):
    """Kernels and statistics that autograd keeps, in blocks that work."""
    model = tiny_run.network("ResNet", {"depth": 8}, classifier_activation=None)
    frozen = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        or layer.name == "stage2_block1_conv1"
    ]
    dropped = None if freeze_first else drop_blocks(model, active=3)
    for layer in frozen:
        layer.trainable = False
    before = [np.array(w) for layer in frozen for w in layer.weights]
    dropped = dropped or drop_blocks(model, active=3)
    dropped.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    x = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 1))
    kernel = model.get_layer("stage2_block1_conv2").kernel
    free = np.array(kernel)
    dropped.fit(x, np.arange(8) % 10, batch_size=4, verbose=0)
    after = [np.array(w) for layer in frozen for w in layer.weights]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.any(free != np.array(kernel))


def test_blocks_within_a_block_have_gates_of_their_own():
    inputs = keras.Input((5,))
    x = start = keras.layers.Dense(5, name="stem")(inputs)
    for k in (1, 2):
        f = keras.layers.Dense(5, name=f"block{k}_dense")(x)
        x = keras.layers.Add(name=f"block{k}_add")([x, f])
    f = keras.layers.Dense(5, name="whole_dense")(x)
    model = keras.Model(inputs, keras.layers.Add(name="whole_add")([start, f]))
    names = [block.name for block in residual_blocks(model)]
    x, _ = dense_nets.data()
    for survival in ([0, 0, 1], [1, 0, 1], [0, 1, 0]):
        lost = [
            name
            for name, works in zip(names, survival, strict=True)
            if not works
        ]
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(
                drop_blocks(model, survival=survival)(x, training=True)
            ),
            keras.ops.convert_to_numpy(delete_blocks(model, lost)(x)),
            atol=1e-6,
        )


def test_blocks_within_a_long_shortcut():
    """As in a U-Net, whose skip goes round the blocks below."""
    inputs = keras.Input((5,))
    start = keras.layers.Dense(5, name="stem")(inputs)
    x = keras.layers.Dense(3, name="down")(start)
    f = keras.layers.Dense(3, name="inner_dense")(x)
    x = keras.layers.Add(name="inner_add")([x, f])
    x = keras.layers.Dense(5, name="up")(x)
    model = keras.Model(inputs, keras.layers.Add(name="outer")([start, x]))
    x, _ = dense_nets.data()
    dropped = drop_blocks(model, survival=[0, 1])
    inner = residual_blocks(model)[0].name
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(dropped(x, training=True)),
        keras.ops.convert_to_numpy(delete_blocks(model, [inner])(x)),
        atol=1e-6,
    )


def test_images_of_open_sizes():
    model = keras_resfam.ResNet(
        depth=8, input_shape=(None, None, 3), include_top=False, pooling="avg"
    )
    images = np.random.default_rng(0).uniform(0, 255, (2, 12, 16, 3))
    names = [block.name for block in residual_blocks(model)]
    dropped = drop_blocks(model, survival=[1, 0, 1])
    lesioned = delete_blocks(model, names[1:2])
    # In training both normalize by the batch.
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(dropped(images, training=True)),
        keras.ops.convert_to_numpy(lesioned(images, training=True)),
        atol=1e-5,
    )


def test_a_branch_that_adds_a_loss_is_refused():
    inputs = keras.Input((5,))
    f = keras.layers.Dense(5, activity_regularizer="l2", name="dense")(inputs)
    f = keras.layers.Dense(5, kernel_regularizer="l2", name="out")(f)
    model = keras.Model(inputs, keras.layers.Add(name="add")([inputs, f]))
    dropped = drop_blocks(model, survival=[1.0])
    assert len(dropped.losses) == 1
    with pytest.raises(ValueError, match="should have no other losses"):
        dropped(np.ones((2, 5), "float32"), training=True)


def test_batches_of_one_fit_draw_anew():
    """With one block in two, both learn within a few batches."""
    model = dense_nets.build(2)
    before = [np.array(w) for w in model.get_weights()]
    dropped = drop_blocks(model, active=1, seed=0)
    dropped.compile("sgd", "sparse_categorical_crossentropy")
    dropped.fit(*dense_nets.data(80), batch_size=4, verbose=0)
    assert all(
        np.any(old != new)
        for old, new in zip(before, model.get_weights(), strict=True)
    )


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = dense_nets.build(4)
    x, _ = dense_nets.data()
    dropped = drop_blocks(model, active=2, scale="inference", seed=5)
    dropped.save(tmp_path / "dropped.keras")
    loaded = keras.saving.load_model(tmp_path / "dropped.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), dropped.predict(x, verbose=0), atol=1e-6
    )
    assert set(draws(loaded, 5).sum(-1)) == {2}


def test_scaling_at_inference_and_in_training():
    model = dense_nets.build(2)
    model.get_layer("stage1_block2_out").set_weights([np.zeros((6, 6))])
    x, _ = dense_nets.data()
    halved = drop_blocks(model, survival=[0.5, 1], scale="inference")
    output = keras.ops.convert_to_numpy(halved(x, training=False))
    out = model.get_layer("stage1_block1_out")
    out.set_weights([0.5 * w for w in out.get_weights()])
    expected = dense_nets.Reference(model).predict(x)
    np.testing.assert_allclose(output, expected, atol=1e-5)
    doubled = drop_blocks(model, survival=[0.5, 1], scale="training")
    assert set(np.unique(draws(doubled, 20)[:, 0])) == {0, 2}
    assert set(draws(doubled, 20)[:, 1]) == {1}


def test_scales_are_not_rounded_to_half_precision():
    x = np.random.default_rng(0).uniform(1, 2, (1000, 1)).astype("float32")
    branch = keras.Input((1,), dtype="bfloat16")
    branch = keras.Model(branch, branch)
    gate = dropping.BlockGate(branch, 0, "training", dtype="bfloat16")
    scaled = gate(
        [keras.ops.cast(x, "bfloat16"), np.float32([1 / 0.85])], training=True
    )
    assert keras.backend.standardize_dtype(scaled.dtype) == "bfloat16"
    scaled = keras.ops.convert_to_numpy(keras.ops.cast(scaled, "float32"))
    # What single values lose is random; bfloat16 has 1.1797 for 1.1765.
    assert np.mean(scaled / x) == pytest.approx(1 / 0.85, rel=5e-4)


def test_linear_survival_ends_at_one_half():
    assert linear_survival(4) == [0.875, 0.75, 0.625, 0.5]
    assert linear_survival(2, last=1) == [1, 1]
    with pytest.raises(ValueError, match="`last`.*last=3"):
        linear_survival(4, last=3)


def test_blocks_are_dropped_once():
    dropped = drop_blocks(dense_nets.build(3), active=2)
    with pytest.raises(ValueError, match="should not drop blocks already"):
        drop_blocks(dropped, active=1)


@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        ("DMRNet", {"depth": 14}),
        ("DILNet", {"depth": 14}),
        ("WideResNet", {"depth": 10}),
        ("ResNet", {"depth": 14, "shortcut": "projection"}),
    ],
)
def test_the_blocks_are_the_models_own(builder, arguments):
    """Projections too, though the switches are nearer to the input."""
    model = tiny_run.network(builder, arguments)
    dropped = drop_blocks(model, active=1)
    pairs = zip(residual_blocks(model), residual_blocks(dropped), strict=True)
    for own, found in pairs:
        assert (own.name, own.shortcut) == (found.name, found.shortcut)
    for key, values in path_lengths(model).items():
        np.testing.assert_array_equal(path_lengths(dropped)[key], values)


@pytest.mark.parametrize("last", [-0.1, 1.1, 1 + 1e-9, "x"])
def test_a_last_survival_of_no_probability_is_refused(last):
    assert linear_survival(3, 1) == [1, 1, 1]
    with pytest.raises(ValueError, match="`last`.*at least 0 and at most 1"):
        linear_survival(3, last)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(), "Exactly one"),
        (dict(active=1, survival=[1, 1, 1]), "Exactly one"),
        (dict(active=4), "Received: active=4"),
        (dict(active=2.5), "Received: active=2.5"),
        (dict(survival=[0.5]), "3 probabilities"),
        (dict(survival=0.5), "3 probabilities"),
        (dict(survival="x"), "survival='x'"),
        (dict(survival=[[1], 1, 1]), r"Received: survival=\[\[1\], 1, 1\]"),
        (dict(survival=["1", 0.5, 0.5]), "3 probabilities"),
        (dict(survival=[0.5, 2, 1]), "3 probabilities"),
        (dict(active=1, scale="test"), "Received: scale='test'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        drop_blocks(dense_nets.build(3), **arguments)


def test_saved_in_the_older_format(tmp_path):
    model = tiny_run.network()
    dropped = drop_blocks(model, active=1, scale="inference")
    dropped.save(tmp_path / "dropped.h5")
    again = keras.saving.load_model(tmp_path / "dropped.h5")
    x = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1))
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), dropped.predict(x, verbose=0)
    )
