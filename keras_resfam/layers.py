"""Layers: modulation of the error, and three of Keras's that do more."""

import functools
import math

import keras
import numpy as np

from keras_resfam._checks import as_array, check_integer, check_number
from keras_resfam.backends.batch_norm import fused_batch_norm, fuses_batch_norm
from keras_resfam.backends.convolution import (
    convolution,
    convolution_of_products,
    convolves_views,
    every,
    multiplies_gradients,
    takes_pixels_first,
)
from keras_resfam.backends.gradients import replace_gradient
from keras_resfam.backends.moments import scaled, second_moment
from keras_resfam.regularizers import KernelRegularizer


@keras.saving.register_keras_serializable(package="keras_resfam")
class GradientModulation(keras.layers.Layer):
    """Keeps the magnitude of the error from layer to layer.

    The forward pass is the identity, and outside of training so is the
    backward pass. In training `q` is the second moment (mean square) of the
    error that arrives at this layer, and `q_above` that of the error which
    the `GradientModulation` above it has passed on. Where they mismatch, that
    is where `q_above / q` leaves `[1 / threshold, threshold]`, the error is
    multiplied by `sqrt(q_above / q)`, which gives it back the magnitude it
    had above; the paper calls that factor rho. Elsewhere it passes unchanged.

    The layers of a network form a chain: each takes the `link` of the one
    below and returns its own for the one above. The link is a scalar zero
    that carries nothing forward; backward, its "gradient" is the moment of
    the error above, so that one pass suffices. The uppermost layer of a chain
    leaves its error as it is.

    In a wide network of orthonormal kernels, BN and ReLU, each layer multiplies
    the second moment by `pi / (pi - 1) = 1.467` on the way down: ReLU halves
    it, and BN divides it by the variance of the outputs of the ReLU below,
    `(pi - 1) / (2 pi)`. In an untrained `OrthoPlainNet` of 44 layers the
    median is 1.38. With a threshold below that, such as the default,
    modulation acts on nearly every layer; with a threshold of 2, only on
    layers that depart from this growth. The paper gives no number for a
    mismatch. The default stays at 1.2 because in short trials of 44 layers
    2 was no better than no modulation.

    While `trainable` is `False` the error passes unchanged, in training too.
    So modulation can end during training, and the graph, the weights and the
    files stay as they are. A change of `trainable` takes effect at the model's
    next `compile`, as with Keras's own layers.

    An error below 1e-19 or above 1e19, whose square float32 does not hold,
    passes unchanged. Under data parallelism on TensorFlow each replica
    modulates by the moments of its own share.

    Reference: Xie et al. 2017, [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 4.

    Args:
        threshold: float, at least 1. The largest ratio of second moments
            that is let pass; 1 modulates always. Defaults to `1.2`.
        **kwargs: of `keras.layers.Layer`, such as `trainable`.

    Call arguments:
        x: floating point tensor of any shape.
        link: the link of the layer below, or `None` for the lowest.
        training: bool. Whether the error is modulated. Defaults to `None`:
            as in the call that this one is part of, so in `fit` it is, and
            otherwise not.

    Returns:
        `x`, and the link for the layer above: a float32 scalar.

    Raises:
        ValueError: If `threshold` is not a finite number of at least 1.

    Example:

    ```python
    link = None
    for filters in (16, 16, 32):
        x = keras.layers.Conv2D(filters, 3, activation="relu")(x)
        x, link = GradientModulation()(x, link)
    ```
    """

    def __init__(self, threshold=1.2, **kwargs):
        # The link stays float32 under mixed precision.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        check_number("threshold", threshold, 1)
        self.threshold = float(threshold)

    def call(self, x, link=None, training=None):
        if link is None:
            link = keras.ops.zeros((), dtype="float32")
        if not (training and self.trainable):
            return x, link
        return replace_gradient(self._modulate, x, link)

    def _modulate(self, error, q_above):
        """Returns the modulated error and its second moment."""
        q = second_moment(error)
        ratio = q_above / q
        distance = keras.ops.abs(keras.ops.log(ratio))
        # Above the uppermost layer there is no moment: the distance is
        # infinite, or no number.
        mismatch = (distance > math.log(self.threshold)) & (distance < math.inf)
        ratio = keras.ops.where(mismatch, ratio, 1.0)
        return scaled(error, keras.ops.sqrt(ratio)), q * ratio

    def compute_output_spec(self, x, link=None, training=None):
        return (
            keras.KerasTensor(x.shape, dtype=x.dtype),
            keras.KerasTensor((), dtype="float32"),
        )

    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}


