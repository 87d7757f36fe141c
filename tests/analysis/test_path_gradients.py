import itertools
import math

import keras
import numpy as np
import pytest

import dense_nets
import differentiate
import keras_resfam
import tiny_run
from keras_resfam.analysis import (
    drop_blocks,
    effective_lengths,
    gradient_by_path_length,
)
from keras_resfam.analysis.path_gradients import PathGradient


@pytest.fixture
def float64():
    usual = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    yield
    if keras.backend.backend() == "jax":
        jax.config.update("jax_enable_x64", False)
    keras.config.set_floatx(usual)
    keras.config.set_dtype_policy(usual)


def all_masks(n):
    return [np.array(mask) for mask in itertools.product((0, 1), repeat=n)]


def rows(mask, examples):
    return np.tile(mask, (examples, 1)).astype("float64")


def true_gradient(model, x, y):
    """Of the summed cross-entropy, by the backend's own differentiation."""

    def loss(images):
        probabilities = model(images, training=False)
        true = keras.ops.one_hot(y, probabilities.shape[-1], dtype=x.dtype)
        return -keras.ops.sum(true * keras.ops.log(probabilities))

    jit = keras.backend.backend() == "jax"  # its eager mode compiles each op
    return differentiate.gradients(loss, [x], jit=jit)[0]


def linear_network(blocks):
    """Linear residual blocks of convolutions: dense layers of Keras on torch
    compute in float32, whatever their dtype.
    """
    x = inputs = keras.Input((3, 4))
    for _ in range(blocks):
        f = keras.layers.Conv1D(5, 3, padding="same")(x)
        f = keras.layers.Conv1D(4, 1)(f)
        x = keras.layers.Add()([x, f])
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Softmax()(x))


def test_gradients_of_all_paths_sum_to_the_gradient(float64):
    model = linear_network(6)
    x = np.random.default_rng(0).normal(size=(3, 3, 4))
    y = np.array([0, 5, 11])
    gradient = PathGradient(model)
    paths = [gradient(x, y, rows(mask, 3)) for mask in all_masks(6)]
    assert len(paths) == 64 and paths[0].dtype == "float64"
    expected = true_gradient(model, x, y)
    assert np.abs(expected).min() > 1e-6
    np.testing.assert_allclose(sum(paths), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "builder, arguments",
    [
        ("ResNet", {"depth": 8, "preactivation": True}),
        ("WideResNet", {"depth": 10, "width": 2}),
        ("DMRNet", {"depth": 8}),
        ("DILNet", {"depth": 8}),
    ],
)
def test_choices_of_any_network_sum_to_its_gradient(
    float64, builder, arguments
):
    """The forward pass being fixed, a block's Jacobians just add up."""
    model = tiny_run.network(builder, arguments)
    head = model.layers[-1]
    head.set_weights([0.01 * w for w in head.get_weights()])
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1))
    y = np.array([3, 7])
    gradient = PathGradient(model)
    paths = [gradient(x, y, rows(mask, 2)) for mask in all_masks(3)]
    expected = true_gradient(model, x, y)
    assert np.abs(expected).max() > 0
    scale = np.abs(expected).max()
    np.testing.assert_allclose(sum(paths) / scale, expected / scale, atol=1e-6)


@pytest.mark.parametrize("use_ops", [False, True])
def test_every_length_against_brute_force(use_ops):
    model = dense_nets.build(8, use_ops=use_ops)
    reference = dense_nets.Reference(model)
    x, y = dense_nets.data(6)
    result = gradient_by_path_length(
        model, x, y, samples="all", batch_size=4, verbose=0
    )
    for k in range(9):
        norms = [
            np.linalg.norm(reference.gradient(x, y, on), axis=-1)
            for on in itertools.combinations(range(8), k)
        ]
        expected = math.log10(np.mean(norms))
        assert result["log10_gradient"][k] == pytest.approx(expected, abs=1e-4)
        assert result["log10_contribution"][k] == pytest.approx(
            expected + math.log10(math.comb(8, k)), abs=1e-4
        )
    assert result["share"].sum() == pytest.approx(1)


def softmax_in_two_layers(x):
    x = keras.layers.Activation(keras.ops.softmax)(x)
    return keras.layers.Activation("linear", dtype="float32")(x)


@pytest.mark.parametrize("end", [keras.ops.softmax, softmax_in_two_layers])
def test_softmax_is_no_part_of_the_logits(end):
    model = dense_nets.build(3)
    head = model.get_layer("predictions")
    logits = keras.ops.matmul(head.input, head.kernel)
    other = keras.Model(model.input, end(logits))
    data = dense_nets.data(6)
    found, expected = (
        gradient_by_path_length(net, *data, samples="all", verbose=0)
        for net in (other, model)
    )
    np.testing.assert_allclose(
        found["log10_gradient"], expected["log10_gradient"], atol=1e-5
    )


