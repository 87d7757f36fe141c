"""Wide residual networks, Zagoruyko & Komodakis 2016."""

from collections.abc import Sequence

from keras_resfam._checks import (
    check_integer,
    check_number,
    is_integer,
)
from keras_resfam.models.arguments import (
    blocks_from_depth,
    widened,
)
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
    blocks: Sequence[int] | None = None,
    dropout: float = 0.0,
):
    """Wide residual network for small images: WRN-depth-width.

    A convolution to 16 channels, three stages of `16, 32, 64` channels times
    `width` with N pre-activation blocks each, BN and ReLU. Where the channels
    change, the first BN-ReLU of a block is shared by its branch and by its
    1x1 shortcut.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    section 2

    Args:
        depth: int, 6N + 4. 16, 22, 28, 40 and 52 in the paper. N follows from
            it whatever the block, as in table 2, unless `blocks` is given.
            Defaults to `28`.
        width: number. The widening factor k; `int(16 * k)` channels and so
            on. Defaults to `10`.
        block: tuple of ints. B(M): the kernel sizes of a block's
            convolutions, odd. The paper has `(3, 3)`, `(3, 1, 3)`,
            `(1, 3, 1)`, `(1, 3)`, `(3, 1)`, `(3, 1, 1)` (table 2), `(3,)`,
            `(3, 3, 3)` and `(3, 3, 3, 3)` (table 3). The first carries the
            stride. Defaults to `(3, 3)`.
        blocks: int or `None`. N, where all convolutions of a block count,
            and `depth` is `3 * blocks * len(block) + 4`: table 3 has WRN-40-2
            with 12 blocks of `(3,)`, 4 of `(3, 3, 3)`, 3 of `(3, 3, 3, 3)`.
            Defaults to `None`.
        dropout: float, 0 or more and below 1. The rate of dropout before the
            second convolution of each branch: 0.3 for CIFAR, 0.4 for SVHN in
            the paper (section 2.4). Defaults to `0.0`.
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
            "`dropout` stands before the second convolution of a block and "
            "should be 0 where a block has one. "
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
            f"`depth` should be {layers}, 3 * blocks * len(block) + 4, where "
            f"`blocks` is given. Received: depth={depth!r}, blocks={blocks!r}, "
            f"block={block!r}"
        )


@image_classifier("imagenet2012")
def WideResNet18(x, width: float = 1):
    """WRN-18 for ImageNet: post-activation blocks (2, 2, 2, 2), widened.

    Stages of `64, 128, 256, 512` channels times `width`; the stem keeps 64.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    table 7

    Args:
        width: number. 1, 1.5, 2 or 3 in the paper. Defaults to `1`.
    """
    return imagenet_resnet(
        x, (2, 2, 2, 2), widened(width, *BASIC_FILTERS), basic
    )


@image_classifier("imagenet2012")
def WideResNet34(x, width: float = 1):
    """WRN-34 for ImageNet: post-activation blocks (3, 4, 6, 3), widened.

    Stages of `64, 128, 256, 512` channels times `width`; the stem keeps 64.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    table 7

    Args:
        width: number. 1, 1.5 or 2 in the paper. Defaults to `1`.
    """
    return imagenet_resnet(
        x, (3, 4, 6, 3), widened(width, *BASIC_FILTERS), basic
    )


@image_classifier("imagenet2012")
def WideResNet50_2(x):
    """WRN-50-2-bottleneck for ImageNet: torchvision's `wide_resnet50_2`.

    Bottleneck blocks (3, 4, 6, 3) that put out `256, 512, 1024, 2048`
    channels and have twice ResNet-50's channels inside: `128, ..., 1024`. The
    stride is the 3x3 convolution's.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    table 8
    """
    return imagenet_resnet(
        x, (3, 4, 6, 3), BOTTLENECK_FILTERS, _wide_bottleneck
    )


@image_classifier("imagenet2012")
def WideResNet101_2(x):
    """WRN-101-2-bottleneck for ImageNet: torchvision's `wide_resnet101_2`.

    `WideResNet50_2` with the blocks (3, 4, 23, 3) of ResNet-101.

    Reference: [Wide Residual Networks](https://arxiv.org/abs/1605.07146),
    section 3, which has the one of 50 layers
    """
    return imagenet_resnet(
        x, (3, 4, 23, 3), BOTTLENECK_FILTERS, _wide_bottleneck
    )


def _wide_bottleneck(filters, strides):
    return bottleneck(filters, strides, inner=filters // 2)
