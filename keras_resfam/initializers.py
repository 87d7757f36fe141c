"""Initial weights, drawn by NumPy: the same on every backend.

A seed gives the same values wherever it is used. And nothing is compiled:
JAX compiles its own generators anew for every shape, which takes longer than
all the rest of building a network.
"""

import contextlib
import contextvars
import math

import keras
import numpy as np

from keras_resfam._checks import check_integer, check_number, is_integer


def column_groups(fan_in, filters):
    """Splits filters into groups that can be orthonormal.

    No more than `fan_in` vectors of `fan_in` dimensions are orthogonal, so
    more filters than that are divided into `ceil(filters / fan_in)` groups
    (Xie et al. 2017, section 4).

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
    """Lets new weights be zero, because trained ones take their place.

    To draw the 69 million of a WRN-50-2 takes longer than to load them.
    """
    token = _undrawn.set(True)
    try:
        yield
    finally:
        _undrawn.reset(token)


class _Drawn:
    """Draws with NumPy in place of the Keras initializer it stands before."""

    def __call__(self, shape, dtype=None):
        sizes = isinstance(shape, (tuple, list))
        sizes = sizes and all(is_integer(size, 1) for size in shape)
        if not sizes or len(shape) < 2:
            raise ValueError(
                "`shape` should have at least two axes, none of them empty, "
                "of which the last counts the filters. "
                f"Received: shape={shape!r}"
            )
        dtype = _checked_dtype(dtype)
        if _undrawn.get():
            return keras.ops.zeros(shape, dtype)
        seed = self.seed
        if isinstance(seed, int):
            seed %= 2**64  # NumPy takes none below 0, and Keras does
        else:
            seed = keras.ops.convert_to_numpy(seed.next())
        values = self._draw_kernel(np.random.default_rng(seed), tuple(shape))
        values = values.astype("float32", copy=False).reshape(shape)
        return keras.ops.cast(keras.ops.array(values), dtype)

    def _draw_kernel(self, generator, shape):
        return self._draw(generator, math.prod(shape[:-1]), shape[-1])


def _checked_dtype(dtype):
    """A type's name as Keras spells it; `None` is its usual one."""
    try:
        return keras.backend.standardize_dtype(dtype)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`dtype` should be the name of a type of numbers. "
            f"Received: dtype={dtype!r}"
        ) from error


@keras.saving.register_keras_serializable(package="keras_resfam")
class FanInNormal(_Drawn, keras.initializers.RandomNormal):
    """Draws from N(0, gain / sqrt(fan_in)).

    With the gain of `sqrt(2)` this is He et al.'s initialization by the fan
    in, "MSR" in Torch, from which all start but the orthonormal networks.
    `keras.initializers.HeNormal` cuts the tails off.

    Args:
        gain: float. Defaults to `sqrt(2)`.
        seed: int, `keras.random.SeedGenerator` or `None`, for an int drawn at
            random. The same shape gets the same values on every call, but
            from a `SeedGenerator` new ones. Defaults to `None`.

    Raises:
        ValueError: If `gain` is not a finite number of at least 0; when
            called, if the shape has fewer than two axes, or an empty one.
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
    """Draws from U(-1, 1) / sqrt(fan_in): Torch's choice for dense layers.

    Args:
        seed: int, `keras.random.SeedGenerator` or `None`, for an int drawn at
            random. The same shape gets the same values on every call, but
            from a `SeedGenerator` new ones. Defaults to `None`.

    Raises:
        ValueError: when called, if the shape has fewer than two axes, or an
            empty one.
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
    """Draws kernels whose filters are orthonormal.

    The kernel is read as a matrix of shape `(fan_in, filters)`, whose columns
    are the filters. Where `filters <= fan_in`, `W^T W = I`; otherwise the
    filters are orthonormal within each group of `fan_in` of them, and the
    groups are independent. `keras.initializers.Orthogonal` would make the
    rows orthonormal there.

    Reference: Xie et al. 2017, [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 4.

    Args:
        gain: float. Multiplies every filter. Defaults to `1.0`.
        seed: int, `keras.random.SeedGenerator` or `None`, for an int drawn at
            random. The same shape gets the same values on every call, but
            from a `SeedGenerator` new ones. Defaults to `None`.

    Raises:
        ValueError: If `gain` is not a finite number of at least 0; when
            called, if the shape has fewer than two axes, or an empty one.

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
    """Draws kernels that are zero but for an orthonormal matrix in the centre.

    Such a convolution multiplies each pixel by the same matrix, so that errors
    keep their norms and do not spread. `W^T W = I` holds as with
    `Orthonormal`, and `OrthonormalRegularizer` finds nothing to penalise.

    More filters than channels cannot be orthonormal in one pixel. `Orthonormal`
    draws such a kernel, as that of a stem. (Xiao et al. draw the stem from a
    normal distribution.)

    Reference: Xiao et al. 2018, [Dynamical Isometry and a Mean Field Theory
    of CNNs](https://arxiv.org/abs/1806.05393).

    Args:
        gain: float. Multiplies every filter. Defaults to `1.0`.
        seed: int, `keras.random.SeedGenerator` or `None`, for an int drawn at
            random. The same shape gets the same values on every call, but
            from a `SeedGenerator` new ones. Defaults to `None`.

    Raises:
        ValueError: As of `Orthonormal`; when called, also if a side of the
            kernel is even, which has no centre.
    """

    def _draw_kernel(self, generator, shape):
        *sizes, channels, filters = shape
        if not all(size % 2 for size in sizes):
            raise ValueError(
                "`shape` should be of a kernel with odd sides. "
                f"Received: shape={shape}"
            )
        if filters > channels:
            return super()._draw_kernel(generator, shape)
        kernel = np.zeros(shape)
        centre = tuple(size // 2 for size in sizes)
        kernel[centre] = self._draw(generator, channels, filters)
        return kernel


def _orthonormal(generator, rows, columns):
    """Random orthonormal columns, every direction alike."""
    q, r = np.linalg.qr(generator.standard_normal((rows, columns)))
    return q * np.sign(np.diagonal(r))