def test_sampling_comes_near_to_enumeration_and_repeats_by_seed():
    model = dense_nets.build(6)
    x, y = dense_nets.data(20)
    options = dict(lengths=[0, 2, 3, 6], verbose=0)
    exact = gradient_by_path_length(model, x, y, samples="all", **options)
    drawn = gradient_by_path_length(model, x, y, samples=30, **options)
    again = gradient_by_path_length(model, x, y, samples=30, **options)
    other = gradient_by_path_length(model, x, y, samples=30, seed=1, **options)
    for name in drawn:
        np.testing.assert_array_equal(drawn[name], again[name])
    assert np.any(other["log10_gradient"] != drawn["log10_gradient"])
    np.testing.assert_allclose(
        drawn["log10_gradient"], exact["log10_gradient"], atol=0.1
    )
    for k in (0, 3):  # one choice only: nothing is drawn
        assert drawn["log10_gradient"][k] == pytest.approx(
            exact["log10_gradient"][k], abs=1e-5
        )


def decaying(factor, blocks=40):
    """A net whose paths lose so much of the gradient with every block."""
    model = dense_nets.build(blocks, activation=None)
    for k in range(1, blocks + 1):
        into, out = (
            model.get_layer(f"stage1_block{k}_{end}") for end in ("in", "out")
        )
        into.set_weights([np.eye(6)])
        out.set_weights([factor * np.eye(6)])
    return model


@pytest.mark.parametrize("exponent", [-5, -3.45, -3, -1])
@pytest.mark.parametrize("lengths", [range(0, 41, 5), [0, 38], [0, 40]])
def test_nothing_underflows(exponent, lengths):
    """Branches of a thousandth: 40 of them leave 1e-120 of a gradient."""
    result = gradient_by_path_length(
        decaying(10.0**exponent),
        *dense_nets.data(2),
        samples=1,
        lengths=lengths,
        verbose=0,
    )
    logs = result["log10_gradient"]
    np.testing.assert_allclose(
        logs, logs[0] + exponent * np.array(lengths), atol=1e-4
    )


def parallel():
    """(x + f(h)) + g(h): what the second block adds goes round the first."""
    x = inputs = keras.Input((4,))
    h = keras.layers.Dense(4, "tanh", name="lead")(x)
    a = keras.layers.Add()([x, keras.layers.Dense(4)(h)])
    a = keras.layers.Add()([a, keras.layers.Dense(4)(h)])
    return keras.Model(inputs, keras.layers.Dense(3)(a))


def nested():
    """A block within the branch of another."""
    x = inputs = keras.Input((4,))
    f = keras.layers.Dense(4)(x)
    f = keras.layers.Add()([f, keras.layers.Dense(4)(f)])
    a = keras.layers.Add()([x, keras.layers.Dense(4)(f)])
    return keras.Model(inputs, keras.layers.Dense(3)(a))


def several_taps():
    """What each block gives goes to the head as well."""
    x = inputs = keras.Input((4,))
    taps = [x]
    for _ in range(3):
        x = keras.layers.Add()([x, keras.layers.Dense(4, "tanh")(x)])
        taps.append(x)
    x = keras.layers.Concatenate()(taps)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("build", [parallel, nested, several_taps])
def test_the_scale_is_that_of_every_path(build):
    keras.utils.set_random_seed(0)
    gradient = PathGradient(build())
    x, y = np.random.default_rng(0).normal(size=(2, 4)), np.array([0, 2])
    for mask in all_masks(gradient.blocks):
        plain, scaled = (
            gradient(x, y, rows(mask, 2), exponent) for exponent in (0, 12)
        )
        np.testing.assert_allclose(scaled / 2**12, plain, rtol=1e-4)


def test_a_tensor_that_is_added_twice_counts_twice():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    f = keras.layers.Dense(4)(inputs)
    x = keras.layers.Add()([inputs, f, f])
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
    images = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    labels = np.array([0, 2])
    gradient = PathGradient(model)
    paths = [gradient(images, labels, rows(m, 2)) for m in all_masks(1)]
    expected = true_gradient(model, images, labels)
    np.testing.assert_allclose(sum(paths), expected, rtol=1e-4)


def test_switches_of_blocks_are_no_images():
    model = keras_resfam.ResNet(depth=8, input_shape=(8, 8, 3))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))
    plain, dropping = (
        gradient_by_path_length(m, images, [1, 2], samples=2, verbose=0)
        for m in (model, drop_blocks(model, active=1))
    )
    for name, values in plain.items():
        np.testing.assert_allclose(dropping[name], values, rtol=1e-3)


@pytest.fixture
def float32():
    yield
    keras.config.set_dtype_policy("float32")


