"""SGD against steps by hand, in NumPy float64; schedules by the step."""

import keras
import numpy as np
import pytest
from keras import ops

from training import recipes
from training.run import optimizers
from training.run.optimizers import fuses_sgd

GRADIENTS = np.random.default_rng(0).normal(size=(6, 3))
START = np.array([1.0, -2.0, 0.5])


def torch_steps(rates, momentum, nesterov, decay, restarts=()):
    """torch.optim.SGD, as its documentation has it."""
    weight, velocity = START.copy(), np.zeros(3)
    for step, (gradient, rate) in enumerate(zip(GRADIENTS, rates, strict=True)):
        gradient = gradient + decay * weight
        if step in restarts:
            velocity = np.zeros(3)
        velocity = momentum * velocity + gradient
        move = gradient + momentum * velocity if nesterov else velocity
        weight = weight - rate * move
    return weight


def keras_steps(optimizer, name="kernel"):
    variable = keras.Variable(START, name=name, dtype="float32")
    optimizer.build([variable])
    for gradient in GRADIENTS:
        gradient = ops.convert_to_tensor(gradient, "float32")
        optimizer.apply([gradient], [variable])
    return ops.convert_to_numpy(variable)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_step_is_torchs(nesterov, decay):
    rates = [0.1] * 3 + [0.01] * 3
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [2], [0.1, 0.01]
    )
    optimizer = optimizers.SGD(
        schedule, momentum=0.9, nesterov=nesterov, coupled_decay=decay
    )
    np.testing.assert_allclose(
        keras_steps(optimizer),
        torch_steps(rates, 0.9, nesterov, decay),
        rtol=1e-5,
    )


def turn(variable):
    """Stores a kernel in another order of PyTorch's memory."""
    if keras.backend.backend() == "torch":
        value = variable.value
        value.data = value.data.permute(3, 0, 1, 2).contiguous()
        value.data = value.data.permute(1, 2, 3, 0)


def test_step_is_the_same_in_any_order_of_memory():
    """Of PyTorch's tensors, whose kernel goes through memory as it lies."""
    if keras.backend.backend() != "torch":
        pytest.skip("only PyTorch has kernels in an order of their own")
    draw = np.random.default_rng(0)
    shape = 3, 3, 2, 4
    start, gradient = draw.normal(size=(2, *shape)).astype("float32")
    found = []
    for turned in (0, 1, 2):  # neither, the weight, the weight and velocity
        kernel = keras.Variable(start, name="kernel")
        optimizer = optimizers.SGD(0.1, coupled_decay=0.1)
        optimizer.build([kernel])
        variables = [kernel, *optimizer.velocities]
        for variable in variables[:turned]:
            turn(variable)
        # Autograd gives it in the weight's order.
        g = ops.zeros_like(kernel).copy_(ops.convert_to_tensor(gradient))
        assert fuses_sgd(g, *(v.value for v in variables)) == (turned != 1)
        for _ in range(3):
            optimizer.apply([g], [kernel])
        found.append(ops.convert_to_numpy(kernel))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)


def test_weights_step_together_as_each_alone():
    draw = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "beta": (4,), "turned": (3, 3, 2, 4)}
    starts = [draw.normal(size=shape) for shape in shapes.values()]
    gradients = [[draw.normal(size=g.shape) for g in starts] for _ in range(4)]

    def stepped(chosen):
        variables = [
            keras.Variable(starts[i], name=list(shapes)[i], dtype="float32")
            for i in chosen
        ]
        optimizer = optimizers.SGD(0.1, coupled_decay=0.1, restarts=(2,))
        optimizer.exclude_from_weight_decay(var_names=["beta"])
        optimizer.build(variables)
        if 2 in chosen:  # in an order that its velocity has not
            turn(variables[-1])
        for step in gradients:
            of_step = [
                ops.convert_to_tensor(step[i], "float32") for i in chosen
            ]
            optimizer.apply(of_step, variables)
        return list(map(ops.convert_to_numpy, variables))

    alone = [stepped([i])[0] for i in range(3)]
    for together, by_itself in zip(stepped([0, 1, 2]), alone, strict=True):
        np.testing.assert_allclose(together, by_itself, rtol=1e-6)


def test_restarts_zero_the_velocity():
    optimizer = optimizers.SGD(0.1, coupled_decay=0.1, restarts=(2, 4))
    expected = torch_steps([0.1] * 6, 0.9, True, 0.1, restarts=(2, 4))
    np.testing.assert_allclose(keras_steps(optimizer), expected, rtol=1e-5)


