"""Orthonormal initial weights, group-wise where they do not all fit."""

import math

import keras


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
    return [
        (start, min(start + fan_in, filters))
        for start in range(0, filters, fan_in)
    ]


@keras.saving.register_keras_serializable(package="keras_resfam")
class Orthonormal(keras.initializers.Orthogonal):
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
        seed: int, `keras.random.SeedGenerator` or `None`. With an integer the
            same shape gets the same values on every call. Defaults to `None`.

    Raises:
        ValueError: if the shape has fewer than two axes.

    Example:

    >>> kernel = Orthonormal(seed=0)((3, 3, 16, 32))
    """

    def __call__(self, shape, dtype=None):
        if len(shape) < 2:
            raise ValueError(
                "`shape` should have at least two axes, of which the last "
                f"counts the filters. Received: shape={tuple(shape)}"
            )
        fan_in, filters = math.prod(shape[:-1]), shape[-1]
        groups = [
            self._draw_group(k, fan_in, stop - start)
            for k, (start, stop) in enumerate(column_groups(fan_in, filters))
        ]
        kernel = keras.ops.reshape(keras.ops.concatenate(groups, axis=1), shape)
        return keras.ops.cast(kernel, dtype or keras.config.floatx())

    def _draw_group(self, index, fan_in, columns):
        seed = self.seed
        if isinstance(seed, int):
            seed += index  # one seed for all would draw equal groups
        draw = keras.initializers.Orthogonal(gain=self.gain, seed=seed)
        return draw((fan_in, columns), dtype="float32")
