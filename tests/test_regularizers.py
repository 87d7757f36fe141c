import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differentiate import gradients
from keras_resfam.initializers import Orthonormal
from keras_resfam.regularizers import OrthonormalRegularizer


def reference(kernel, factor):
    """Value and gradient of equation 3 in float64, group by group."""
    w = kernel.astype("float64").reshape(-1, kernel.shape[-1])
    fan_in, filters = w.shape
    value, gradient = 0.0, np.zeros_like(w)
    for group in range(math.ceil(filters / fan_in)):
        columns = slice(group * fan_in, (group + 1) * fan_in)
        part = w[:, columns]
        error = part.T @ part - np.eye(part.shape[1])
        value += factor / 2 * np.sum(error**2)
        gradient[:, columns] = 2 * factor * part @ error
    return value, gradient.reshape(kernel.shape)


def kernel(shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape) / math.sqrt(
        math.prod(shape[:-1])
    )
    return values.astype("float32")


SHAPES = [(64, 10), (10, 64), (3, 3, 16, 32), (3, 3, 3, 64), (1, 1, 8, 20)]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape, jit):
    w = kernel(shape)
    regularizer = OrthonormalRegularizer(3e-2)
    value, gradient = reference(w, 3e-2)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(regularizer(keras.ops.array(w))),
        value,
        rtol=1e-5,
    )
    (found,) = gradients(regularizer, [w], jit=jit)
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.integers(1, 20),
    st.floats(0, 10),
)
def test_value_for_any_shape(window, filters, factor):
    w = kernel((*window, filters))
    found = OrthonormalRegularizer(factor)(keras.ops.array(w))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found),
        reference(w, factor)[0],
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_penalised_where_the_initializer_starts(shape):
    penalty = OrthonormalRegularizer(1.0)(Orthonormal(seed=3)(shape))
    assert float(keras.ops.convert_to_numpy(penalty)) < 1e-9


def test_float32_inside_mixed_precision():
    w = kernel((3, 3, 16, 32))
    half = keras.ops.cast(keras.ops.array(w), "bfloat16")
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(half, "float32"))
    penalty = OrthonormalRegularizer(1.0)(half)
    assert keras.backend.standardize_dtype(penalty.dtype) == "float32"
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(penalty),
        reference(rounded, 1.0)[0],
        rtol=1e-5,  # bfloat16 sums would be off by 1e-2
    )


def test_a_layer_adds_the_penalty_to_the_loss_under_mixed_precision():
    layer = keras.layers.Conv2D(
        8,
        3,
        kernel_regularizer=OrthonormalRegularizer(0.5),
        dtype="mixed_bfloat16",
    )
    layer.build((None, 8, 8, 3))
    w = keras.ops.convert_to_numpy(layer.kernel)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer.losses[0]),
        reference(w, 0.5)[0],
        rtol=1e-5,
    )


def test_config_round_trip():
    regularizer = keras.regularizers.deserialize(
        keras.regularizers.serialize(OrthonormalRegularizer(2e-4))
    )
    assert isinstance(regularizer, OrthonormalRegularizer)
    assert regularizer.factor == 2e-4


@pytest.mark.parametrize("factor", [-1e-4, math.nan, math.inf, "1", None])
def test_bad_factor(factor):
    with pytest.raises(ValueError, match="`factor`.*Received: factor="):
        OrthonormalRegularizer(factor)


@pytest.mark.parametrize("shape", [(3,), (3, 3, 3), (1, 2, 3, 4, 5)])
def test_bad_rank(shape):
    with pytest.raises(ValueError, match="rank 2.*rank 4.*Received: x.shape="):
        OrthonormalRegularizer()(keras.ops.ones(shape))
