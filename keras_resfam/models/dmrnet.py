"""Merge-and-run networks and inception-like networks, Zhao et al. 2016."""

import keras

from keras_resfam._checks import check_choice, check_integer
from keras_resfam.models.arguments import blocks_from_depth, widened
from keras_resfam.models.blocks import (
    Layers,
    add,
    basic,
    bottleneck,
    branch_names,
    changes_shape,
    channel_axis,
    relu,
    residual_block,
    stages,
)
from keras_resfam.models.builder import image_classifier
from keras_resfam.models.resnet import BOTTLENECK_FILTERS

_MERGE = "merge_and_run"


def _layers():
    return Layers(epsilon=2e-5)  # as in the authors' code


@image_classifier()
def DMRNet(
    x,
    depth: int = 56,
    width: float = 1,
    branches: int = 2,
    mapping: str = _MERGE,
):
    """Deep merge-and-run network for small images.

    A block takes and returns one tensor for each of its branches. Each branch
    adds its output to the average of all inputs:
    `x_i' = ReLU(H_i(x_i) + mean_j x_j)`. In the first block, the input of every
    branch is the stem's output. If the shape changes, each branch projects its
    input (1x1 convolution and BN) before the average. The last block adds the
    outputs of all branches to the average. The network has three stages of
    `16, 32, 64` channels (times `width`, as in the stem) with
    `(depth - 2) / 6` blocks each. A branch has two 3x3 convolutions.

    The paper states 24.8M parameters for the wide network of depth 50
    (`width=4`). The authors' code and this builder have 24,151,882.

    Reference: [Deep Convolutional Neural Networks with Merge-and-Run
    Mappings](https://arxiv.org/abs/1611.07718), section 3 and table 2

    Args:
        depth: int, 6n + 2. The number of layers on the longest path, as in
            table 3. The paper's L is `depth - 2`, and `--depth` in the
            authors' code is `2 * depth - 2`. Defaults to `56`.
        width: number. Multiplies the channels. It is 4 in the paper's wide
            networks. Defaults to `1`.
        branches: int, at least 1. K in section 3.4. It is 2 in the paper's
            experiments. With 1, the network is a residual network. Defaults
            to `2`.
        mapping: `"merge_and_run"` or `"identity"`. With `"identity"`, each
            branch adds its output to its own input instead of the average, as
            in the ablation of table 5. The network then is K residual
            networks that share the stem and the last block. (The paper does
            not state how their outputs are combined. Here, the last block is
            that of a merge-and-run network.) Defaults to `"merge_and_run"`.
    """
    n = blocks_from_depth(depth, 2, "6n + 2")
    filters = widened(width, 16, 32, 64)
    check_integer("branches", branches)
    check_choice("mapping", mapping, (_MERGE, "identity"))

    layers = _layers()
    x = layers.conv_bn_relu(x, filters[0], 3, prefix="stem")
    blocks = stages([n] * 3, filters)
    x = _merge_and_run(layers, x, blocks, basic, branches, mapping)
    return x, layers


def _merge_and_run(layers, x, blocks, convs, branches=2, mapping=_MERGE):
    """Adds all blocks to the stem's output, and returns one tensor."""
    streams = [x] * branches
    *blocks, (last, filters, strides) = blocks
    for prefix, *shape in blocks:
        streams = _merge_and_run_block(
            layers, streams, convs(*shape), prefix=prefix, mapping=mapping
        )
    return _merge_block(layers, streams, convs(filters, strides), prefix=last)


def _merge_and_run_block(layers, streams, convs, *, prefix, mapping=_MERGE):
    """Returns ReLU(H_i(x_i) + mean_j x_j) for each stream x_i."""
    names = branch_names(prefix, len(streams))
    residuals, skips = _residuals_and_skips(layers, streams, convs, names)
    if mapping == _MERGE:
        skips = [_average(skips, prefix=prefix)] * len(streams)
    return [
        relu(add([h, skip], prefix=name), name=f"{name}_relu")
        for h, skip, name in zip(residuals, skips, names, strict=True)
    ]