def test_half_precision_holds_no_less(float32):
    """Its range is far below that of the powers of two."""
    found = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        result = gradient_by_path_length(
            decaying(0.03, 12), *dense_nets.data(3), samples=2, verbose=0
        )
        found.append(result["log10_gradient"])
    assert found[0][0] - found[0][-1] > 12
    np.testing.assert_allclose(found[1], found[0], atol=0.2)


def test_dead_branches_carry_nothing():
    result = gradient_by_path_length(
        decaying(0.0, blocks=4), *dense_nets.data(2), verbose=0
    )
    assert np.isfinite(result["log10_gradient"][0])
    assert np.all(result["log10_gradient"][1:] == -np.inf)
    np.testing.assert_array_equal(result["share"], [1, 0, 0, 0, 0])


def test_block_that_ends_the_model_is_switched_too():
    x = inputs = keras.Input((4,))
    for k in range(2):
        f = keras.layers.Dense(4, name=f"block{k}_dense")(x)
        x = keras.layers.Add(name=f"block{k}_add")([x, f])
    gradient = PathGradient(keras.Model(inputs, x))
    x, y = np.random.default_rng(0).normal(size=(1, 4)), np.array([1])
    found = [gradient(x, y, np.array([mask])) for mask in all_masks(2)]
    assert len({array.tobytes() for array in found}) == 4


def test_effective_lengths_are_the_shortest_range():
    share = np.array([0.01, 0.04, 0.3, 0.4, 0.2, 0.04, 0.01])
    result = {"length": np.arange(3, 10), "share": share}
    assert effective_lengths(result, 0.9) == (5, 7)
    assert effective_lengths(result, 1.0) == (3, 9)
    for mass in 0, 1.1, "a":
        with pytest.raises(ValueError, match=f"Received: mass={mass!r}"):
            effective_lengths(result, mass)
    with pytest.raises(ValueError, match="without gaps.*lengths="):
        effective_lengths({**result, "length": np.arange(0, 14, 2)})


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(lengths=[4]), "integers from 0 to 3"),
        (dict(lengths=[2.0]), r"`lengths`.*Received: lengths=\[2.0\]"),
        (dict(lengths=1.5), r"`lengths`.*Received: lengths=\[1.5\]"),
        (dict(samples=0), "`samples`.*Received: samples=0"),
        (dict(samples="ALL"), "`samples`.*'ALL'"),
        (dict(batch_size=0), "`batch_size`.*=0"),
        (dict(seed=-1), "`seed`.*=-1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradient_by_path_length(
            dense_nets.build(3), *dense_nets.data(2), **arguments
        )


@pytest.mark.parametrize("shape", [(2, 7), (2,), (2, 5, 1)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(5,\).*images of shape"):
        gradient_by_path_length(dense_nets.build(3), np.ones(shape), [0, 1])


def test_labels_of_no_class_are_refused():
    x, _ = dense_nets.data(2)
    with pytest.raises(ValueError, match="integers from 0 to 3.*from 0 to 4"):
        gradient_by_path_length(dense_nets.build(3), x, np.array([0, 4]))


def test_softmax_that_the_graph_does_not_show_is_refused():
    model = dense_nets.build(2)
    logits = model.get_layer("predictions").input
    powers = keras.ops.exp(logits)
    odd = powers / keras.ops.sum(powers, axis=-1, keepdims=True)
    with pytest.raises(ValueError, match="`model`.*graph has no softmax"):
        gradient_by_path_length(
            keras.Model(model.input, odd), *dense_nets.data(2), verbose=0
        )


@pytest.mark.parametrize(
    "last",
    [
        lambda x: keras.layers.Dense(4, "sigmoid")(x),
        lambda x: keras.layers.Activation("sigmoid")(x),
        keras.ops.sigmoid,
        keras.ops.hard_sigmoid,
    ],
)
def test_another_activation_is_refused(last):
    model = dense_nets.build(2)
    model = keras.Model(model.input, last(model.output))
    with pytest.raises(ValueError, match="softmax.*sigmoid"):
        gradient_by_path_length(model, *dense_nets.data(2), verbose=0)


def test_one_class_is_refused():
    x = inputs = keras.Input((3,))
    x = keras.layers.Add()([x, keras.layers.Dense(3)(x)])
    yes = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(x))
    with pytest.raises(ValueError, match="two classes"):
        gradient_by_path_length(yes, np.zeros((2, 3)), np.zeros(2, int))


def test_plain_networks_are_refused():
    x, y = dense_nets.data(2)
    plain = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)])
    with pytest.raises(ValueError, match="residual blocks"):
        gradient_by_path_length(plain, x, y)


def test_quantized_networks_are_refused():
    model = dense_nets.build(2)
    model.quantize("int8")
    name = next(
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense)
    )
    with pytest.raises(ValueError, match=f"not be quantized.*{name}"):
        gradient_by_path_length(model, *dense_nets.data(2), verbose=0)
