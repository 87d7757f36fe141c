import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differentiate import gradients
from keras_resfam.initializers import Orthonormal
from keras_resfam.layers import Conv2D
from keras_resfam.regularizers import (
    DoubleSoftOrthogonalityRegularizer,
    OrthogonalConvolutionRegularizer,
    OrthonormalRegularizer,
    SpectralRestrictedIsometryRegularizer,
)

OTHERS = (
    DoubleSoftOrthogonalityRegularizer,
    SpectralRestrictedIsometryRegularizer,
    OrthogonalConvolutionRegularizer,
)
ALL = pytest.mark.parametrize("kind", [OrthonormalRegularizer, *OTHERS])


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


SHAPES = [
    *[(64, 10), (10, 64), (3, 3, 16, 32), (3, 3, 3, 64), (1, 1, 8, 20)],
    *[(5, 8, 12), (3, 3, 3, 4, 8)],  # of Conv1D, and of Conv3D
]


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


@ALL
def test_models_train_in_float16(kind):
    """Where TensorFlow adds no losses of several types."""
    before = keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        dense = keras.layers.Dense(3, "softmax", kernel_regularizer=kind(0.1))
        model = keras.Sequential([keras.Input((6,)), dense])
        model.compile("sgd", "sparse_categorical_crossentropy")
        start = model.get_weights()[0]
        history = model.fit(np.zeros((4, 6)), np.zeros(4), verbose=0).history
        assert np.isfinite(history["loss"]).all()
        # Of images of zeros, only the penalty has a gradient by the kernel.
        assert (model.get_weights()[0] != start).any()
    finally:
        keras.config.set_floatx(before)
        # Keras makes the policy from floatx when the first layer asks for it.
        keras.config.set_dtype_policy(before)


@ALL
def test_kernels_of_groups_are_refused(kind):
    with pytest.raises(ValueError, match="`groups`.*Received.*groups=2"):
        Conv2D(4, 3, groups=2, kernel_regularizer=kind())


def matrix(w):
    return w.astype("float64").reshape(-1, w.shape[-1])


def numeric_gradient(function, w, step=1e-6):
    """By central differences, in float64."""
    found = np.zeros(w.shape)
    for index in np.ndindex(w.shape):
        moved = [w.astype("float64") for _ in range(2)]
        for values, sign in zip(moved, (1, -1), strict=True):
            values[index] += sign * step
        found[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found


def check(regularizer, expected, w, jit=True):
    """The value and the gradient of a regularizer against NumPy's."""
    (found,) = gradients(regularizer, [w], jit=jit)
    value = keras.ops.convert_to_numpy(regularizer(keras.ops.array(w)))
    np.testing.assert_allclose(value, expected(w), rtol=1e-5)
    exact = numeric_gradient(expected, w)
    atol = 1e-4 * np.abs(exact).max()
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=atol)


SMALL = [(7, 4), (4, 7), (3, 4, 5), (3, 3, 2, 4), (3, 1, 3, 2, 3)]


@pytest.mark.parametrize("shape", SMALL)
def test_double_soft_orthogonality(shape):
    def expected(w):
        w = matrix(w)
        return 0.3 * sum(
            np.sum((gram - np.eye(len(gram))) ** 2)
            for gram in (w.T @ w, w @ w.T)
        )

    check(DoubleSoftOrthogonalityRegularizer(0.3), expected, kernel(shape))


@pytest.mark.parametrize("shape", SMALL)
def test_power_iteration_comes_to_the_spectral_norm(shape):
    def expected(w):
        w = matrix(w)
        w = w if len(w) >= len(w.T) else w.T
        return 0.3 * np.linalg.norm(w.T @ w - np.eye(len(w.T)), 2)

    regularizer = SpectralRestrictedIsometryRegularizer(0.3, iterations=40)
    w = kernel(shape, seed=3)  # whose largest values are far apart
    check(regularizer, expected, w, jit=False)
    # By the paper's two iterations: an estimate from below.
    two = SpectralRestrictedIsometryRegularizer(0.3)
    w = kernel(shape)
    share = float(keras.ops.convert_to_numpy(two(keras.ops.array(w))))
    assert 0.5 < share / expected(w) < 1 + 1e-5
    eager, compiled = (gradients(two, [w], jit=jit)[0] for jit in (False, True))
    np.testing.assert_allclose(compiled, eager, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("shape", [*SMALL, (5, 2, 3), (5, 3, 1, 2)])
def test_orthogonal_convolutions(shape, strides):
    """Against the convolution's own matrix, over a large image.

    Its rows are the filters at every place: their products with the filters in
    the middle are what the regularizer convolves.
    """

    def expected(w):
        w = w.astype("float64")
        *sizes, _, filters = w.shape
        reach = [size * strides for size in sizes]  # further than they meet
        places = [range(0, 2 * r + 1, strides) for r in reach]
        image = [2 * r + size for r, size in zip(reach, sizes, strict=True)]
        rows, middle = [], []
        for place in itertools.product(*places):
            window = tuple(
                slice(p, p + size) for p, size in zip(place, sizes, strict=True)
            )
            for k in range(filters):
                row = np.zeros((*image, w.shape[-2]))
                row[window] = w[..., k]
                rows.append(row.ravel())
                middle.append(list(place) == reach)
        rows, middle = np.array(rows), np.array(middle)
        error = rows[middle] @ rows.T - np.eye(len(rows))[middle]
        return 0.3 * np.sum(error**2)

    regularizer = OrthogonalConvolutionRegularizer(0.3, strides)
    check(regularizer, expected, kernel(shape))


@pytest.mark.parametrize("kind", OTHERS)
def test_the_others_find_no_fault_with_square_orthonormal_kernels(kind):
    w = Orthonormal(seed=3)((1, 1, 8, 8))
    (found,) = gradients(kind(1.0), [keras.ops.convert_to_numpy(w)])
    assert float(keras.ops.convert_to_numpy(kind(1.0)(w))) < 1e-5
    assert np.isfinite(found).all()


@ALL
def test_config_round_trip(kind):
    regularizer = keras.regularizers.deserialize(
        keras.regularizers.serialize(kind(2e-4))
    )
    assert isinstance(regularizer, kind)
    assert regularizer.factor == 2e-4
    assert regularizer.get_config() == kind(2e-4).get_config()


@pytest.mark.parametrize(
    "regularizer, name, value",
    [
        (SpectralRestrictedIsometryRegularizer(iterations=5), "iterations", 5),
        (OrthogonalConvolutionRegularizer(strides=2), "strides", 2),
    ],
)
def test_config_has_the_other_arguments(regularizer, name, value):
    assert regularizer.get_config()[name] == value
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
            type(regularizer)(**{name: bad})


@ALL
@pytest.mark.parametrize("factor", [-1e-4, math.nan, math.inf, "1", None])
def test_bad_factor(kind, factor):
    with pytest.raises(ValueError, match="`factor`.*Received: factor="):
        kind(factor)


@ALL
@pytest.mark.parametrize("shape", [(3,), (1, 2, 3, 4, 5, 6)])
def test_bad_rank(kind, shape):
    with pytest.raises(ValueError, match="rank 2.*rank 3.*Received: x.shape="):
        kind()(keras.ops.ones(shape))
