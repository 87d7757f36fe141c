"""Residual networks, He et al. 2015 and 2016."""

from keras_resfam._checks import check_choice, check_flag
from keras_resfam.models.arguments import blocks_from_depth, widened
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

    It has three stages of `16, 32, 64` channels (times `width`), with
    `(depth - 2) / 6` blocks of two 3x3 convolutions each. With
    `preactivation=True` and depth 110, it has the 54 blocks that Veit et al.
    2016 studied. Their code also has BN and ReLU in the stem, and scales the
    initial kernels by their fan-out.

    References:
    - [Deep Residual Learning for Image Recognition](
      https://arxiv.org/abs/1512.03385), section 4.2
    - [Identity Mappings in Deep Residual Networks](
      https://arxiv.org/abs/1603.05027)
    - [Residual Networks Behave Like Ensembles of Relatively Shallow
      Networks](https://arxiv.org/abs/1605.06431)

    Args:
        depth: int, 6n + 2. The number of layers with weights on the longest
            path. It is 20 to 1202 in the papers. Defaults to `110`.
        width: number. Multiplies the channels of the stem and of every stage,
            rounded down. With identity shortcuts, the second and third stage
            have twice and four times the channels of the first. Defaults to
            `1`.
        preactivation: bool. Whether BN and ReLU come before each convolution,
            with no ReLU after the addition (2016). With `False`, they come
            after it (2015). Defaults to `False`.
        shortcut: `"identity"` or `"projection"`. The shortcut of blocks that
            change the shape. `"identity"` has no parameters: it subsamples
            and appends channels of zeros (option A, as in the code of Veit
            et al.). `"projection"` is a 1x1 convolution (option B, as in the
            baseline of DMRNet), with BN unless `preactivation`. Defaults to
            `"identity"`.
    """
    blocks = blocks_from_depth(depth, 2, "6n + 2")
    check_flag("preactivation", preactivation)
    check_choice("shortcut", shortcut, ("identity", "projection"))
    padded = shortcut == "identity"
    filters = widened(width, 16, 32, 64)
    if padded:  # the padding doubles the channels
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
    """Builds a post-activation network for ImageNet, with four stages.

    Args:
        x: KerasTensor. The normalized image.
        blocks: sequence of 4 ints. The number of blocks of each stage.
        filters: sequence of 4 ints. The output channels of each stage.
        convs: callable. `basic` or `bottleneck`, or another function of
            filters and stride.
        shortcuts: bool. Whether blocks that change the shape have shortcuts,
            and the stem has BN and ReLU. `False` gives the baseline of Zhao
            et al. Defaults to `True`.
    """
    # The values of torchvision, and of the code of Zhao et al.
    layers = Layers(epsilon=1e-5 if shortcuts else 2e-5)
    x = layers.imagenet_stem(x, bn_relu=shortcuts)
    return _residual_stages(layers, x, blocks, filters, convs, shortcuts)


def _residual_stages(layers, x, blocks, filters, convs, shortcuts=True):
    """Builds post-activation stages from arguments of `imagenet_resnet`."""
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

    This is what "ResNet-18 on CIFAR" usually means: stages of two basic blocks
    with `64, 128, 256, 512` channels, after a 3x3 convolution with stride 1 and
    no max pooling. It has 11.2M parameters. He et al. used smaller networks for
    CIFAR, such as `ResNet(20)` with 0.27M parameters.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    layers = Layers()
    x = layers.conv_bn_relu(x, 64, 3, prefix="stem")
    return _residual_stages(layers, x, (2, 2, 2, 2), BASIC_FILTERS, basic)


@image_classifier("imagenet2012")
def ResNet18(x):
    """Residual network of 18 layers for ImageNet, torchvision's `resnet18`.

    Its stages have 2, 2, 2 and 2 basic blocks.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (2, 2, 2, 2), BASIC_FILTERS, basic)


@image_classifier("imagenet2012")
def ResNet34(x):
    """Residual network of 34 layers for ImageNet, torchvision's `resnet34`.

    Its stages have 3, 4, 6 and 3 basic blocks.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (3, 4, 6, 3), BASIC_FILTERS, basic)


@image_classifier("imagenet2012")
def ResNet50(x):
    """Residual network of 50 layers for ImageNet, torchvision's `resnet50`.

    Its stages have 3, 4, 6 and 3 bottleneck blocks, whose 3x3 convolutions
    have the stride.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (3, 4, 6, 3), BOTTLENECK_FILTERS, bottleneck)


@image_classifier("imagenet2012")
def ResNet98(x):
    """Residual network of 98 layers for ImageNet, the baseline of DMRNet50.

    Its stages have 2, 4, 22 and 4 bottleneck blocks, as in the code of Zhao
    et al., IJCAI 2018. The stem has neither BN nor ReLU, and the first block
    of each stage has no shortcut. The max pooling of the stem pads with zeros,
    where the authors' code pads with minus infinity.

    Reference: [Deep Convolutional Neural Networks with Merge-and-Run
    Mappings](https://arxiv.org/abs/1611.07718)
    """
    return imagenet_resnet(
        x, (2, 4, 22, 4), BOTTLENECK_FILTERS, bottleneck, shortcuts=False
    )


@image_classifier("imagenet2012")
def ResNet101(x):
    """Residual network of 101 layers for ImageNet, torchvision's `resnet101`.

    Its stages have 3, 4, 23 and 3 bottleneck blocks, whose 3x3 convolutions
    have the stride. It is the baseline of `DMRNet44`.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (3, 4, 23, 3), BOTTLENECK_FILTERS, bottleneck)


@image_classifier("imagenet2012")
def ResNet152(x):
    """Residual network of 152 layers for ImageNet, torchvision's `resnet152`.

    Its stages have 3, 8, 36 and 3 bottleneck blocks, whose 3x3 convolutions
    have the stride.

    Reference: [Deep Residual Learning for Image Recognition](
    https://arxiv.org/abs/1512.03385), table 1
    """
    return imagenet_resnet(x, (3, 8, 36, 3), BOTTLENECK_FILTERS, bottleneck)
