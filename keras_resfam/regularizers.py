"""Regularisers that keep kernels near orthonormal: Xie et al. 2017, and kin.

`W` is a kernel as a matrix of shape `(fan_in, filters)`: a column for each
filter.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_resfam._checks import check_integer, check_number
from keras_resfam.backends.moments import gram_error
from keras_resfam.initializers import column_groups


class KernelRegularizer(keras.regularizers.Regularizer):
    """`factor` times a penalty of a kernel, computed in float32 or better.

    It comes in Keras's default type, as other losses do: TensorFlow adds none
    of another.
    """

    def __init__(self, factor):
        check_number("factor", factor, 0)
        self.factor = float(factor)

    def __call__(self, x):
        shape = tuple(getattr(x, "shape", ()))
        if not 2 <= len(shape) <= 5 or not all(shape):
            raise ValueError(
                "`x` should be the kernel of a Dense layer (rank 2) or of a "
                "Conv1D, Conv2D or Conv3D layer (rank 3, 4 or 5). "
                f"Received: x.shape={shape}"
            )
        if keras.backend.standardize_dtype(x.dtype) != "float64":
            x = ops.cast(x, "float32")
        penalty = self.factor * self._penalty(x)
        return ops.cast(penalty, keras.config.floatx())

    def get_config(self):
        return {"factor": self.factor}


def _matrix(kernel):
    fan_in, filters = math.prod(kernel.shape[:-1]), kernel.shape[-1]
    return ops.reshape(kernel, (fan_in, filters))


@keras.saving.register_keras_serializable(package="keras_resfam")
class OrthonormalRegularizer(KernelRegularizer):
    """Penalises kernels whose filters are not orthonormal.

    The penalty is `factor / 2 * ||W^T W - I||_F^2` (equation 3), where `W` is
    the kernel as a matrix of shape `(fan_in, filters)`: a column for each
    filter. It takes the place of L2 weight decay, at the same coefficient.
    Where `filters > fan_in` the filters cannot all be orthogonal: the penalty
    is then summed over the groups of `fan_in` filters that
    `keras_resfam.initializers.Orthonormal` makes (section 4).

    `keras.regularizers.OrthogonalRegularizer` is another thing: it takes
    matrices only, and penalises the mean cosine between vectors of any norm.

    Kernels are of rank 2 to 5, the filters last, as those of Dense, Conv1D,
    Conv2D and Conv3D are; not those of grouped, depthwise or transposed
    convolutions. The penalty is computed in float32 where they have less
    precision.

    Reference: Xie et al. 2017, [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 3.2.

    Args:
        factor: float, at least 0. The regularization coefficient, lambda.
            Defaults to `1e-4`.

    Raises:
        ValueError: If `factor` is not a finite number of at least 0; when
            called, if the kernel is of another rank than 2 to 5.

    Example:

    ```python
    keras.layers.Conv2D(
        64, 3, kernel_regularizer=OrthonormalRegularizer(1e-4)
    )
    ```
    """

    def __init__(self, factor=1e-4):
        super().__init__(factor)

    def _penalty(self, kernel):
        w = _matrix(kernel)
        fan_in, filters = w.shape
        if filters <= fan_in:  # one group, without the calls of a slice
            return gram_error(w) / 2
        ranges = column_groups(fan_in, filters)
        return sum(gram_error(w[:, start:stop]) for start, stop in ranges) / 2


@keras.saving.register_keras_serializable(package="keras_resfam")
class DoubleSoftOrthogonalityRegularizer(KernelRegularizer):
    """Penalises both the filters and the weights across them.

    The penalty is `factor * (||W^T W - I||_F^2 + ||W W^T - I||_F^2)`
    (DSO). Both terms can be zero only if `W` is square.

    Reference: Bansal et al. 2018, [Can We Gain More from Orthogonality
    Regularizations in Training Deep CNNs?](https://arxiv.org/abs/1810.09102).

    Args:
        factor: float, at least 0. The coefficient. Defaults to `1e-4`.

    Raises:
        ValueError: As of `OrthonormalRegularizer`.
    """

    def __init__(self, factor=1e-4):
        super().__init__(factor)

    def _penalty(self, kernel):
        w = _matrix(kernel)
        return gram_error(w) + gram_error(ops.transpose(w))


@keras.saving.register_keras_serializable(package="keras_resfam")
class SpectralRestrictedIsometryRegularizer(KernelRegularizer):
    """Penalises the direction in which a kernel is furthest from an isometry.

    The penalty is `factor * sigma(W^T W - I)` (SRIP), where the
    spectral norm `sigma` is estimated by power iteration; with more filters
    than weights in one, of `W W^T - I`. The iteration starts from a fixed
    random vector, where the authors' code draws a new one in each step, so
    that the penalty is a function of the kernel. No gradient passes through
    the iteration itself.

    The authors let the coefficient fall: of WRN-28-10, `1e-2` in the first 20
    epochs, and then times `1e-3`, from epoch 50 `1e-4`, from epoch 70 `1e-6`,
    and zero from epoch 120. A recipe's `penalty_schedule` does that.

    Reference: Bansal et al. 2018, [Can We Gain More from Orthogonality
    Regularizations in Training Deep CNNs?](https://arxiv.org/abs/1810.09102).

    Args:
        factor: float, at least 0. The coefficient. Defaults to `1e-2`.
        iterations: int, at least 1. Products of the matrix with a vector;
            two in the paper. Defaults to `2`.

    Raises:
        ValueError: As of `OrthonormalRegularizer`, or if `iterations` is not
            an integer of at least 1.
    """

    def __init__(self, factor=1e-2, iterations=2):
        super().__init__(factor)
        check_integer("iterations", iterations)
        self.iterations = iterations

    def _penalty(self, kernel):
        w = _matrix(kernel)
        fan_in, filters = w.shape
        if filters > fan_in:
            w = ops.transpose(w)
        n = w.shape[1]
        error = ops.matmul(ops.transpose(w), w) - ops.eye(n, dtype=w.dtype)
        start = np.random.default_rng(0).standard_normal(n)
        v = ops.normalize(ops.convert_to_tensor(start, dtype=w.dtype))
        fixed = ops.stop_gradient(error)
        for _ in range(self.iterations):
            u, v = v, ops.normalize(ops.matmul(fixed, v))
        return ops.dot(v, ops.matmul(error, u))

    def get_config(self):
        return {**super().get_config(), "iterations": self.iterations}


@keras.saving.register_keras_serializable(package="keras_resfam")
class OrthogonalConvolutionRegularizer(KernelRegularizer):
    """Penalises convolutions, rather than kernels, that are not orthogonal.

    The penalty is `factor * ||Conv(K, K, P, S) - I_0||_F^2`: the
    filters are convolved with one another, with a padding
    `P = floor((k - 1) / S) * S`. `I_0` is 1 where a filter meets itself
    without a shift, and 0 elsewhere. Its centre is `W^T W - I`; the rest asks
    a filter's shifts, by multiples of the stride, to be orthogonal too.

    Reference: Wang et al. 2020, [Orthogonal Convolutional Neural Networks](
    https://arxiv.org/abs/1911.12207).

    Args:
        factor: float, at least 0. The coefficient. Defaults to `1e-4`.
        strides: int, at least 1. The stride of the convolution, the same
            along all axes. Defaults to `1`.

    Raises:
        ValueError: As of `OrthonormalRegularizer`, or if `strides` is not an
            integer of at least 1.
    """

    def __init__(self, factor=1e-4, strides=1):
        super().__init__(factor)
        check_integer("strides", strides)
        self.strides = strides

    def _penalty(self, kernel):
        if len(kernel.shape) == 2:  # as a convolution of one pixel
            kernel = kernel[None]
        *sizes, _, filters = kernel.shape
        pads = [(k - 1) // self.strides * self.strides for k in sizes]
        images = ops.moveaxis(kernel, -1, 0)
        images = ops.pad(images, [(0, 0), *((p, p) for p in pads), (0, 0)])
        products = ops.conv(
            images,
            kernel,
            strides=self.strides,
            padding="valid",
            data_format="channels_last",
        )
        # ||A - I_0||^2 = ||A||^2 - 2 tr(A_0) + filters, A_0 being W^T W.
        trace = ops.sum(ops.square(kernel))
        return ops.sum(ops.square(products)) - 2 * trace + filters

    def get_config(self):
        return {**super().get_config(), "strides": self.strides}
