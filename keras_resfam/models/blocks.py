"""The parts of the networks: layers, branches, shortcuts and blocks.

The names of the layers are public and stay the same between versions:
`stage2_block3_conv1`, `stage2_block3_bn1`, and so on. If a block has several
branches, the name is `stage2_block3_branch1_conv1`.
"""

import random

import keras

from keras_resfam.initializers import FanInNormal, FanInUniform
from keras_resfam.layers import BatchNormalization, Conv2D


def channel_axis():
    """Returns the axis of the channels in Keras's image data format."""
    data_format = keras.config.image_data_format()
    return -1 if data_format == "channels_last" else 1


def _channels(x):
    return x.shape[channel_axis()]


def full_precision():
    """Returns the dtype of layers that should not compute in 16 bits.

    It is `None`, Keras's own choice, unless that has 16 bits.
    """
    compute_dtype = keras.config.dtype_policy().compute_dtype
    return "float32" if compute_dtype in ("float16", "bfloat16") else None


def changes_shape(x, filters, strides):
    """Returns whether a block's output has another shape than its input."""
    return strides > 1 or _channels(x) != filters


def stages(blocks, filters):
    """Yields the name, filters and stride of every block, in order.

    Args:
        blocks: sequence of ints. The number of blocks of each stage.
        filters: sequence of ints. The number of filters of each stage.
    """
    for stage, (count, width) in enumerate(
        zip(blocks, filters, strict=True), start=1
    ):
        for block in range(1, count + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            yield f"stage{stage}_block{block}", width, strides


def basic(filters, strides):
    """Returns two 3x3 convolutions, as `(filters, kernel size, strides)`."""
    return (filters, 3, strides), (filters, 3, 1)


def bottleneck(filters, strides, inner=None):
    """Returns 1x1, 3x3 and 1x1 convolutions, as `basic` does.

    The first two have `inner` filters, which defaults to a quarter of
    `filters`. The 3x3 convolution has the stride.
    """
    inner = inner or filters // 4
    return (inner, 1, 1), (inner, 3, strides), (filters, 1, 1)


class Layers:
    """Creates the layers of a network with the settings that they share.

    Args:
        epsilon: float. The epsilon of BatchNormalization. Defaults to `1e-5`,
            as in PyTorch.
        kernel_initializer: callable that returns a new initializer for a
            convolution. Defaults to `FanInNormal`.
        kernel_regularizer: callable that takes the strides of a convolution
            and returns a new regularizer or `None`. Defaults to one that
            returns `None`.
        dense_initializer: callable that returns a new initializer for the
            last layer. Defaults to `FanInUniform`.
        shift: float. The initial beta of BatchNormalization. Defaults to
            `0.0`.
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
        """Adds a convolution without bias, padded on both sides as in PyTorch.

        Keras's "same" pads strided convolutions at the end only.
        """
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
        """Adds a branch conv-BN-ReLU-...-conv-BN, without a last ReLU."""
        for k, conv in enumerate(convs, start=1):
            x = self.conv_bn(x, *conv, prefix=prefix, index=k)
            if k < len(convs):
                x = relu(x, name=f"{prefix}_relu{k}")
        return x

    def projection(self, x, filters, strides, *, prefix):
        """Adds a 1x1 convolution and BN if the shape changes."""
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
        """Adds a 7x7 convolution and 3x3 max pooling, both with stride 2."""
        x = self.conv(x, 64, 7, 2, name="stem_conv")
        if bn_relu:
            x = self.bn_relu(x, prefix="stem")
        return stem_pool(x)


def stem_pool(x):
    """Adds the 3x3 max pooling of ImageNet networks, with a border of zeros."""
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def relu(x, *, name):
    return keras.layers.ReLU(name=name)(x)


def add(tensors, *, prefix):
    return keras.layers.Add(name=f"{prefix}_add")(tensors)


def padded_identity(x, filters, strides, *, prefix):
    """Adds a shortcut without parameters, "option A" of He et al. 2015.

    As in the code of Veit et al., 1x1 average pooling has the stride, and the
    channels are followed by as many channels of zeros.

    Args:
        x: KerasTensor. The block's input.
        filters: int. The number of channels of `x`, or twice as many.
        strides: int. The block's stride.
        prefix: str. The block's name.
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
    """Adds the block ReLU(H(x) + shortcut(x)), where H may have branches.

    Args:
        layers: `Layers`. Creates the layers.
        x: KerasTensor. The block's input.
        convs: sequence of `(filters, kernel size, strides)`. The convolutions
            of a branch.
        prefix: str. The block's name.
        branches: int or `None`. The number of branches that are added up, as
            in an inception network. Defaults to `None`, one branch whose
            layers do not have "branch" in their names.
        shortcut: callable. Takes `(x, filters, strides, prefix=...)`. Defaults
            to `layers.projection`.
    """
    filters = convs[-1][0]
    strides = max(conv[-1] for conv in convs)
    skip = (shortcut or layers.projection)(x, filters, strides, prefix=prefix)
    names = [prefix] if branches is None else branch_names(prefix, branches)
    residuals = [layers.branch(x, convs, prefix=name) for name in names]
    return relu(add([*residuals, skip], prefix=prefix), name=f"{prefix}_relu")


def branch_names(prefix, branches):
    """Returns the names of a block's branches."""
    return [f"{prefix}_branch{k}" for k in range(1, branches + 1)]


def preactivation_block(
    layers, x, convs, *, prefix, padded_shortcut=False, dropout=0.0
):
    """Adds the block H(x) + shortcut(x), with BN-ReLU before convolutions.

    If the channels change, the branch and the 1x1 convolution of the shortcut
    share the first BN-ReLU, and the shortcut has no BN (He et al. 2016, and
    the authors' code of WRN). The arguments are those of `residual_block`, and:

    Args:
        padded_shortcut: bool. Whether the shortcut is `padded_identity`.
            Defaults to `False`.
        dropout: float. The rate of dropout before the second convolution of
            the branch. Defaults to `0.0`.
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
            # Without a seed, dropout would use PyTorch's global generator,
            # whose state is not in checkpoints.
            residual = keras.layers.Dropout(
                dropout, seed=random.getrandbits(31), name=f"{prefix}_dropout"
            )(residual)
        residual = layers.conv(residual, *conv, name=f"{prefix}_conv{k}")
    return add([residual, skip], prefix=prefix)
