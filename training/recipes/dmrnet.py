"""DMRNet: Zhao et al., arXiv 1611.07718v2 and IJCAI 2018.

Numbers from the paper's "Training" paragraphs and tables, and from the
authors' code (github.com/zlmzju/fusenet: train_model.py, options.py).

    python training/train.py --recipe dmrnet_56_cifar10 --data-dir DIR
"""

from training.recipes.recipe import Recipe

CIFAR = Recipe(
    name="dmrnet_56_cifar10",
    source="arXiv 1611.07718v2, table 2",
    builder="DMRNet",
    arguments={"depth": 56},
    dataset="cifar10",
    epochs=400,  # "Training"
    batch_size=64,  # "Training": in total, on 2 GPUs
    learning_rate=0.1,  # "Training"
    drops=(200, 300, 350),  # "Training": at 1/2, 3/4 and 7/8
    drop_factor=0.1,  # "Training"
    momentum=0.9,  # "Training"
    nesterov=True,  # "Training"
    weight_decay=1e-4,  # "Training"
    decay="all",  # train_model.py: biases, gamma and beta too
    flip=True,  # "Training"
    crop=4,  # "Training"
    padding="mean",  # train_model.py: filled with the rounded channel means
    error=4.96,  # table 2, mean of 5
)

SVHN = CIFAR.replace(
    name="dmrnet_56_svhn",
    dataset="svhn_cropped",
    # The paper holds 6,000 images out and reports the test error of the rest
    # (598,388); the authors' code counts all 604,388, as here.
    train_split="train+extra",
    epochs=40,  # "Training"
    drops=(20, 30, 35),  # "Training": at 1/2, 3/4 and 7/8
    flip=False,  # "Training": no augmentation
    crop=0,
    error=1.68,  # table 2, mean of 5
)

# Mean test errors of table 2 and table 3: (depth, width) -> CIFAR-10,
# CIFAR-100, SVHN. The table's L is the depth without the first and the last
# layer.
ERRORS = {
    (14, 1): (6.48, 29.62, 2.00),
    (20, 1): (5.79, 27.80, 1.87),
    (26, 1): (5.47, 26.76, 1.86),
    (32, 1): (5.10, 25.87, 1.81),
    (38, 1): (5.18, 25.41, 1.77),
    (50, 1): (4.99, 24.73, 1.84),
    (56, 1): (4.96, 24.41, 1.68),
    (98, 1): (4.84, 23.98, 1.70),
    (32, 4): (3.94, 19.25, 1.51),
    (50, 4): (3.57, 19.00, 1.55),
}

# "Training" in section 4.4, with the augmentation of He et al. The aspect ratio
# varies too, as in the authors' code, which varies the colors more.
IMAGENET = Recipe(
    name="dmrnet_44_imagenet",
    source="arXiv 1611.07718v2, table 4",
    builder="DMRNet44",
    arguments={},
    dataset="imagenet2012",
    test_split="validation",
    image_size=224,
    epochs=100,
    batch_size=256,
    learning_rate=0.1,
    drops=(30, 60, 90),
    momentum=0.9,
    nesterov=False,  # "SGD with momentum"
    weight_decay=1e-4,
    crop=0,  # instead: a random area of the photograph
    # He et al. 2015, 3.4: 224 pixels of a shorter side of 256 to 480, of 4:3.
    crop_area=(0.16, 0.57),
    lighting=0.1,  # He et al. 2015, section 3.4
    error=23.66,  # table 4
)

IMAGENET_50 = IMAGENET.replace(
    name="dmrnet_50_imagenet",
    source="IJCAI 2018; fusenet README",
    builder="DMRNet50",
    epochs=120,  # train_imagenet.py
    drops=(30, 60, 90),  # train_imagenet.py: each 30 epochs
    nesterov=True,  # train_imagenet.py
    error=23.16,  # README
)

# A fifth of the paper's epochs, in batches of twice its size and with twice its
# learning rate.
DMRNET_14_SHORT = CIFAR.replace(
    name="dmrnet_14_cifar10_short",
    source="this project",
    arguments={"depth": 14},
    epochs=80,
    batch_size=128,
    learning_rate=0.2,
    schedule="cosine",
    drops=(),
    warmup=2,
    weight_decay=5e-4,
    decay="kernels",
    average=0.998,
    cutout=8,
    label_smoothing=0.05,
    error=6.48,
    note="in 400 epochs",
)

# The settings for CIFAR-10, in two hours on one core and therefore without
# cutout. None was chosen on images of CIFAR-100.
DMRNET_14_CIFAR100_SHORT = DMRNET_14_SHORT.replace(
    name="dmrnet_14_cifar100_short",
    dataset="cifar100",
    epochs=24,
    cutout=0,
    error=29.62,
)

# Two fifths of the paper's epochs, in batches of eight times its size, because
# smaller ones do not fill a GPU.
DMRNET_56_SHORT = DMRNET_14_SHORT.replace(
    name="dmrnet_56_cifar10_short",
    arguments={"depth": 56},
    epochs=165,
    batch_size=512,
    learning_rate=0.4,
    warmup=5,
    average=0.995,
    cutout=12,
    error=4.96,
)


def _small(depth, width):
    name = f"dmrnet_{depth}" + (f"_{width}" if width > 1 else "")
    arguments = {"depth": depth, "width": width}
    table = "table 2" if width == 1 else "table 3"
    cifar10, cifar100, svhn = ERRORS[depth, width]
    shared = {
        "source": f"arXiv 1611.07718v2, {table}",
        "arguments": arguments,
    }
    return [
        CIFAR.replace(name=f"{name}_cifar10", error=cifar10, **shared),
        CIFAR.replace(
            name=f"{name}_cifar100",
            dataset="cifar100",
            error=cifar100,
            **shared,
        ),
        SVHN.replace(name=f"{name}_svhn", error=svhn, **shared),
    ]


RECIPES = (
    *(recipe for key in ERRORS for recipe in _small(*key)),
    IMAGENET,
    IMAGENET_50,
    DMRNET_14_SHORT,
    DMRNET_14_CIFAR100_SHORT,
    DMRNET_56_SHORT,
)
