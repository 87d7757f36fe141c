"""Fine-tuning of trained weights on another data set.

    python training/train.py --recipe fine_tune --set dataset=tf_flowers \\
        --set image_size=64 --set validation=500

Any image classification data set of TensorFlow Datasets will do; its images
are cut to `image_size` (`None`: they have one size), and `validation` holds
out a part of one that has no test set. What to start from is `--set
weights=...`, as the builder takes it.
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
