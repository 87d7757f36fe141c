"""Wide residual networks, Zagoruyko & Komodakis 2016."""

from collections.abc import Sequence

from keras_resfam._checks import check_integer, check_number, is_integer
from keras_resfam.models.arguments import blocks_from_depth, widened
from keras_resfam.models.blocks import (
    Layers,
    basic,
    bottleneck,
    preactivation_block,
    stages,
)
from keras_resfam.models.builder import image_classifier
from keras_resfam.models.resnet import (
    BASIC_FILTERS,
    BOTTLENECK_FILTERS,
    imagenet_resnet,
)


@image_classifier()
def WideResNet(
    x,
    depth: int = 28,
    width: float = 10,
    block: Sequence[int] = (3, 3),
    blocks: int | None = None,
    dropout: float = 0.0,
):
    """Wide residual network for small images, WRN-depth-width.

    It has a convolution to 16 channels, three stages of `16, 32, 64` channels
    (times `width`) with N pre-activation blocks each, BN and ReLU. In blocks
    that change the channels, the branch and the 1x1 convolution of the
    shortcut share the first BN and ReLU.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    section 2

    Args:
        depth: int, 6N + 4. It is 16, 22, 28, 40 or 52 in the paper. It
            determines N, for any `block`, as in table 2, unless `blocks` is
            given. Defaults to `28`.
        width: number. The widening factor k. The stages have `int(16 * k)`,
            `int(32 * k)` and `int(64 * k)` channels. Defaults to `10`.
        block: tuple of odd ints. The kernel sizes of a block's convolutions,
            B(M) in the paper, which has `(3, 3)`, `(3, 1, 3)`, `(1, 3, 1)`,
            `(1, 3)`, `(3, 1)`, `(3, 1, 1)` (table 2), `(3,)`, `(3, 3, 3)` and
            `(3, 3, 3, 3)` (table 3). The first convolution has the stride.
            Defaults to `(3, 3)`.
        blocks: int or `None`. N. If it is given, all convolutions of a block
            count, and `depth` has to be `3 * blocks * len(block) + 4`. In
            table 3, WRN-40-2 has 12 blocks of `(3,)`, 4 of `(3, 3, 3)` or 3 of
            `(3, 3, 3, 3)`. Defaults to `None`.
        dropout: float in `[0, 1)`. The rate of dropout before the second
            convolution of each branch. It is 0.3 for CIFAR and 0.4 for SVHN
            in the paper (section 2.4). Defaults to `0.0`.
    """
    filters = widened(width, 16, 32, 64)
    _check_block(block)
    if blocks is None:
        blocks = blocks_from_depth(depth, 4, "6N + 4")
    else:
        _check_blocks(blocks, block, depth)
    check_number("dropout", dropout, 0, below=1)
    if dropout and len(block) < 2:
        raise ValueError(
            "`dropout` is applied before the second convolution of a block, "
            "so it should be 0 if a block has only one. "
            f"Received: dropout={dropout!r}, block={block!r}"
        )

    layers = Layers()
    x = layers.conv(x, 16, 3, name="stem_conv")
    for prefix, f, strides in stages([blocks] * 3, filters):
        convs = [(f, block[0], strides)] + [(f, size, 1) for size in block[1:]]
        x = preactivation_block(
            layers, x, convs, prefix=prefix, dropout=dropout
        )
    return layers.bn_relu(x, prefix="head"), layers


def _check_block(block):
    if (
        not isinstance(block, (tuple, list))
        or not block
        or not all(is_integer(size, 1) and size % 2 for size in block)
    ):
        raise ValueError(
            "`block` should be a tuple of odd kernel sizes such as (3, 3). "
            f"Received: block={block!r}"
        )


def _check_blocks(blocks, block, depth):
    check_integer("blocks", blocks)
    layers = 3 * blocks * len(block) + 4
    if depth != layers:
        raise ValueError(
            f"`depth` should be {layers}, 3 * blocks * len(block) + 4, if "
            f"`blocks` is given. Received: depth={depth!r}, blocks={blocks!r}, "
            f"block={block!r}"
        )


@image_classifier("imagenet2012")
def WideResNet18(x, width: float = 1):
    """WRN-18 for ImageNet, a wider ResNet-18.

    Its stages have 2, 2, 2 and 2 post-activation blocks with
    `64, 128, 256, 512` channels (times `width`). The stem has 64 channels.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    table 7

    Args:
        width: number. The widening factor, 1, 1.5, 2 or 3 in the paper.
            Defaults to `1`.
    """
    return imagenet_resnet(
        x, (2, 2, 2, 2), widened(width, *BASIC_FILTERS), basic
    )


@image_classifier("imagenet2012")
def WideResNet34(x, width: float = 1):
    """WRN-34 for ImageNet, a wider ResNet-34.

    Its stages have 3, 4, 6 and 3 post-activation blocks with
    `64, 128, 256, 512` channels (times `width`). The stem has 64 channels.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    table 7

    Args:
        width: number. The widening factor, 1, 1.5 or 2 in the paper. Defaults
            to `1`.
    """
    return imagenet_resnet(
        x, (3, 4, 6, 3), widened(width, *BASIC_FILTERS), basic
    )


@image_classifier("imagenet2012")
def WideResNet50_2(x):
    """WRN-50-2-bottleneck for ImageNet, torchvision's `wide_resnet50_2`.

    Its stages have 3, 4, 6 and 3 bottleneck blocks that return
    `256, 512, 1024, 2048` channels. Inside, they have `128, 256, 512, 1024`
    channels, twice as many as ResNet-50. The 3x3 convolutions have the stride.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    table 8
    """
    return imagenet_resnet(
        x, (3, 4, 6, 3), BOTTLENECK_FILTERS, _wide_bottleneck
    )


@image_classifier("imagenet2012")
def WideResNet101_2(x):
    """WRN-101-2-bottleneck for ImageNet, torchvision's `wide_resnet101_2`.

    It has the blocks of `WideResNet50_2`, and 3, 4, 23 and 3 of them in its
    stages, as ResNet-101.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    section 3, which describes the network of 50 layers only
    """
    return imagenet_resnet(
        x, (3, 4, 23, 3), BOTTLENECK_FILTERS, _wide_bottleneck
    )


def _wide_bottleneck(filters, strides):
    return bottleneck(filters, strides, inner=filters // 2)
