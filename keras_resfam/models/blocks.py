"""What the families are built of: layers, branches and shortcuts.

Names are a public contract: `stage2_block3_conv1`, `stage2_block3_bn1`, ...;
where a block has several branches, `stage2_block3_branch1_conv1`.
"""

import random

import keras

from keras_resfam.initializers import FanInNormal, FanInUniform
from keras_resfam.layers import BatchNormalization, Conv2D


def channel_axis():
    data_format = keras.config.image_data_format()
    return -1 if data_format == "channels_last" else 1


def _channels(x):
    return x.shape[channel_axis()]


def full_precision():
    """The dtype for what should not be computed in 16 bits; else `None`."""
    compute_dtype = keras.config.dtype_policy().compute_dtype
    return "float32" if compute_dtype in ("float16", "bfloat16") else None


def changes_shape(x, filters, strides):
    return strides > 1 or _channels(x) != filters


def stages(blocks, filters):
    """Yields the name, filters and stride of every block, in order.

    Args:
        blocks: sequence of ints. Blocks of each stage.
        filters: sequence of ints. Filters of each stage.
    """
    for stage, (count, width) in enumerate(
        zip(blocks, filters, strict=True), start=1
    ):
        for block in range(1, count + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            yield f"stage{stage}_block{block}", width, strides


def basic(filters, strides):
    """Two 3x3 convolutions, as `(filters, kernel size, strides)` triples."""
    return (filters, 3, strides), (filters, 3, 1)


def bottleneck(filters, strides, inner=None):
    """1x1, 3x3, 1x1 convolutions: a quarter of the filters inside.

    The stride is the 3x3 convolution's.
    """
    inner = inner or filters // 4
    return (inner, 1, 1), (inner, 3, strides), (filters, 1, 1)


class Layers:
    """Makes the layers of a family: says once what all of them share.

    Args:
        epsilon: float. Of BatchNormalization. Defaults to `1e-5`, Torch's.
        kernel_initializer: callable that returns a new initializer for a
            convolution. Defaults to `FanInNormal`.
        kernel_regularizer: callable of the strides that returns a new
            regularizer, or `None`.
        dense_initializer: callable that returns a new initializer for the
            last layer. Defaults to `FanInUniform`.
        shift: float. Where the beta of BatchNormalization starts. Defaults
            to `0.0`.
    """

    def __init__(
        self,
        epsilon=1e-5,
        kernel_initializer=FanInNormal,
        kernel_regularizer=lambda strides: None,
        dense_initializer=FanInUniform,
        shift=0.0,
    ):
        self.epsilon = epsilon
        self.kernel_initializer = kernel_initializer
        self.kernel_regularizer = kernel_regularizer
        self.dense_initializer = dense_initializer
        self.shift = shift

    def conv(self, x, filters, size, strides=1, *, name):
        """Convolution without bias, padded alike on both sides as in Torch."""
        strided = strides > 1
        return Conv2D(
            filters,
            size,
            strides,
            padding="valid" if strided else "same",
            zeros=size // 2 if strided else 0,
            use_bias=False,
            kernel_initializer=self.kernel_initializer(),
            kernel_regularizer=self.kernel_regularizer(strides),
            name=name,
        )(x)

    def bn(self, x, *, name):
        start = keras.initializers.Constant(self.shift)
        return BatchNormalization(
            axis=channel_axis(),
            momentum=0.9,
            epsilon=self.epsilon,
            beta_initializer=start if self.shift else "zeros",
            name=name,
        )(x)

    def conv_bn(self, x, filters, size, strides=1, *, prefix, index=""):
        x = self.conv(x, filters, size, strides, name=f"{prefix}_conv{index}")
        return self.bn(x, name=f"{prefix}_bn{index}")

    def conv_bn_relu(self, x, filters, size, strides=1, *, prefix, index=""):
        x = self.conv_bn(x, filters, size, strides, prefix=prefix, index=index)
        return relu(x, name=f"{prefix}_relu{index}")

    def bn_relu(self, x, *, prefix, index=""):
        x = self.bn(x, name=f"{prefix}_bn{index}")
        return relu(x, name=f"{prefix}_relu{index}")

    def branch(self, x, convs, *, prefix):
        """Residual branch conv-BN-ReLU-...-conv-BN: no ReLU at its end."""
        for k, conv in enumerate(convs, start=1):
            x = self.conv_bn(x, *conv, prefix=prefix, index=k)
            if k < len(convs):
                x = relu(x, name=f"{prefix}_relu{k}")
        return x

    def projection(self, x, filters, strides, *, prefix):
        """1x1 convolution and BN where the shape changes, else `x` itself."""
        if changes_shape(x, filters, strides):
            prefix = f"{prefix}_shortcut"
            x = self.conv_bn(x, filters, 1, strides, prefix=prefix)
        return x

    def dense(self, x, units, *, activation, name):
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=self.dense_initializer(),
            kernel_regularizer=self.kernel_regularizer(1),
            dtype=full_precision(),
            name=name,
        )(x)

    def imagenet_stem(self, x, *, bn_relu=True):
        """7x7 convolution to 64 channels and 3x3 maximum, both of stride 2."""
        x = self.conv(x, 64, 7, 2, name="stem_conv")
        if bn_relu:
            x = self.bn_relu(x, prefix="stem")
        return stem_pool(x)


