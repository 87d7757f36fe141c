"""Plain networks, which have no shortcuts, Xie et al. 2017."""

from keras_resfam._checks import check_choice, check_number
from keras_resfam.initializers import (
    DeltaOrthonormal,
    FanInNormal,
    FanInUniform,
    Orthonormal,
)
from keras_resfam.layers import GradientModulation
from keras_resfam.models.arguments import blocks_from_depth, widened
from keras_resfam.models.blocks import (
    Layers,
    basic,
    bottleneck,
    stages,
    stem_pool,
)
from keras_resfam.models.builder import image_classifier
from keras_resfam.models.resnet import BASIC_FILTERS, BOTTLENECK_FILTERS
from keras_resfam.regularizers import (
    DoubleSoftOrthogonalityRegularizer,
    OrthogonalConvolutionRegularizer,
    OrthonormalRegularizer,
    SpectralRestrictedIsometryRegularizer,
)

# Functions that make a regularizer from its coefficient and a layer's strides.
_REGULARIZERS = {
    "orthonormal": lambda factor, _: OrthonormalRegularizer(factor),
    "double": lambda factor, _: DoubleSoftOrthogonalityRegularizer(factor),
    "spectral": lambda factor, _: SpectralRestrictedIsometryRegularizer(factor),
    "convolutional": OrthogonalConvolutionRegularizer,
}
# The initializers of the convolutions, and of the classifier.
_INITIALIZERS = {
    "he": (FanInNormal, FanInUniform),
    "orthonormal": (Orthonormal, Orthonormal),
    "delta": (DeltaOrthonormal, Orthonormal),
}


@image_classifier()
def OrthoPlainNet(
    x,
    depth: int = 44,
    width: float = 1,
    orthonormality: float = 1e-4,
    modulation: bool | float = True,
    modulation_at: str = "relu",
    regularizer: str = "orthonormal",
    initializer: str | None = None,
    shift: float = 0.0,
):
    """Plain network for small images, trained with orthonormal kernels.

    This is the plain network of He et al. 2015: `depth - 1` times convolution,
    BN and ReLU, without shortcuts, in three stages of `16, 32, 64` channels
    (times `width`). The first convolution of the second and of the third stage
    has stride 2. Kernels are initialized to be orthonormal, and a regularizer
    keeps them so.

    Reference: [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), sections 3 and 4

    Args:
        depth: int, 6n + 2. The number of layers with weights. It is 44 and
            110 in the paper. Defaults to `44`.
        width: number. Multiplies the channels. Defaults to `1`.
        orthonormality: float, at least 0. The coefficient of the regularizer
            of every kernel, which replaces weight decay. With 0, there is no
            regularizer, and kernels are initialized as in He et al. 2015.
            Defaults to `1e-4`.
        modulation: bool or float. Whether `GradientModulation` follows each
            layer. A number of at least 1 is its threshold. Defaults to `True`.
        modulation_at: `"relu"` or `"conv"`. The layers that
            `GradientModulation` follows. In the paper, these are the
            convolutions. Defaults to `"relu"`.
        regularizer: str. The regularizer of `keras_resfam.regularizers`:
            `"orthonormal"` (`OrthonormalRegularizer`), `"double"`
            (`DoubleSoftOrthogonalityRegularizer`), `"spectral"`
            (`SpectralRestrictedIsometryRegularizer`) or `"convolutional"`
            (`OrthogonalConvolutionRegularizer`). Defaults to `"orthonormal"`.
        initializer: `None`, `"he"` (He et al. 2015), `"orthonormal"`
            (`keras_resfam.initializers.Orthonormal`) or `"delta"`
            (`keras_resfam.initializers.DeltaOrthonormal`). The initializer of
            the kernels. Defaults to `None`, which is `"orthonormal"`, or
            `"he"` with `orthonormality=0`.
        shift: float, at least 0. The initial beta of BatchNormalization. Above
            0, fewer inputs of ReLU are negative. With 1, the second moment of
            the error grows by a factor of 1.12 per layer instead of 1.467.
            Defaults to `0.0`.
    """
    n = blocks_from_depth(depth, 2, "6n + 2")
    filters = widened(width, 16, 32, 64)
    layers = _layers(orthonormality, regularizer, initializer, shift)
    chain = _Chain(layers, modulation, modulation_at)

    x = chain(x, (filters[0], 3), prefix="stem")
    return chain.run(x, stages([n] * 3, filters), basic), layers


