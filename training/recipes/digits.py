"""The default of `train.py`: a small DMRNet on scikit-learn's digits.

    python training/train.py

The data set has 1,797 images of 8 x 8 pixels, 360 of which are the test set. It
needs no download.
"""

from training.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        name="digits",
        source="this project",
        builder="DMRNet",
        arguments={"depth": 8, "width": 1},
        dataset="digits",
        epochs=20,  # selected from 10, 20 and 30 on held-out training digits
        batch_size=64,
        learning_rate=0.1,
        schedule="cosine",
        warmup=2,
        weight_decay=5e-4,
        flip=False,  # a mirrored digit is not a digit
        crop=1,
        label_smoothing=0.1,
    ),
)