def stem_pool(x):
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def relu(x, *, name):
    return keras.layers.ReLU(name=name)(x)


def add(tensors, *, prefix):
    return keras.layers.Add(name=f"{prefix}_add")(tensors)


def padded_identity(x, filters, strides, *, prefix):
    """The parameter-free shortcut: "option A" of He et al. 2015.

    As Veit's authors built it: a stride by 1x1 average pooling, and as many
    channels of zeros behind the others. `filters` is as now, or twice that.
    """
    prefix = f"{prefix}_shortcut"
    if strides > 1:
        pool = keras.layers.AveragePooling2D(1, strides, name=f"{prefix}_pool")
        x = pool(x)
    if _channels(x) == filters:
        return x
    zeros = keras.layers.Rescaling(0.0, name=f"{prefix}_zeros")(x)
    return keras.layers.Concatenate(
        axis=channel_axis(), name=f"{prefix}_concat"
    )([x, zeros])


def residual_block(layers, x, convs, *, prefix, branches=None, shortcut=None):
    """ReLU(H(x) + shortcut(x)), or the sum of several branches (inception).

    Args:
        layers: `Layers`.
        x: KerasTensor.
        convs: sequence of `(filters, kernel size, strides)`.
        prefix: str. The block's name.
        branches: int or `None`. `None` is one branch with no name of its own.
        shortcut: callable of `(x, filters, strides, prefix=...)`. Defaults to
            the projection.
    """
    filters = convs[-1][0]
    strides = max(conv[-1] for conv in convs)
    skip = (shortcut or layers.projection)(x, filters, strides, prefix=prefix)
    names = [prefix] if branches is None else branch_names(prefix, branches)
    residuals = [layers.branch(x, convs, prefix=name) for name in names]
    return relu(add([*residuals, skip], prefix=prefix), name=f"{prefix}_relu")


def branch_names(prefix, branches):
    return [f"{prefix}_branch{k}" for k in range(1, branches + 1)]


def preactivation_block(
    layers, x, convs, *, prefix, padded_shortcut=False, dropout=0.0
):
    """H(x) + shortcut(x), with BN-ReLU before each convolution.

    Where the channels change, the first BN-ReLU is shared by the branch and
    the 1x1 shortcut, which has no BN (He et al. 2016; WRN's released code).
    Dropout stands before the second convolution of the branch.
    """
    filters = convs[-1][0]
    strides = max(conv[-1] for conv in convs)
    activated = layers.bn_relu(x, prefix=prefix, index=1)
    if padded_shortcut:
        skip = padded_identity(x, filters, strides, prefix=prefix)
    elif changes_shape(x, filters, strides):
        skip = layers.conv(
            activated, filters, 1, strides, name=f"{prefix}_shortcut_conv"
        )
    else:
        skip = x
    residual = activated
    for k, conv in enumerate(convs, start=1):
        if k > 1:
            residual = layers.bn_relu(residual, prefix=prefix, index=k)
        if k == 2 and dropout:
            # Without a seed of its own, torch's state would be the dropout's,
            # which no checkpoint holds.
            residual = keras.layers.Dropout(
                dropout, seed=random.getrandbits(31), name=f"{prefix}_dropout"
            )(residual)
        residual = layers.conv(residual, *conv, name=f"{prefix}_conv{k}")
    return add([residual, skip], prefix=prefix)
