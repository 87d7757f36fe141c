"""Wide residual networks: Zagoruyko & Komodakis, arXiv 1605.07146v4.

Numbers from the paper's "Implementation details" and tables, and from the
authors' scripts (github.com/szagoruyko/wide-residual-networks: train.lua,
scripts/train_cifar.sh, scripts/train_svhn.sh).

    python training/train.py --recipe wrn_28_10_cifar10 --data-dir DIR
"""

from training.recipes.recipe import Recipe

CIFAR = Recipe(
    name="wrn_28_10_cifar10",
    source="arXiv 1605.07146v4, table 5",
    builder="WideResNet",
    arguments={"depth": 28, "width": 10},
    dataset="cifar10",
    epochs=200,  # train_cifar.sh
    batch_size=128,  # section 3
    learning_rate=0.1,  # section 3
    drops=(59, 119, 159),  # at the start of epochs 60, 120, 160 from 1
    drop_factor=0.2,  # section 3
    momentum=0.9,  # section 3
    nesterov=True,  # section 3
    restart_momentum=True,  # train.lua: the optimizer is new at each drop
    weight_decay=5e-4,  # section 3
    decay="all",  # train.lua: of the flat vector of all parameters
    flip=True,  # section 3
    crop=4,  # section 3
    padding="reflect",  # section 3
    error=4.00,  # table 5, median of 5
)

# The paper divides pixels by 255; here the channel moments normalize them.
SVHN = CIFAR.replace(
    name="wrn_16_8_dropout_svhn",
    source="arXiv 1605.07146v4, table 9",
    arguments={"depth": 16, "width": 8, "dropout": 0.4},  # train_svhn.sh
    dataset="svhn_cropped",
    train_split="train+extra",  # section 3
    epochs=160,  # train_svhn.sh
    learning_rate=0.01,  # train_svhn.sh
    drops=(79, 119),  # at the start of epochs 80 and 120 from 1
    drop_factor=0.1,  # train_svhn.sh
    flip=False,  # section 3: no augmentation
    crop=0,
    error=1.54,  # table 9, one run
)

# fb.resnet.torch, which section 3.3 names as the implementation (opts.lua,
# train.lua, TRAINING.md, datasets/imagenet.lua). It scales crops bicubically;
# here they are scaled bilinearly.
IMAGENET = Recipe(
    name="wrn_50_2_imagenet",
    source="arXiv 1605.07146v4, table 8",
    builder="WideResNet50_2",
    arguments={},
    dataset="imagenet2012",
    test_split="validation",
    image_size=224,
    epochs=90,  # opts.lua
    batch_size=256,  # TRAINING.md
    learning_rate=0.1,  # opts.lua
    drops=(30, 60),  # train.lua
    momentum=0.9,  # opts.lua
    nesterov=True,  # train.lua
    weight_decay=1e-4,  # opts.lua
    crop=0,  # instead: a random area of the photograph
    crop_area=(0.08, 1.0),  # transforms.lua
    jitter=0.4,  # imagenet.lua
    lighting=0.1,  # imagenet.lua
    error=21.9,  # table 8
)

# Half the paper's epochs. In 200 epochs, cutout and a cosine lower the error of
# this network from 4.03 % (the median of three runs) to 3.19 % (one run) in
# github.com/hysts/pytorch_image_classification.
SHORT = CIFAR.replace(
    name="wrn_28_10_cifar10_short",
    source="this project",
    epochs=100,
    schedule="cosine",
    drops=(),
    warmup=5,
    restart_momentum=False,
    decay="kernels",
    cutout=16,
    label_smoothing=0.1,
    average=0.999,
    note="in 200 epochs",
)

# About an hour on two processor cores with bfloat16 matrix products. In a tenth
# of the paper's epochs, less label smoothing and cutout are needed.
SHORT_16_4 = SHORT.replace(
    name="wrn_16_4_cifar10_short",
    arguments={"depth": 16, "width": 4},
    epochs=22,
    warmup=2,
    cutout=8,
    label_smoothing=0.05,
    average=0.998,
    error=5.02,  # table 6
)

