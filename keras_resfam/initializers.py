"""Initializers that give the same weights on every backend.

They draw random values with NumPy, so a seed gives the same values everywhere.
This is also faster on JAX, which would compile its random generators for every
shape. That takes longer than everything else in building a network.
"""

import contextlib
import contextvars
import math

import keras
import numpy as np

from keras_resfam._checks import check_integer, check_number, is_integer


def column_groups(fan_in, filters):
    """Splits filters into groups that can be orthonormal.

    At most `fan_in` vectors of `fan_in` dimensions can be orthogonal. If there
    are more filters, they are divided into `ceil(filters / fan_in)` groups (Xie
    et al. 2017, section 4).

    Args:
        fan_in: int. The dimension of a filter.
        filters: int. The number of filters.

    Returns:
        A list of `(start, stop)` column ranges.
    """
    check_integer("fan_in", fan_in)
    check_integer("filters", filters)
    return [
        (start, min(start + fan_in, filters))
        for start in range(0, filters, fan_in)
    ]


_undrawn = contextvars.ContextVar("undrawn", default=False)


@contextlib.contextmanager
def undrawn():
    """Context manager in which initializers return arbitrary values.

    It is used before trained weights are loaded, which replace all of them. To
    draw the 69 million random weights of a WRN-50-2 takes longer than to load
    trained ones.
    """
    token = _undrawn.set(True)
    try:
        yield
    finally:
        _undrawn.reset(token)


class _Drawn:
    """Mixin that makes an initializer of Keras draw values with NumPy."""

    def __call__(self, shape, dtype=None):
        sizes = isinstance(shape, (tuple, list))
        sizes = sizes and all(is_integer(size, 1) for size in shape)
        if not sizes or len(shape) < 2:
            raise ValueError(
                "`shape` should have at least two axes, none of them empty, "
                "and the number of filters last. "
                f"Received: shape={shape!r}"
            )
        dtype = _checked_dtype(dtype)
        if _undrawn.get():
            return keras.ops.empty(shape, dtype)
        seed = self.seed
        if isinstance(seed, int):
            seed %= 2**64  # Keras allows negative seeds, but NumPy does not
        else:
            seed = keras.ops.convert_to_numpy(seed.next())
        values = self._draw_kernel(np.random.default_rng(seed), tuple(shape))
        values = values.astype("float32", copy=False).reshape(shape)
        return keras.ops.cast(keras.ops.array(values), dtype)

    def _draw_kernel(self, generator, shape):
        return self._draw(generator, math.prod(shape[:-1]), shape[-1])


def _checked_dtype(dtype):
    """Returns a type's name in Keras; `None` is its default type."""
    try:
        return keras.backend.standardize_dtype(dtype)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`dtype` should be the name of a numeric type. "
            f"Received: dtype={dtype!r}"
        ) from error


@keras.saving.register_keras_serializable(package="keras_resfam")
class FanInNormal(_Drawn, keras.initializers.RandomNormal):
    """Initializer that draws from N(0, gain / sqrt(fan_in)).

    The second parameter is the standard deviation. With a gain of `sqrt(2)`,
    this is He et al.'s initialization by the fan-in, "MSR" in Torch. All
    networks of this package use it, except those with orthonormal kernels.
    `keras.initializers.HeNormal` differs: its distribution is truncated.

    Args:
        gain: float, at least 0. Multiplies the standard deviation. Defaults
            to `sqrt(2)`.
        seed: int, `keras.random.SeedGenerator` or `None`. With an int, every
            call returns the same values for the same shape. With a
            `SeedGenerator`, every call returns new values. Defaults to `None`,
            which chooses an int at random.

    Raises:
        ValueError: If `gain` is not a finite number of at least 0. When
            called, if the shape has fewer than two axes, or an empty axis.
    """

    def __init__(self, gain=2**0.5, seed=None):
        check_number("gain", gain, 0)
        super().__init__(seed=seed)
        self.gain = float(gain)

    def _draw(self, generator, fan_in, filters):
        values = generator.standard_normal((fan_in, filters), dtype="float32")
        values *= np.float32(self.gain / math.sqrt(fan_in))
        return values

    def get_config(self):
        return {"gain": self.gain, "seed": super().get_config()["seed"]}


