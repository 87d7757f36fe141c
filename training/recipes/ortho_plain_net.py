"""Deep plain networks: Xie, Xiong & Pu, CVPR 2017, arXiv 1703.01827.

The paper's figures show 64,000 iterations, with the learning rate divided by 10
at 32,000 and 48,000 (figures 3 and 5), as in He et al. 2015, section 4.2. The
learning rate, momentum, weight decay and batch size, which the paper does not
state, are from there. The errors are read from figure 5, or from summaries of
the paper. Its CIFAR-10 curves seem to be without augmentation (a ResNet-44 at
12 %), so there is a recipe with augmentation and one without.

    python training/train.py --recipe ortho_plain_44_cifar10 --data-dir DIR

There are also this project's experiments on what makes plain networks train
(`EXPERIMENTS` and `SEARCH`).
"""

from training.recipes import resnet
from training.recipes.recipe import Recipe

CIFAR = Recipe(
    name="ortho_plain_44_cifar10",
    source="arXiv 1703.01827",
    builder="OrthoPlainNet",
    arguments={"depth": 44, "orthonormality": 1e-4, "modulation": True},
    dataset="cifar10",
    epochs=164,  # 64,000 iterations of 390 an epoch
    batch_size=128,  # He et al. 2015
    learning_rate=0.1,  # He et al. 2015
    drops=(82, 123),  # 32,000 and 48,000 iterations
    drop_factor=0.1,  # figure 3
    momentum=0.9,  # He et al. 2015
    nesterov=False,  # He et al. 2015
    weight_decay=0.0,  # section 3.2: orthonormality instead
    flip=True,  # He et al. 2015
    crop=4,  # He et al. 2015
    padding="mean",  # He et al. 2015
)

IMAGENET = CIFAR.replace(
    name="ortho_plain_34_imagenet",
    builder="OrthoPlainNet34",
    arguments={"orthonormality": 1e-4, "modulation": True},
    dataset="imagenet2012",
    test_split="validation",
    image_size=224,
    epochs=90,  # figure 5, right
    batch_size=256,  # He et al. 2015
    drops=(30, 60),  # figure 5, right
    crop=0,  # instead: a random area of the photograph
    # He et al. 2015, 3.4: 224 pixels of a shorter side of 256 to 480, of 4:3.
    # As in all crops here, the aspect ratio varies too.
    crop_area=(0.16, 0.57),
    lighting=0.1,  # He et al. 2015, section 3.4
)

# "msra init + L2 reg" in the figures, and the paper's alternatives.
VARIANTS = {
    "plain": {"orthonormality": 0.0, "modulation": False},
    "orthonormal_plain": {"orthonormality": 1e-4, "modulation": False},
    "ortho_plain": {"orthonormality": 1e-4, "modulation": True},
}

# He et al. 2015, unless orthonormality replaces weight decay.
DECAYS = {"plain": 1e-4, "orthonormal_plain": 0.0, "ortho_plain": 0.0}

# Without augmentation: figure 5, left, and a summary of the paper.
ERRORS = {
    ("plain", 44): (16.2, "by figure 5"),
    ("orthonormal_plain", 44): (12.8, "by figure 5"),
    ("ortho_plain", 44): (11.58, "by a summary of the paper"),
    ("ortho_plain", 110): (18.4, "by a summary of the paper"),
}


def _cifar(variant, depth, augmented):
    error, note = None, ""
    if not augmented:
        error, note = ERRORS.get((variant, depth), (None, ""))
    return CIFAR.replace(
        name=f"{variant}_{depth}_cifar10" + ("" if augmented else "_noaug"),
        arguments={"depth": depth, **VARIANTS[variant]},
        weight_decay=DECAYS[variant],
        flip=augmented,
        crop=4 if augmented else 0,
        error=error,
        note=note,
    )


def _imagenet_101(variant):
    told = variant == "ortho_plain"
    return IMAGENET.replace(
        name=f"{variant}_101_imagenet",
        builder="OrthoPlainNet101",
        arguments=VARIANTS[variant],
        weight_decay=DECAYS[variant],
        error=30.0 if told else None,
        note="by a summary of the paper" if told else "",
    )


# With a cosine and an average of the weights, in half the paper's steps.
SHORT = CIFAR.replace(
    name="ortho_plain_110_cifar10_short",
    source="this project",
    arguments={**CIFAR.arguments, "depth": 110},
    epochs=82,
    schedule="cosine",
    drops=(),
    warmup=5,
    nesterov=True,
    clip_norm=5.0,
    average=0.999,
    label_smoothing=0.05,
)