@keras.saving.register_keras_serializable(package="keras_resfam")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, by the backend's own kernel.

    The same weights, arguments and results, to rounding. TensorFlow and
    PyTorch have a kernel for images of channels last; elsewhere, and for
    masks, renormalization and synchronization, the layer is Keras's.

    Reference: Ioffe & Szegedy 2015, [Batch Normalization](
    https://arxiv.org/abs/1502.03167).
    """

    def call(self, inputs, training=None, mask=None):
        own = self.renorm or self.synchronized or mask is not None
        last = self.axis in (-1, len(inputs.shape) - 1)
        if own or not last or not fuses_batch_norm(inputs):
            return super().call(inputs, training=training, mask=mask)
        ones = keras.ops.ones_like(self.moving_mean)
        gamma = self.gamma if self.scale else ones
        beta = self.beta if self.center else keras.ops.zeros_like(ones)
        averages = self.moving_mean, self.moving_variance
        if not (training and self.trainable):
            return fused_batch_norm(
                inputs, gamma, beta, self.epsilon, averages
            )[0]
        outputs, *moments = fused_batch_norm(inputs, gamma, beta, self.epsilon)
        for average, moment in zip(averages, moments, strict=True):
            kept = keras.ops.cast(average, "float32") * self.momentum
            average.assign(kept + moment * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="keras_resfam")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, without detours of PyTorch's and JAX's.

    The same weights, arguments and results, to rounding, and one argument
    more. On TensorFlow the layer is Keras's but for 1 x 1 kernels with strides
    and few channels, whose gradient damages memory there; on JAX so it is
    with the channels first, with several `groups`, with several devices, and
    on accelerators.

    Args:
        *args: of `keras.layers.Conv2D`.
        zeros: int. Rows and columns of zeros on each side of the images, as
            Torch pads; Keras's own `"same"` pads a strided convolution more
            on one side. Goes with `padding="valid"`. Defaults to `0`.
        **kwargs: of `keras.layers.Conv2D`.

    Raises:
        ValueError: If `zeros` is not an integer of at least 0, or is not 0
            and `padding` not `"valid"`; if there are several `groups`, and
            the kernel's regularizer is of `keras_resfam.regularizers`.
    """

    def __init__(self, *args, zeros=0, **kwargs):
        super().__init__(*args, **kwargs)
        check_integer("zeros", zeros, 0)
        if zeros and self.padding != "valid":
            raise ValueError(
                '`padding` should be "valid" where there are `zeros`. '
                f"Received: padding={self.padding!r}, zeros={zeros}"
            )
        if self.groups > 1 and isinstance(
            self.kernel_regularizer, KernelRegularizer
        ):
            name = type(self.kernel_regularizer).__name__
            raise ValueError(
                "`groups` should be 1 with a regularizer of keras_resfam, "
                "which takes all filters to see the same channels. Received: "
                f"groups={self.groups}, kernel_regularizer={name}"
            )
        self.zeros = zeros

    def call(self, inputs):
        if not convolves_views():
            return super().call(self._padded(inputs))
        outputs = convolution(
            keras.ops.convert_to_tensor(inputs),
            keras.ops.convert_to_tensor(self.kernel),
            keras.ops.convert_to_tensor(self.bias) if self.use_bias else None,
            self.strides,
            self.zeros or self.padding,
            self.dilation_rate,
            self.groups,
            self.data_format,
        )
        return self.activation(outputs) if self.activation else outputs

    def convolution_op(self, inputs, kernel):
        strides = self.strides
        if takes_pixels_first(kernel, strides):
            inputs = every(strides, inputs, self.data_format)
            strides = (1, 1)
        convolve = functools.partial(
            keras.ops.conv,
            strides=strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        if (
            self.data_format != "channels_last"
            or self.groups > 1
            or not multiplies_gradients(inputs, kernel)
        ):
            return convolve(inputs, kernel)
        return convolution_of_products(
            convolve,
            keras.ops.convert_to_tensor(inputs),
            keras.ops.convert_to_tensor(kernel),
            strides,
            self.padding,
            self.dilation_rate,
        )

    def _padded(self, images):
        if not self.zeros:
            return images
        return keras.ops.pad(images, [(n, n) for n in self._margins()])

    def _margins(self):
        """The zeros on either side of each axis."""
        first = self.data_format == "channels_first"
        n = self.zeros
        return (0, 0, n, n) if first else (0, n, n, 0)

    def compute_output_shape(self, input_shape):
        sizes = zip(input_shape, self._margins(), strict=True)
        return super().compute_output_shape(
            tuple(size and size + 2 * margin for size, margin in sizes)
        )

    def get_config(self):
        return {**super().get_config(), "zeros": self.zeros}


@keras.saving.register_keras_serializable(package="keras_resfam")
class Rescaling(keras.layers.Rescaling):
    """`keras.layers.Rescaling`, whose numbers go with a network's weights.

    A network that normalises its images holds their moments in its
    configuration, which a file of weights does not have: in a network of other
    moments Keras's `load_weights` would load them without a word, and the
    network would classify worse. Here `save_weights` notes the scale and the
    offset, and `load_weights` compares them. Files without them load as well,
    such as those of `to_stock_layers`, and files with them load into Keras's
    layer.

    Args:
        scale: float, or nested lists of floats.
        offset: as `scale`. Defaults to `0.0`.
        **kwargs: of `keras.layers.Rescaling`.

    Raises:
        ValueError: By `load_weights`, if the file has another scale or offset.
    """

    def __init__(self, scale, offset=0.0, **kwargs):
        super().__init__(scale, offset, **kwargs)
        # In a layer of its own, which Keras's Rescaling does not look for.
        self.note = _Note({"scale": scale, "offset": offset})


class _Note(keras.layers.Layer):
    """Numbers that are saved with weights, and compared when those are loaded.

    Args:
        numbers: dict of floats, or nested lists of floats, by name.
    """

    def __init__(self, numbers):
        super().__init__()
        self.numbers = {name: as_array(name, x) for name, x in numbers.items()}
        self.built = True

    def save_own_variables(self, store):
        for name, value in self.numbers.items():
            store[name] = value.astype("float32")

    def load_own_variables(self, store):
        for name in store.keys():
            own, saved = self.numbers[name], store[name]
            if own.shape != saved.shape or not np.allclose(own, saved):
                raise ValueError(
                    "The network should normalise images as the one did whose "
                    f"weights these are, by {name}={saved.tolist()}. Received: "
                    f"a network with {name}={own.tolist()}"
                )
