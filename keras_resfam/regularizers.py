"""Regularizers that keep kernels close to orthonormal.

They are those of Xie et al. 2017 and of later papers. `W` is a kernel as a
matrix of shape `(fan_in, filters)`, with a column for each filter.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_resfam._checks import check_integer, check_number
from keras_resfam.backends.moments import gram_error
from keras_resfam.initializers import column_groups


class KernelRegularizer(keras.regularizers.Regularizer):
    """Base class of regularizers that are a factor times a penalty of a kernel.

    The penalty is computed in float32, or in float64 for such kernels. The
    result has Keras's default type, because TensorFlow cannot add losses of
    different types.
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
    """Reshapes a kernel to a matrix of shape `(fan_in, filters)`."""
    fan_in, filters = math.prod(kernel.shape[:-1]), kernel.shape[-1]
    return ops.reshape(kernel, (fan_in, filters))


@keras.saving.register_keras_serializable(package="keras_resfam")
class OrthonormalRegularizer(KernelRegularizer):
    """Penalizes kernels whose filters are not orthonormal.

    The penalty is `factor / 2 * ||W^T W - I||_F^2` (equation 3), where `W` is
    the kernel as a matrix of shape `(fan_in, filters)`, with a column for each
    filter. It replaces L2 weight decay, with the same coefficient. If
    `filters > fan_in`, the filters cannot all be orthogonal. The penalty then
    is the sum over the groups of `fan_in` filters that
    `keras_resfam.initializers.Orthonormal` makes (section 4).

    `keras.regularizers.OrthogonalRegularizer` differs: it takes matrices only,
    and penalizes the mean cosine between vectors of any norm.

    Kernels have rank 2 to 5 and the filters last, like those of Dense, Conv1D,
    Conv2D and Conv3D. Kernels of grouped, depthwise or transposed convolutions
    are not supported. For kernels of 16 bits, the penalty is computed in
    float32.

    Reference: Xie et al. 2017, [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 3.2.

    Args:
        factor: float, at least 0. The regularization coefficient, lambda.
            Defaults to `1e-4`.

    Raises:
        ValueError: If `factor` is not a finite number of at least 0. When
            called, if the rank of the kernel is not 2 to 5.

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
        if filters <= fan_in:  # one group; no slice is faster
            return gram_error(w) / 2
        ranges = column_groups(fan_in, filters)
        return sum(gram_error(w[:, start:stop]) for start, stop in ranges) / 2


@keras.saving.register_keras_serializable(package="keras_resfam")
class DoubleSoftOrthogonalityRegularizer(KernelRegularizer):
    """Penalizes kernels whose columns or rows are not orthonormal.

    The penalty is `factor * (||W^T W - I||_F^2 + ||W W^T - I||_F^2)`
    ("DSO"). Both terms can be zero only if `W` is square.

    Reference: Bansal et al. 2018, [Can We Gain More from Orthogonality
    Regularizations in Training Deep CNNs?](https://arxiv.org/abs/1810.09102).

    Args:
        factor: float, at least 0. The coefficient. Defaults to `1e-4`.

    Raises:
        ValueError: As for `OrthonormalRegularizer`.
    """

    def __init__(self, factor=1e-4):
        super().__init__(factor)

    def _penalty(self, kernel):
        w = _matrix(kernel)
        return gram_error(w) + gram_error(ops.transpose(w))


@keras.saving.register_keras_serializable(package="keras_resfam")
class SpectralRestrictedIsometryRegularizer(KernelRegularizer):
    """Penalizes the direction in which a kernel is furthest from an isometry.

    The penalty is `factor * sigma(W^T W - I)` ("SRIP"), where the spectral norm
    `sigma` is estimated by power iteration. If there are more filters than
    weights in a filter, it is that of `W W^T - I`. The iteration starts from a
    fixed random vector, so that the penalty is a function of the kernel. (The
    authors' code draws a new vector in each step.) No gradient flows through
    the iteration.

    The authors decrease the coefficient during training. For WRN-28-10, it is
    `1e-2` in the first 20 epochs. This is multiplied by `1e-3` until epoch 50,
    by `1e-4` until epoch 70, by `1e-6` until epoch 120, and by zero after it.
    The `penalty_schedule` of a training recipe does the same.

    Reference: Bansal et al. 2018, [Can We Gain More from Orthogonality
    Regularizations in Training Deep CNNs?](https://arxiv.org/abs/1810.09102).

    Args:
        factor: float, at least 0. The coefficient. Defaults to `1e-2`.
        iterations: int, at least 1. The number of power iterations, two in
            the paper. Defaults to `2`.

    Raises:
        ValueError: As for `OrthonormalRegularizer`, or if `iterations` is not
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
    """Penalizes convolutions, as linear maps, that are not orthogonal.

    The penalty is `factor * ||Conv(K, K, P, S) - I_0||_F^2`. The filters are
    convolved with one another, with stride `S` and padding
    `P = floor((k - 1) / S) * S`. `I_0` is 1 for a filter with itself without a
    shift, and else 0. The term without a shift is `W^T W - I`. The others
    penalize filters that are not orthogonal to shifted filters.

    Reference: Wang et al. 2020, [Orthogonal Convolutional Neural Networks](
    https://arxiv.org/abs/1911.12207).

    Args:
        factor: float, at least 0. The coefficient. Defaults to `1e-4`.
        strides: int, at least 1. The stride of the convolution, the same
            along all axes. Defaults to `1`.

    Raises:
        ValueError: As for `OrthonormalRegularizer`, or if `strides` is not an
            integer of at least 1.
    """

    def __init__(self, factor=1e-4, strides=1):
        super().__init__(factor)
        check_integer("strides", strides)
        self.strides = strides

    def _penalty(self, kernel):
        if len(kernel.shape) == 2:  # a convolution of one pixel
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
        # ||A - I_0||^2 = ||A||^2 - 2 tr(A_0) + filters, where A_0 = W^T W.
        trace = ops.sum(ops.square(kernel))
        return ops.sum(ops.square(products)) - 2 * trace + filters

    def get_config(self):
        return {**super().get_config(), "strides": self.strides}