# The settings for CIFAR-10, in two hours on two processor cores without
# bfloat16 and therefore without cutout. None was chosen on images of CIFAR-100.
SHORT_16_4_CIFAR100 = SHORT_16_4.replace(
    name="wrn_16_4_cifar100_short",
    dataset="cifar100",
    epochs=12,
    warmup=1,
    cutout=0,
    average=0.996,
    error=24.03,  # table 6
)

# A third of the paper's epochs, under two hours on two processor cores. In 80
# epochs without cutout, the training accuracy of this network is 99.3 %.
SHORT_40_1 = SHORT.replace(
    name="wrn_40_1_cifar10_short",
    arguments={"depth": 40, "width": 1},
    epochs=72,
    warmup=2,
    cutout=12,
    label_smoothing=0.05,
    error=6.85,  # table 4
    note="in 200 epochs, of ZCA-whitened images",
)


def _cifar(depth, width, cifar10, cifar100, dropout=0.0, table="table 5"):
    name = f"wrn_{depth}_{width}" + ("_dropout" if dropout else "")
    arguments = {"depth": depth, "width": width}
    if dropout:
        arguments["dropout"] = dropout
    return [
        CIFAR.replace(
            name=f"{name}_{dataset}",
            source=f"arXiv 1605.07146v4, {table}",
            arguments=arguments,
            dataset=dataset,
            error=error,
        )
        for dataset, error in (("cifar10", cifar10), ("cifar100", cifar100))
    ]


def _svhn(depth, width, error, dropout, table="table 6"):
    name = f"wrn_{depth}_{width}" + ("_dropout" if dropout else "")
    return SVHN.replace(
        name=f"{name}_svhn",
        source=f"arXiv 1605.07146v4, {table}",
        arguments={"depth": depth, "width": width, "dropout": dropout},
        error=error,
    )


def _imagenet(name, builder, width, error):
    return IMAGENET.replace(
        name=f"{name}_imagenet",
        source="arXiv 1605.07146v4, table 7",
        builder=builder,
        arguments={"width": width},
        error=error,
    )


RECIPES = (
    *_cifar(40, 4, 4.53, 21.18),
    *_cifar(16, 8, 4.27, 20.43),
    *_cifar(28, 10, 4.00, 19.25),
    *_cifar(16, 4, 5.02, 24.03, table="table 6"),
    # Section 3: 0.3, by cross-validation.
    *_cifar(16, 4, 5.24, 23.91, dropout=0.3, table="table 6"),
    *_cifar(52, 1, 6.43, 29.89, table="table 6"),
    *_cifar(52, 1, 6.28, 29.78, dropout=0.3, table="table 6"),
    *_cifar(28, 10, 3.89, 18.85, dropout=0.3, table="table 6"),
    *_cifar(40, 10, 3.8, 18.3, dropout=0.3, table="table 9"),
    _svhn(16, 4, 1.85, dropout=0.0),
    _svhn(16, 4, 1.64, dropout=0.4),
    _svhn(52, 1, 2.08, dropout=0.0),
    _svhn(52, 1, 1.70, dropout=0.4),
    _svhn(16, 8, 1.81, dropout=0.0, table="section 3"),
    SVHN,
    _imagenet("wrn_18", "WideResNet18", 1, 30.4),
    _imagenet("wrn_18_1.5", "WideResNet18", 1.5, 27.06),
    _imagenet("wrn_18_2", "WideResNet18", 2, 25.58),
    _imagenet("wrn_18_3", "WideResNet18", 3, 24.06),
    _imagenet("wrn_34", "WideResNet34", 1, 26.77),
    _imagenet("wrn_34_1.5", "WideResNet34", 1.5, 24.5),
    _imagenet("wrn_34_2", "WideResNet34", 2, 23.39),
    IMAGENET,
    SHORT,
    SHORT_16_4,
    SHORT_16_4_CIFAR100,
    SHORT_40_1,
)
