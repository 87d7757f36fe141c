"""Deep networks without shortcuts, Xie et al. 2017."""

from keras_resfam._checks import (
    check_choice,
    check_number,
)
from keras_resfam.initializers import (
    DeltaOrthonormal,
    FanInNormal,
    FanInUniform,
    Orthonormal,
)
from keras_resfam.layers import GradientModulation
from keras_resfam.models.arguments import (
    blocks_from_depth,
    widened,
)
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

# What makes the regularizer of a layer, of a coefficient and the strides.
REGULARIZERS = {
    "orthonormal": lambda factor, _: OrthonormalRegularizer(factor),
    "double": lambda factor, _: DoubleSoftOrthogonalityRegularizer(factor),
    "spectral": lambda factor, _: SpectralRestrictedIsometryRegularizer(factor),
    "convolutional": OrthogonalConvolutionRegularizer,
}
# Of convolutions, and of the classifier.
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
    modulation: bool = True,
    modulation_at: str = "relu",
    regularizer: str = "orthonormal",
    initializer: str | None = None,
    shift: float = 0.0,
):
    """Plain network for small images, trained by orthonormality.

    Convolution, BN and ReLU, `depth - 1` times, with no shortcut; three
    stages of `16, 32, 64` channels (times `width`), the first convolution of
    the second and of the third with stride 2: the plain network of He et al.
    2015. Kernels start orthonormal, where the regulariser is to keep them so.

    Reference: [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), sections 3 and 4

    Args:
        depth: int, 6n + 2. Layers with weights: 44 and 110 in the paper.
            Defaults to `44`.
        width: number. Multiplies the channels. Defaults to `1`.
        orthonormality: float, at least 0. The coefficient of
            `OrthonormalRegularizer` on every kernel, in place of weight
            decay; 0 for none, and kernels that start as those of He et al.
            2015. Defaults to `1e-4`.
        modulation: bool or float. Whether each layer's output passes through
            `GradientModulation`; a number of at least 1 is its threshold.
            Defaults to `True`.
        modulation_at: `"relu"` or `"conv"`. Whose outputs' errors modulation
            compares; the paper's are those of the convolutions. Defaults to
            `"relu"`.
        regularizer: str. What `orthonormality` is the coefficient of:
            `"orthonormal"`, or of `keras_resfam.regularizers` also `"double"`
            (`DoubleSoftOrthogonalityRegularizer`), `"spectral"`
            (`SpectralRestrictedIsometryRegularizer`) or `"convolutional"`
            (`OrthogonalConvolutionRegularizer`). Defaults to `"orthonormal"`.
        initializer: `None`, `"he"` (He et al. 2015), `"orthonormal"` or
            `"delta"` (`keras_resfam.initializers.DeltaOrthonormal`). How
            kernels start; `None` says as `orthonormality` does. Defaults to
            `None`.
        shift: float, at least 0. Where the beta of BatchNormalization starts.
            Above 0, fewer inputs of ReLU are negative: at 1, the error grows
            by 1.12 a layer instead of 1.467. Defaults to `0.0`.
    """
    n = blocks_from_depth(depth, 2, "6n + 2")
    filters = widened(width, 16, 32, 64)
    layers = _layers(orthonormality, regularizer, initializer, shift)
    chain = _Chain(layers, modulation, modulation_at)

    x = chain(x, (filters[0], 3), prefix="stem")
    return chain.run(x, stages([n] * 3, filters), basic), layers


@image_classifier("imagenet2012")
def OrthoPlainNet34(x, orthonormality: float = 1e-4, modulation: bool = True):
    """Plain network of 34 layers for ImageNet, trained by orthonormality.

    ResNet-34 without its shortcuts: stages of 6, 8, 12 and 6 3x3
    convolutions to `64, 128, 256, 512` channels.

    Reference: [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 5

    Args:
        orthonormality: float, at least 0. The coefficient of
            `OrthonormalRegularizer` on every kernel; 0 as in
            `OrthoPlainNet`. Defaults to `1e-4`.
        modulation: bool or float. Whether each layer's output passes through
            `GradientModulation`, or its threshold. Defaults to `True`.
    """
    return _imagenet_plain_net(
        x, (3, 4, 6, 3), BASIC_FILTERS, basic, orthonormality, modulation
    )


@image_classifier("imagenet2012")
def OrthoPlainNet101(x, orthonormality: float = 1e-4, modulation: bool = True):
    """Plain network of 101 layers for ImageNet, trained by orthonormality.

    ResNet-101 without its shortcuts: stages of 3, 4, 23 and 3 times 1x1, 3x3
    and 1x1 convolutions, the last to `256, 512, 1024, 2048` channels.

    Reference: [All You Need is Beyond a Good Init](
    https://arxiv.org/abs/1703.01827), section 5

    Args:
        orthonormality: float, at least 0. The coefficient of
            `OrthonormalRegularizer` on every kernel, by groups where there
            are more filters than they have weights; 0 as in
            `OrthoPlainNet`. Defaults to `1e-4`.
        modulation: bool or float. Whether each layer's output passes through
            `GradientModulation`, or its threshold. Defaults to `True`.
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
    check_choice("regularizer", regularizer, tuple(REGULARIZERS))
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
        make = REGULARIZERS[regularizer]
        options["kernel_regularizer"] = lambda strides: make(
            orthonormality, strides
        )
    return Layers(**options)


class _Chain:
    """Conv-BN-ReLU triples, their errors linked by modulation."""

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
        x = self._modulated(x, "conv", prefix, index)
        x = self.layers.bn_relu(x, prefix=prefix, index=index)
        return self._modulated(x, "relu", prefix, index)

    def _modulated(self, x, place, prefix, index):
        if self.modulation is False or place != self.modulation_at:
            return x
        options = {"name": f"{prefix}_modulation{index}"}
        if self.modulation is not True:
            options["threshold"] = self.modulation
        x, self.link = GradientModulation(**options)(x, self.link)
        return x

    def run(self, x, blocks, convs):
        for prefix, filters, strides in blocks:
            for k, conv in enumerate(convs(filters, strides), start=1):
                x = self(x, conv, prefix=prefix, index=k)
        return x
