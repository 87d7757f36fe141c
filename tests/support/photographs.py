"""A folder of small photographs, by split and class."""

import numpy as np
from PIL import Image

COLORS = {"blue": (40, 60, 200), "red": (200, 50, 40)}


def write(root, train=12, test=4, sizes=(20, 40), colors=COLORS):
    """Writes noisy images of one color a class, as JPEG and PNG.

    Args:
        root: Path.
        train, test: Integers. Images of each class in each split.
        sizes: `(least, most)` pixels of a side; `(n, n)` gives squares.
        colors: Dict from class names to colors.

    Returns:
        `root`.
    """
    rng = np.random.default_rng(0)
    for split, images in (("train", train), ("test", test)):
        for name, color in colors.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(images):
                shape = *rng.integers(sizes[0], sizes[1] + 1, 2), 3
                pixels = np.clip(rng.normal(color, 30, shape), 0, 255)
                image = Image.fromarray(pixels.astype("uint8"))
                image.save(folder / f"{k}.{'png' if k % 2 else 'jpg'}")
    return root