@keras.saving.register_keras_serializable(package="keras_resfam")
class FanInUniform(_Drawn, keras.initializers.RandomUniform):
    """Initializer that draws from U(-1, 1) / sqrt(fan_in).

    Torch uses this distribution for dense layers.

    Args:
        seed: int, `keras.random.SeedGenerator` or `None`. With an int, every
            call returns the same values for the same shape. With a
            `SeedGenerator`, every call returns new values. Defaults to `None`,
            which chooses an int at random.

    Raises:
        ValueError: When called, if the shape has fewer than two axes, or an
            empty axis.
    """

    def __init__(self, seed=None):
        super().__init__(seed=seed)

    def _draw(self, generator, fan_in, filters):
        limit = 1 / math.sqrt(fan_in)
        return generator.uniform(-limit, limit, (fan_in, filters))

    def get_config(self):
        return {"seed": super().get_config()["seed"]}


@keras.saving.register_keras_serializable(package="keras_resfam")
class Orthonormal(_Drawn, keras.initializers.Orthogonal):
    """Initializer that draws kernels with orthonormal filters.

    The kernel is a matrix `W` of shape `(fan_in, filters)`, whose columns are
    the filters. If `filters <= fan_in`, `W^T W = I`. Otherwise, the filters are
    divided into groups of `fan_in`. They are orthonormal within a group, and
    the groups are independent. (`keras.initializers.Orthogonal` makes the rows
    orthonormal in this case.)

    Reference: Xie et al. 2017, [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 4.

    Args:
        gain: float, at least 0. Multiplies every filter. Defaults to `1.0`.
        seed: int, `keras.random.SeedGenerator` or `None`. With an int, every
            call returns the same values for the same shape. With a
            `SeedGenerator`, every call returns new values. Defaults to `None`,
            which chooses an int at random.

    Raises:
        ValueError: If `gain` is not a finite number of at least 0. When
            called, if the shape has fewer than two axes, or an empty axis.

    Example:

    >>> kernel = Orthonormal(seed=0)((3, 3, 16, 32))
    """

    def __init__(self, gain=1.0, seed=None):
        check_number("gain", gain, 0)
        super().__init__(gain=float(gain), seed=seed)

    def _draw(self, generator, fan_in, filters):
        groups = [
            _orthonormal(generator, fan_in, stop - start)
            for start, stop in column_groups(fan_in, filters)
        ]
        return self.gain * np.concatenate(groups, axis=1)


@keras.saving.register_keras_serializable(package="keras_resfam")
class DeltaOrthonormal(Orthonormal):
    """Initializer with an orthonormal matrix in the center, and else zeros.

    A convolution with such a kernel multiplies each pixel by the same matrix.
    Errors keep their norms and do not spread to other pixels. `W^T W = I` holds
    as with `Orthonormal`, so the penalty of `OrthonormalRegularizer` is zero.

    If there are more filters than channels, as in a stem, they cannot be
    orthonormal in one pixel. Such a kernel is drawn as by `Orthonormal`. (Xiao
    et al. draw the stem from a normal distribution.)

    Reference: Xiao et al. 2018, [Dynamical Isometry and a Mean Field Theory
    of CNNs](https://arxiv.org/abs/1806.05393).

    Args:
        gain: float, at least 0. Multiplies every filter. Defaults to `1.0`.
        seed: int, `keras.random.SeedGenerator` or `None`. With an int, every
            call returns the same values for the same shape. With a
            `SeedGenerator`, every call returns new values. Defaults to `None`,
            which chooses an int at random.

    Raises:
        ValueError: As for `Orthonormal`. When called, also if a side of the
            kernel is even, since it has no center.
    """

    def _draw_kernel(self, generator, shape):
        *sizes, channels, filters = shape
        if not all(size % 2 for size in sizes):
            raise ValueError(
                "`shape` should be that of a kernel with odd sides. "
                f"Received: shape={shape}"
            )
        if filters > channels:
            return super()._draw_kernel(generator, shape)
        kernel = np.zeros(shape)
        center = tuple(size // 2 for size in sizes)
        kernel[center] = self._draw(generator, channels, filters)
        return kernel


def _orthonormal(generator, rows, columns):
    """Draws orthonormal columns from the uniform distribution."""
    q, r = np.linalg.qr(generator.standard_normal((rows, columns)))
    return q * np.sign(np.diagonal(r))
