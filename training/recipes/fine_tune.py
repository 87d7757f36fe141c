"""Fine-tuning of trained weights on another data set.

    python training/train.py --recipe fine_tune --set dataset=tf_flowers \\
        --set image_size=64 --set validation=500

It works with any image classification data set of TensorFlow Datasets. Images
are cropped to `image_size`, or have one size if it is `None`. `validation`
holds out images if there is no test set. `--set weights=...` sets the initial
weights, as in the builder.
"""

from training.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        name="fine_tune",
        source="this project",
        builder="DMRNet",
        arguments={},
        weights="cifar10",
        dataset="cifar100",
        image_size=32,
        epochs=20,
        batch_size=64,
        learning_rate=0.02,
        schedule="cosine",
        warmup=1,
        weight_decay=5e-4,
        decay="kernels",
        label_smoothing=0.1,
        crop=0,  # instead: a random area of the image
        crop_area=(0.5, 1.0),
    ),
)
