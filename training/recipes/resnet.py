"""Residual networks, as Veit, Wilber & Belongie trained them (NIPS 2016).

Numbers from the authors' code, a fork of fb.resnet.torch
(github.com/gcr/fb.resnet.torch-lesion-study: opts.lua, TRAINING.md), and the
baselines that its notebook prints.

    python training/train.py --recipe resnet_110_cifar10 --data-dir DIR
"""

from training.recipes import dmrnet
from training.recipes.recipe import Recipe

CIFAR = Recipe(
    name="resnet_110_cifar10",
    source="arXiv 1605.06431, authors' notebook",
    builder="ResNet",
    arguments={"depth": 110, "preactivation": True, "shortcut": "identity"},
    dataset="cifar10",
    epochs=164,  # TRAINING.md
    batch_size=128,  # TRAINING.md
    learning_rate=0.1,  # opts.lua
    drops=(80, 121),  # at the start of epochs 81 and 122 from 1
    drop_factor=0.1,  # train.lua
    momentum=0.9,  # opts.lua
    nesterov=True,  # train.lua
    weight_decay=1e-4,  # opts.lua
    decay="all",  # optim.sgd: of the flat vector of all parameters
    flip=True,  # TRAINING.md
    crop=4,  # TRAINING.md
    padding="mean",  # zeros after normalization
    error=6.03,  # notebook; section 5 has 6.10
)

# Baselines of the authors' notebook: depth -> error.
ERRORS = {20: 8.50, 32: 7.67, 44: 6.98, 56: 6.56, 110: 6.03}

# Section 5: 23 of 54 blocks in each mini-batch. The paper does not state how
# branches are scaled. After two epochs, the accuracy on 5,000 held-out images
# is 40.5 % if they are divided by 23/54 in training, and 15.1 % if they are
# not.
EFFECTIVE_PATHS = {"active": 23, "scale": "training"}

# With a cosine, smoothed labels and an average of the weights, in a quarter of
# the paper's epochs: two hours on two processor cores. Cutout has helped
# WRN-40-1, which also classifies nearly all training images correctly without
# it.
SHORT = CIFAR.replace(
    name="resnet_110_cifar10_short",
    source="this project",
    epochs=40,
    schedule="cosine",
    drops=(),
    warmup=2,
    weight_decay=5e-4,
    decay="kernels",
    cutout=8,
    label_smoothing=0.05,
    average=0.999,
    note="in 164 epochs",
)

# An hour and a half on two processor cores. Dropped blocks are enough
# regularization: after 40 epochs with cutout, the training error was 9.1 %
# (weights/README.md).
EFFECTIVE_PATHS_SHORT = SHORT.replace(
    name="resnet_110_effective_paths_cifar10_short",
    epochs=50,
    drop_blocks=EFFECTIVE_PATHS,
    cutout=0,
    error=5.96,  # section 5
    note="in epochs not told",
)

# Under two hours on two processor cores.
SHORT_56 = SHORT.replace(
    name="resnet_56_cifar10_short",
    arguments={**CIFAR.arguments, "depth": 56},
    epochs=30,
    cutout=0,
    average=0.998,
    error=ERRORS[56],
)

# Half the paper's epochs, an hour and a half on one processor core.
SHORT_20 = SHORT.replace(
    name="resnet_20_cifar10_short",
    arguments={**CIFAR.arguments, "depth": 20},
    epochs=82,
    cutout=0,
    error=ERRORS[20],
)

# The settings for CIFAR-10, in two hours on one processor core. None was chosen
# on images of CIFAR-100, for which the authors state no error.
SHORT_20_CIFAR100 = SHORT_20.replace(
    name="resnet_20_cifar100_short",
    dataset="cifar100",
    epochs=30,
    average=0.998,
    error=None,
    note="",
)

RECIPES = (
    *(
        CIFAR.replace(
            name=f"resnet_{depth}_cifar10",
            arguments={**CIFAR.arguments, "depth": depth},
            error=error,
        )
        for depth, error in ERRORS.items()
    ),
    CIFAR.replace(
        name="resnet_110_effective_paths_cifar10",
        source="arXiv 1605.06431, section 5",
        drop_blocks=EFFECTIVE_PATHS,
        error=5.96,  # section 5
    ),
    # The baselines of the DMRNets, trained in the same way.
    dmrnet.IMAGENET.replace(
        name="resnet_101_imagenet",
        builder="ResNet101",
        error=26.41,  # table 4, the authors' own run
    ),
    dmrnet.IMAGENET_50.replace(
        name="resnet_98_imagenet",
        builder="ResNet98",
        error=23.38,  # README
    ),
    SHORT,
    EFFECTIVE_PATHS_SHORT,
    SHORT_56,
    SHORT_20,
    SHORT_20_CIFAR100,
)