def _merge_block(layers, streams, convs, *, prefix):
    """Returns the last block's ReLU(sum_i H_i(x_i) + mean_j x_j)."""
    names = branch_names(prefix, len(streams))
    residuals, skips = _residuals_and_skips(layers, streams, convs, names)
    mean = _average(skips, prefix=prefix)
    return relu(add([*residuals, mean], prefix=prefix), name=f"{prefix}_relu")


def _residuals_and_skips(layers, streams, convs, names):
    """Returns H_i(x_i), and x_i or its projection, for each stream x_i."""
    filters, strides = convs[-1][0], max(conv[-1] for conv in convs)
    pairs = list(zip(streams, names, strict=True))
    return (
        [layers.branch(x, convs, prefix=name) for x, name in pairs],
        [
            layers.projection(x, filters, strides, prefix=name)
            for x, name in pairs
        ],
    )


def _average(streams, *, prefix):
    first, *others = streams
    if all(x is first for x in others):
        return first  # one branch, or the stem's output in every branch
    return keras.layers.Average(name=f"{prefix}_merge")(streams)


@image_classifier()
def DILNet(x, depth: int = 56, width: float = 1, branches: int = 2):
    """Deep inception-like network for small images, the baseline of DMRNet.

    It differs from `DMRNet` in that blocks take and return one tensor:
    `x' = ReLU(H_1(x) + ... + H_K(x) + x)`. If the shape changes, `x` is
    projected once (1x1 convolution and BN).

    Reference: [Deep Convolutional Neural Networks with Merge-and-Run
    Mappings](https://arxiv.org/abs/1611.07718), section 3 and table 2

    Args:
        depth: int, 6n + 2. The number of layers on the longest path. Defaults
            to `56`.
        width: number. Multiplies the channels. Defaults to `1`.
        branches: int, at least 1. The number of residual branches of a block.
            Defaults to `2`.
    """
    n = blocks_from_depth(depth, 2, "6n + 2")
    filters = widened(width, 16, 32, 64)
    check_integer("branches", branches)

    layers = _layers()
    x = layers.conv_bn_relu(x, filters[0], 3, prefix="stem")
    for prefix, f, strides in stages([n] * 3, filters):
        convs = basic(f, strides)
        x = residual_block(layers, x, convs, prefix=prefix, branches=branches)
    return x, layers


@image_classifier("imagenet2012")
def DMRNet44(x):
    """Merge-and-run network of 44 layers for ImageNet (arXiv, version 2).

    It has two branches of bottleneck blocks, with 2, 2, 8 and 2 blocks in
    its stages. In the first block of a stage, each branch has a projection.
    The last block adds the branches.

    Reference: [Deep Convolutional Neural Networks with Merge-and-Run
    Mappings](https://arxiv.org/abs/1611.07718v2), section 4.4
    """
    layers = _layers()
    blocks = stages((2, 2, 8, 2), BOTTLENECK_FILTERS)
    x = layers.imagenet_stem(x)
    return _merge_and_run(layers, x, blocks, bottleneck), layers


@image_classifier("imagenet2012")
def DMRNet50(x):
    """Merge-and-run network of 50 layers for ImageNet (IJCAI 2018).

    It has two branches of bottleneck blocks, with 1, 2, 11 and 2 blocks in
    its stages. The stem has neither BN nor ReLU. The branches of the first
    block of a stage have no shortcut and are not merged. The outputs of the
    two branches are concatenated at the end (4096 channels). The max pooling
    of the stem pads with zeros, where the authors' code pads with minus
    infinity.

    Reference: [Deep Convolutional Neural Networks with Merge-and-Run
    Mappings](https://www.ijcai.org/proceedings/2018/440)
    """
    layers = _layers()
    streams = [layers.imagenet_stem(x, bn_relu=False)] * 2
    for prefix, f, strides in stages((1, 2, 11, 2), BOTTLENECK_FILTERS):
        convs = bottleneck(f, strides)
        if changes_shape(streams[0], f, strides):
            streams = [
                relu(layers.branch(x, convs, prefix=name), name=f"{name}_relu")
                for x, name in zip(
                    streams, branch_names(prefix, 2), strict=True
                )
            ]
        else:
            streams = _merge_and_run_block(
                layers, streams, convs, prefix=prefix
            )
    join = keras.layers.Concatenate(axis=channel_axis(), name="head_concat")
    return join(streams), layers