@image_classifier("imagenet2012")
def OrthoPlainNet34(
    x, orthonormality: float = 1e-4, modulation: bool | float = True
):
    """Plain network of 34 layers for ImageNet, with orthonormal kernels.

    This is ResNet-34 without its shortcuts: stages of 6, 8, 12 and 6
    convolutions of 3x3, to `64, 128, 256, 512` channels.

    Reference: [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 5

    Args:
        orthonormality: float, at least 0. The coefficient of
            `OrthonormalRegularizer` on every kernel, as in `OrthoPlainNet`.
            Defaults to `1e-4`.
        modulation: bool or float. Whether `GradientModulation` follows each
            layer. A number of at least 1 is its threshold. Defaults to `True`.
    """
    return _imagenet_plain_net(
        x, (3, 4, 6, 3), BASIC_FILTERS, basic, orthonormality, modulation
    )


@image_classifier("imagenet2012")
def OrthoPlainNet101(
    x, orthonormality: float = 1e-4, modulation: bool | float = True
):
    """Plain network of 101 layers for ImageNet, with orthonormal kernels.

    This is ResNet-101 without its shortcuts: stages of 3, 4, 23 and 3 times
    three convolutions of 1x1, 3x3 and 1x1, of which the last has
    `256, 512, 1024, 2048` channels.

    Reference: [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 5

    Args:
        orthonormality: float, at least 0. The coefficient of
            `OrthonormalRegularizer` on every kernel, as in `OrthoPlainNet`.
            Kernels with more filters than weights per filter are regularized
            in groups. Defaults to `1e-4`.
        modulation: bool or float. Whether `GradientModulation` follows each
            layer. A number of at least 1 is its threshold. Defaults to `True`.
    """
    return _imagenet_plain_net(
        x,
        (3, 4, 23, 3),
        BOTTLENECK_FILTERS,
        bottleneck,
        orthonormality,
        modulation,
    )


def _imagenet_plain_net(x, blocks, filters, convs, orthonormality, modulation):
    layers = _layers(orthonormality)
    chain = _Chain(layers, modulation)
    x = stem_pool(chain(x, (64, 7, 2), prefix="stem"))
    return chain.run(x, stages(blocks, filters), convs), layers


def _layers(
    orthonormality, regularizer="orthonormal", initializer=None, shift=0.0
):
    check_number("orthonormality", orthonormality, 0)
    check_choice("regularizer", regularizer, tuple(_REGULARIZERS))
    check_choice("initializer", initializer, (None, *_INITIALIZERS))
    check_number("shift", shift, 0)
    if initializer is None:
        initializer = "orthonormal" if orthonormality else "he"
    convolutions, classifier = _INITIALIZERS[initializer]
    options = {
        "kernel_initializer": convolutions,
        "dense_initializer": classifier,
        "shift": float(shift),
    }
    if orthonormality:
        make = _REGULARIZERS[regularizer]
        options["kernel_regularizer"] = lambda strides: make(
            orthonormality, strides
        )
    return Layers(**options)


class _Chain:
    """Adds conv-BN-ReLU triples, and the modulations that link them."""

    def __init__(self, layers, modulation, modulation_at="relu"):
        if not isinstance(modulation, bool):
            others = "True, False or "
            check_number("modulation", modulation, 1, others=others)
        check_choice("modulation_at", modulation_at, ("relu", "conv"))
        self.layers = layers
        self.modulation = modulation
        self.modulation_at = modulation_at
        self.link = None

    def __call__(self, x, conv, *, prefix, index=""):
        x = self.layers.conv(x, *conv, name=f"{prefix}_conv{index}")
        x = self._modulate(x, "conv", prefix, index)
        x = self.layers.bn_relu(x, prefix=prefix, index=index)
        return self._modulate(x, "relu", prefix, index)

    def _modulate(self, x, place, prefix, index):
        if self.modulation is False or place != self.modulation_at:
            return x
        options = {"name": f"{prefix}_modulation{index}"}
        if self.modulation is not True:
            options["threshold"] = self.modulation
        x, self.link = GradientModulation(**options)(x, self.link)
        return x

    def run(self, x, blocks, convs):
        """Adds the convolutions of all blocks."""
        for prefix, filters, strides in blocks:
            for k, conv in enumerate(convs(filters, strides), start=1):
                x = self(x, conv, prefix=prefix, index=k)
        return x
