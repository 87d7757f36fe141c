"""Gradient modulation, and faster or extended versions of Keras's layers."""

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
    multiplies_gradients,
    strided,
    takes_pixels_first,
)
from keras_resfam.backends.gradients import replace_gradient
from keras_resfam.backends.moments import scaled, second_moment
from keras_resfam.regularizers import KernelRegularizer


@keras.saving.register_keras_serializable(package="keras_resfam")
class GradientModulation(keras.layers.Layer):
    """Keeps the magnitude of the error from layer to layer.

    The error is the gradient of the loss with respect to the layer's output.
    The forward pass is the identity, and outside of training the backward pass
    is the identity too. In training, `q` is the second moment (mean square) of
    the error that arrives at this layer, and `q_above` is that of the error
    that the next `GradientModulation`, nearer to the loss, has passed on. They
    mismatch if `q_above / q` is outside `[1 / threshold, threshold]`. The error
    is then multiplied by `sqrt(q_above / q)`, the paper's rho, which restores
    the magnitude that it had above. Otherwise it passes unchanged.

    The layers of a network form a chain. Each takes the `link` of the layer
    below it and returns one for the layer above it. In the forward pass, the
    link is a scalar zero without information. In the backward pass, its
    "gradient" is the second moment of the error above, so a single backward
    pass is enough. The last layer of a chain does not change the error.

    In a wide network of orthonormal kernels, BN and ReLU, each layer multiplies
    the second moment by `pi / (pi - 1) = 1.467` in the backward pass. ReLU
    halves it, and BN divides it by the variance of the outputs of the previous
    ReLU, `(pi - 1) / (2 pi)`. In an untrained `OrthoPlainNet` of 44 layers, the
    median factor is 1.38. With a lower threshold, such as the default,
    modulation acts on nearly every layer. With a threshold of 2, it acts only
    on layers that deviate from this growth. The paper does not state a
    threshold. The default is 1.2 because in short trials with 44 layers, 2 was
    no better than no modulation.

    While `trainable` is `False`, the error passes unchanged in training too.
    This makes it possible to stop modulation during training without a change
    of the graph, the weights or the files. A change of `trainable` takes effect
    at the model's next `compile`, as with Keras's own layers.

    An error below 1e-19 or above 1e19 passes unchanged, because its square
    exceeds the range of float32. With data parallelism on TensorFlow, each
    replica uses the second moments of its own part of the batch.

    Reference: Xie et al. 2017, [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 4.

    Args:
        threshold: float, at least 1. The largest ratio of second moments that
            is not a mismatch. With 1, the error is always modulated. Defaults
            to `1.2`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `trainable`.

    Call arguments:
        x: floating point tensor of any shape.
        link: scalar tensor. The link of the layer below. Defaults to `None`,
            for the first layer of a chain.
        training: bool. Whether the error is modulated. Defaults to `None`, the
            mode of the enclosing call: `True` in `fit`, and else `False`.

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
        # `q_above` is zero in the last layer of a chain. The distance then is
        # infinite or NaN.
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
    """`keras.layers.BatchNormalization` with the fused kernel of the backend.

    It has the same weights, arguments and results (up to rounding).
    TensorFlow and PyTorch have a fused kernel, which is used for images with
    channels last. On JAX, for other inputs, and with masks, renormalization or
    synchronization, the layer computes as Keras's does.

    Reference: Ioffe & Szegedy 2015, [Batch Normalization](
    https://arxiv.org/abs/1502.03167).
    """

    def call(self, inputs, training=None, mask=None):
        special = self.renorm or self.synchronized or mask is not None
        last = self.axis in (-1, len(inputs.shape) - 1)
        if special or not last or not fuses_batch_norm(inputs):
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
    """`keras.layers.Conv2D`, faster on PyTorch and JAX, with PyTorch's padding.

    It has the same weights, arguments and results (up to rounding), and one
    more argument. On PyTorch, it avoids copies of the images. On JAX on one
    CPU, with channels last and one group, it computes the gradient by the
    kernel faster. Otherwise it computes as Keras's layer does, except for
    strided 1x1 kernels with few channels, whose gradient in oneDNN writes to
    memory out of bounds.

    Args:
        *args: Arguments of `keras.layers.Conv2D`.
        zeros: int, at least 0. The number of rows and columns of zeros to add
            on each side of the images, as in PyTorch. Keras's `"same"` pads
            strided convolutions unequally. It requires `padding="valid"`,
            unless it is 0. Defaults to `0`.
        **kwargs: Arguments of `keras.layers.Conv2D`.

    Raises:
        ValueError: If `zeros` is not an integer of at least 0; if it is not 0
            and `padding` is not `"valid"`; or if there are several `groups`
            and the regularizer of the kernel is one of
            `keras_resfam.regularizers`.
    """

    def __init__(self, *args, zeros=0, **kwargs):
        super().__init__(*args, **kwargs)
        check_integer("zeros", zeros, 0)
        if zeros and self.padding != "valid":
            raise ValueError(
                '`padding` should be "valid" if `zeros` is not 0. '
                f"Received: padding={self.padding!r}, zeros={zeros}"
            )
        if self.groups > 1 and isinstance(
            self.kernel_regularizer, KernelRegularizer
        ):
            name = type(self.kernel_regularizer).__name__
            raise ValueError(
                "`groups` should be 1 with a regularizer of keras_resfam, "
                "which requires that all filters have the same inputs. "
                f"Received: groups={self.groups}, kernel_regularizer={name}"
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
            inputs = strided(strides, inputs, self.data_format)
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
        """Returns the number of zeros on either side of each axis."""
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
    """`keras.layers.Rescaling` that saves its scale and offset with weights.

    A network that normalizes images has their moments in its configuration,
    which a file of weights does not include. Keras's `load_weights` would load
    the file into a network with other moments without an error, and that
    network would classify worse. With this layer, `save_weights` also stores
    the scale and the offset, and `load_weights` compares them. Files without
    them, such as those of `to_stock_layers`, can be loaded too, and files with
    them can be loaded into Keras's layer.

    Args:
        scale: float, or nested lists of floats.
        offset: float, or nested lists of floats. Defaults to `0.0`.
        data_config: dict. What `keras_resfam.predict_images` needs to know of
            the images that the network was trained on: `"crop"` and
            `"interpolation"`, as `load_images` takes them, and
            `"class_names"`, a list or the name of a data set. Each may be
            missing. The layer only stores it. Defaults to `None`, nothing.
        **kwargs: Arguments of `keras.layers.Rescaling`.

    Raises:
        ValueError: If `data_config` is not a dict; or in `load_weights`, if
            the file has another scale or offset.
    """

    def __init__(self, scale, offset=0.0, data_config=None, **kwargs):
        super().__init__(scale, offset, **kwargs)
        if not isinstance(data_config, (dict, type(None))):
            raise ValueError(
                "`data_config` should be a dict or None. "
                f"Received: data_config={data_config!r}"
            )
        self.data_config = data_config or {}
        # Keras's Rescaling does not look for this layer in files.
        self.note = _Note({"scale": scale, "offset": offset})

    def get_config(self):
        return {**super().get_config(), "data_config": dict(self.data_config)}


class _Note(keras.layers.Layer):
    """Saves numbers with weights, and compares them when weights are loaded.

    Args:
        numbers: dict from names to floats or nested lists of floats.
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
                    "The network should normalize images as the network of "
                    f"these weights did, with {name}={saved.tolist()}. "
                    f"Received: a network with {name}={own.tolist()}"
                )