# Without modulation, which makes a step slower, and which had a lower accuracy
# on 5,000 held-out images after two epochs. In 80 epochs without cutout, the
# training accuracy was 97 % (weights/README.md).
SHORT_44 = SHORT.replace(
    name="ortho_plain_44_no_modulation_cifar10_short",
    arguments={"depth": 44, **VARIANTS["orthonormal_plain"]},
    epochs=100,
    warmup=2.5,
    average=0.998**0.8,  # 0.998 for 80 epochs
    cutout=8,
)

# The paper's baselines without augmentation. Its ResNets have the schedule, the
# decay and the images of its plain networks, and L2 regularization. If our
# ResNets differ from its figures, the images are the cause, and not the method.
RESNET_ERRORS = {44: 12.15, 110: 13.4}  # figure 5, left and middle


def _resnet(depth):
    return CIFAR.replace(
        name=f"resnet_{depth}_cifar10_noaug",
        source="arXiv 1703.01827, figure 5",
        builder="ResNet",
        arguments={"depth": depth},  # He et al. 2015
        weight_decay=DECAYS["plain"],
        flip=False,
        crop=0,
        error=RESNET_ERRORS[depth],
        note="by figure 5",
    )


# Bansal et al. 2018, the authors' script for wide residual networks: the
# penalty is strong at first, and falls to zero.
SRIP_SCHEDULE = ((20, 1e-3), (50, 1e-4), (70, 1e-6), (120, 0.0))

# Changes of the orthonormal networks that may help them train, without
# augmentation. All log the ratio of figure 3. In a short trial with a network
# of 20 layers that memorized 2,000 images, a coefficient of 1e-2 had 2.4 points
# more accuracy than 1e-4, with two seeds. `SEARCH` is meant to confirm it.
EXPERIMENTS = {
    "lambda_1e-2": {},
    "modulation_5_epochs": {"modulation": True, "modulation_epochs": 5},
    "modulation_at_conv_5_epochs": {
        "modulation": True,
        "modulation_at": "conv",
        "modulation_epochs": 5,
    },
    "modulation_threshold_2": {"modulation": 2.0},
    "shift_1": {"shift": 1.0},
    "delta": {"initializer": "delta"},
    "falling": {"penalty_schedule": SRIP_SCHEDULE},
    "srip": {"regularizer": "spectral", "penalty_schedule": SRIP_SCHEDULE},
    "double": {"regularizer": "double"},
    "ocnn": {"regularizer": "convolutional"},
}


def _experiment(depth, suffix):
    changes = dict(EXPERIMENTS[suffix])
    fields = {
        field: changes.pop(field)
        for field in ("modulation_epochs", "penalty_schedule")
        if field in changes
    }
    modulated = "modulation" in changes
    variant = "ortho_plain" if modulated else "orthonormal_plain"
    base = _cifar(variant, depth, augmented=False)
    return base.replace(
        name=f"{base.name}_{suffix}",
        source="this project",
        arguments={**base.arguments, "orthonormality": 1e-2, **changes},
        log_moments=True,
        **fields,
    )


# A search for the coefficient and the learning rate, on held-out images.
SEARCH = tuple(
    CIFAR.replace(
        name=f"orthonormal_plain_44_cifar10_noaug_lambda_{name}_rate_{rate}",
        source="this project",
        arguments={
            "depth": 44,
            "orthonormality": float(name),
            "modulation": False,
        },
        epochs=40,
        drops=(20, 30),  # at 1/2 and 3/4, as in the paper
        learning_rate=rate,
        validation=5000,
        flip=False,
        crop=0,
        log_moments=True,
    )
    for name in ("1e-4", "1e-3", "1e-2")
    for rate in (0.1, 0.3)
)

# `SHORT_44` with a shift, and residual networks by the same recipe to compare
# it with.
SHIFTED = tuple(
    SHORT_44.replace(
        name=f"orthonormal_plain_{depth}_shift_1_cifar10_short",
        arguments={**SHORT_44.arguments, "depth": depth, "shift": 1.0},
        log_moments=True,
    )
    for depth in (44, 110)
)
RESIDUAL = tuple(
    SHORT_44.replace(
        name=f"resnet_{depth}_like_plain_cifar10_short",
        builder="ResNet",
        arguments={"depth": depth},
        weight_decay=resnet.SHORT.weight_decay,
        decay=resnet.SHORT.decay,
    )
    for depth in (44, 110)
)

RECIPES = (
    *(
        _cifar(variant, depth, augmented)
        for variant in VARIANTS
        for depth in (44, 110)
        for augmented in (True, False)
    ),
    IMAGENET,
    *map(_imagenet_101, VARIANTS),
    SHORT,
    SHORT_44,
    *map(_resnet, RESNET_ERRORS),
    *(
        _experiment(depth, suffix)
        for suffix in EXPERIMENTS
        for depth in (44, 110)
    ),
    *SEARCH,
    *SHIFTED,
    *RESIDUAL,
)
