"""The orthonormal regulariser of Xie et al. 2017."""

import math

import keras

from keras_resfam._checks import check_number
from keras_resfam.backends.moments import gram_error
from keras_resfam.initializers import column_groups


@keras.saving.register_keras_serializable(package="keras_resfam")
class OrthonormalRegularizer(keras.regularizers.Regularizer):
    """Penalises kernels whose filters are not orthonormal.

    The penalty is `factor / 2 * ||W^T W - I||_F^2` (equation 3), where `W` is
    the kernel as a matrix of shape `(fan_in, filters)`: a column for each
    filter. It takes the place of L2 weight decay, at the same coefficient.
    Where `filters > fan_in` the filters cannot all be orthogonal: the penalty
    is then summed over the groups of `fan_in` filters that
    `keras_resfam.initializers.Orthonormal` makes (section 4).

    `keras.regularizers.OrthogonalRegularizer` is another thing: it takes
    matrices only, and penalises the mean cosine between vectors of any norm.

    Kernels are of rank 2 or 4, the filters last, as those of Dense and Conv2D
    are; not those of depthwise or transposed convolutions. The penalty is
    computed in float32 where they have less precision.

    Reference: Xie et al. 2017, [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 3.2.

    Args:
        factor: float, at least 0. The regularization coefficient, lambda.
            Defaults to `1e-4`.

    Raises:
        ValueError: If `factor` is not a finite number of at least 0; when
            called, if the kernel is of another rank than 2 or 4.

    Example:

    ```python
    keras.layers.Conv2D(
        64, 3, kernel_regularizer=OrthonormalRegularizer(1e-4)
    )
    ```
    """

    def __init__(self, factor=1e-4):
        check_number("factor", factor, 0)
        self.factor = float(factor)

    def __call__(self, x):
        if len(x.shape) not in (2, 4):
            raise ValueError(
                "`x` should be the kernel of a Dense layer (rank 2) or of a "
                f"Conv2D layer (rank 4). Received: x.shape={tuple(x.shape)}"
            )
        fan_in, filters = math.prod(x.shape[:-1]), x.shape[-1]
        w = keras.ops.reshape(x, (fan_in, filters))
        if keras.backend.standardize_dtype(w.dtype) != "float64":
            w = keras.ops.cast(w, "float32")
        if filters <= fan_in:  # one group, without the calls of a slice
            penalty = gram_error(w)
        else:
            ranges = column_groups(fan_in, filters)
            penalty = sum(
                gram_error(w[:, start:stop]) for start, stop in ranges
            )
        return self.factor / 2 * penalty

    def get_config(self):
        return {"factor": self.factor}
