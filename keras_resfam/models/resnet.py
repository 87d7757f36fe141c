"""Residual networks: everyone's baseline, and the subject of Veit et al."""

from keras_resfam._checks import (
    check_choice,
    check_flag,
)
from keras_resfam.models.arguments import (
    blocks_from_depth,
    widened,
)
from keras_resfam.models.blocks import (
    Layers,
    basic,
    bottleneck,
    changes_shape,
    padded_identity,
    preactivation_block,
    relu,
    residual_block,
    stages,
)
from keras_resfam.models.builder import image_classifier

BASIC_FILTERS = (64, 128, 256, 512)
BOTTLENECK_FILTERS = (256, 512, 1024, 2048)


@image_classifier()
def ResNet(
    x,
    depth: int = 110,
    width: float = 1,
    preactivation: bool = False,
    shortcut: str = "identity",
):
    """Residual network for small images, He et al. 2015 and 2016.

    Three stages of `16, 32, 64` channels (times `width`) with `(depth - 2) /
    6` blocks of two 3x3 convolutions each. With `preactivation=True` and
    depth 110 it has the 54 blocks that Veit et al. 2016 studied, whose code
    has BN and ReLU in the stem besides, and draws kernels by their fan-out.

    References:
    - [Deep Residual Learning for Image Recognition](
      https://arxiv.org/abs/1512.03385), section 4.2
    - [Identity Mappings in Deep Residual Networks](
      https://arxiv.org/abs/1603.05027)
    - [Residual Networks Behave Like Ensembles of Relatively Shallow
      Networks](https://arxiv.org/abs/1605.06431)

    Args:
        depth: int, 6n + 2. Layers with weights on the longest path: 20 to
            1202 in the papers. Defaults to `110`.
        width: number. Multiplies the channels of the stem and of every stage,
            rounded down; identity shortcuts double the first stage's for each
            of the others. Defaults to `1`.
        preactivation: bool. BN and ReLU before each convolution and none
            after the addition (2016), or after them (2015). Defaults to
            `False`.
        shortcut: `"identity"` or `"projection"`. Where the shape changes: no
            parameters, a stride and channels of zeros (option A, as Veit's
            authors have it); or a 1x1 convolution (option B, the baseline of
            DMRNet; with BN unless `preactivation`). Defaults to
            `"identity"`.
    """
    blocks = blocks_from_depth(depth, 2, "6n + 2")
    check_flag("preactivation", preactivation)
    check_choice("shortcut", shortcut, ("identity", "projection"))
    padded = shortcut == "identity"
    filters = widened(width, 16, 32, 64)
    if padded:  # as many zeros again
        filters = tuple(k * filters[0] for k in (1, 2, 4))

    layers = Layers()
    if preactivation:
        x = layers.conv(x, filters[0], 3, name="stem_conv")
    else:
        x = layers.conv_bn_relu(x, filters[0], 3, prefix="stem")
    for prefix, f, strides in stages([blocks] * 3, filters):
        convs = basic(f, strides)
        if preactivation:
            x = preactivation_block(
                layers, x, convs, prefix=prefix, padded_shortcut=padded
            )
        else:
            skip = padded_identity if padded else layers.projection
            x = residual_block(layers, x, convs, prefix=prefix, shortcut=skip)
    if preactivation:
        x = layers.bn_relu(x, prefix="head")
    return x, layers


def imagenet_resnet(x, blocks, filters, convs, shortcuts=True):
    """Builds a post-activation network for ImageNet, of four stages.

    Args:
        x: KerasTensor. The image.
        blocks: sequence of 4 ints. Blocks of each stage.
        filters: sequence of 4 ints. Filters that each stage puts out.
        convs: callable of filters and stride: `basic` or `bottleneck`.
        shortcuts: bool. Without them where the shape changes, and with
            neither BN nor ReLU in the stem, it is Zhao et al.'s baseline.
            Defaults to `True`.
    """
    # As in the code of those whose network it is.
    layers = Layers(epsilon=1e-5 if shortcuts else 2e-5)
    x = layers.imagenet_stem(x, bn_relu=shortcuts)
    return _residual_stages(layers, x, blocks, filters, convs, shortcuts)


def _residual_stages(layers, x, blocks, filters, convs, shortcuts=True):
    """Builds post-activation stages; the arguments are `imagenet_resnet`'s."""
    for prefix, f, strides in stages(blocks, filters):
        block = convs(f, strides)
        if shortcuts or not changes_shape(x, f, strides):
            x = residual_block(layers, x, block, prefix=prefix)
        else:
            x = layers.branch(x, block, prefix=prefix)
            x = relu(x, name=f"{prefix}_relu")
    return x, layers


@image_classifier()
def ResNet18CIFAR(x):
    """Residual network of 18 layers with ResNet-18's widths, for small images.

    What "ResNet-18 on CIFAR" usually means: the basic blocks (2, 2, 2, 2) of
    `64, 128, 256, 512` channels behind a 3x3 convolution of stride 1, without
    the maximum. `ResNet(20)` is He et al.'s own for CIFAR, of 0.27M
    parameters; this has 11.2M.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    layers = Layers()
    x = layers.conv_bn_relu(x, 64, 3, prefix="stem")
    return _residual_stages(layers, x, (2, 2, 2, 2), BASIC_FILTERS, basic)


@image_classifier("imagenet2012")
def ResNet18(x):
    """Residual network of 18 layers for ImageNet: torchvision's `resnet18`.

    Basic blocks (2, 2, 2, 2).

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (2, 2, 2, 2), BASIC_FILTERS, basic)


@image_classifier("imagenet2012")
def ResNet34(x):
    """Residual network of 34 layers for ImageNet: torchvision's `resnet34`.

    Basic blocks (3, 4, 6, 3).

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (3, 4, 6, 3), BASIC_FILTERS, basic)


@image_classifier("imagenet2012")
def ResNet50(x):
    """Residual network of 50 layers for ImageNet: torchvision's `resnet50`.

    Bottleneck blocks (3, 4, 6, 3), the stride in the 3x3 convolution.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (3, 4, 6, 3), BOTTLENECK_FILTERS, bottleneck)


@image_classifier("imagenet2012")
def ResNet98(x):
    """Residual network of 98 layers for ImageNet: DMRNet50's baseline.

    Bottleneck blocks (2, 4, 22, 4), as in the code of Zhao et al., IJCAI
    2018: neither BN nor ReLU in the stem, and no shortcut in the first block
    of each stage. The border of the stem's maximum is zero, where the
    original has minus infinity.

    Reference: [Deep Convolutional Neural Networks with Merge-and-Run
    Mappings](https://arxiv.org/abs/1611.07718)
    """
    return imagenet_resnet(
        x, (2, 4, 22, 4), BOTTLENECK_FILTERS, bottleneck, shortcuts=False
    )


@image_classifier("imagenet2012")
def ResNet101(x):
    """Residual network of 101 layers for ImageNet: DMRNet44's baseline.

    Bottleneck blocks (3, 4, 23, 3), the stride in the 3x3 convolution:
    torchvision's graph.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (3, 4, 23, 3), BOTTLENECK_FILTERS, bottleneck)


@image_classifier("imagenet2012")
def ResNet152(x):
    """Residual network of 152 layers for ImageNet: torchvision's `resnet152`.

    Bottleneck blocks (3, 8, 36, 3), the stride in the 3x3 convolution.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (3, 8, 36, 3), BOTTLENECK_FILTERS, bottleneck)