def test_kernels_only_decay_spares_the_rest():
    recipe = recipes.find("dmrnet_14_cifar10_short")
    recipe = recipe.replace(schedule="steps", warmup=0, weight_decay=0.1)
    kernel = keras_steps(optimizers.build(recipe, 1), "kernel")
    gamma = keras_steps(optimizers.build(recipe, 1), "gamma")
    rates = [recipe.learning_rate] * 6
    np.testing.assert_allclose(
        kernel, torch_steps(rates, 0.9, True, 0.1), rtol=1e-5
    )
    np.testing.assert_allclose(
        gamma, torch_steps(rates, 0.9, True, 0.0), rtol=1e-5
    )


def test_papers_decay_all_variables():
    recipe = recipes.find("wrn_28_10_cifar10")
    gamma = keras_steps(optimizers.build(recipe, 1000), "gamma")
    expected = torch_steps([0.1] * 6, 0.9, True, 5e-4)
    np.testing.assert_allclose(gamma, expected, rtol=1e-5)


def test_a_recipe_zeroes_the_velocity_at_its_drops():
    recipe = recipes.find("wrn_28_10_cifar10")
    recipe = recipe.replace(epochs=6, drops=(2, 4), weight_decay=0.1)
    rates = [0.1, 0.1, 0.02, 0.02, 0.004, 0.004]
    expected = torch_steps(rates, 0.9, True, 0.1, restarts=(2, 4))
    found = keras_steps(optimizers.build(recipe, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_clipping_is_of_the_whole_gradient():
    recipe = recipes.find("digits").replace(
        clip_norm=1.0,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        schedule="steps",
        warmup=0,
        learning_rate=1.0,
    )
    first = keras.Variable([0.0, 0.0], dtype="float32")
    second = keras.Variable([0.0], dtype="float32")
    gradients = [[2.0, 0.0], [0.0]], [[1.0, 2.0], [2.0]]
    optimizer = optimizers.build(recipe, 1)
    for a, b in gradients:
        optimizer.apply(
            [ops.convert_to_tensor(a), ops.convert_to_tensor(b)],
            [first, second],
        )
    # The first is scaled from norm 2 to 1, the second from norm 3.
    np.testing.assert_allclose(
        ops.convert_to_numpy(first), [-1 - 1 / 3, -2 / 3], rtol=1e-6
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(second), [-2 / 3], rtol=1e-6
    )


def rate(recipe, steps, step):
    schedule = optimizers.learning_rate(recipe, steps)
    if isinstance(schedule, float):
        return schedule
    return float(ops.convert_to_numpy(schedule(step)))


def test_wide_resnet_drops_where_the_authors_log_does():
    recipe = recipes.find("wrn_28_10_cifar10")
    # Epochs of the log count from 1: "epoch 59 lr 0.1, epoch 60 lr 0.02".
    last_of_59, first_of_60 = 59 * 390 - 1, 59 * 390
    assert rate(recipe, 390, last_of_59) == pytest.approx(0.1)
    assert rate(recipe, 390, first_of_60) == pytest.approx(0.02)
    assert rate(recipe, 390, 200 * 390 - 1) == pytest.approx(0.1 * 0.2**3)


def test_cosine_with_warmup():
    recipe = recipes.find("digits").replace(
        epochs=10, warmup=2, learning_rate=0.4
    )
    assert rate(recipe, 100, 0) == 0
    assert rate(recipe, 100, 100) == pytest.approx(0.2)
    assert rate(recipe, 100, 200) == pytest.approx(0.4)
    expected = 0.2 * (1 + np.cos(np.pi * 400 / 800))
    assert rate(recipe, 100, 600) == pytest.approx(expected, rel=1e-5)
    assert rate(recipe, 100, 1000) == pytest.approx(0, abs=1e-7)


def test_an_integer_for_a_rate_is_as_good():
    recipe = recipes.find("digits").replace(warmup=0, restarts=(10,))
    for schedule in (recipe, recipe.replace(schedule="steps", restarts=())):
        for step in (0, 500, 1500):
            integer = schedule.replace(learning_rate=1)
            assert rate(integer, 100, step) == rate(
                schedule.replace(learning_rate=1.0), 100, step
            )


def test_cosine_starts_again():
    recipe = recipes.find("digits").replace(
        epochs=10, warmup=2, learning_rate=0.4
    )
    longer = recipe.replace(epochs=16, restarts=(10, 12))
    for step in range(0, 1000, 50):  # until then, as if that were all
        assert rate(longer, 100, step) == rate(recipe, 100, step)
    assert rate(longer, 100, 999) == pytest.approx(0, abs=1e-5)
    assert rate(longer, 100, 1000) == pytest.approx(0.4)
    assert rate(longer, 100, 1100) == pytest.approx(0.2)
    assert rate(longer, 100, 1200) == pytest.approx(0.4)
    expected = 0.2 * (1 + np.cos(np.pi * 100 / 400))
    assert rate(longer, 100, 1300) == pytest.approx(expected, rel=1e-5)
    assert rate(longer, 100, 1600) == pytest.approx(0, abs=1e-7)
