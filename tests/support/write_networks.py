"""Writes small networks of all families, for another backend to read.

KERAS_BACKEND=jax python tests/write_networks.py FOLDER
"""

import pathlib
import sys

import keras
import numpy as np

from families import CIFAR_FORMS, build, images, predict, randomize


def networks():
    """Yields a file name and a network with initial weights."""
    for k, (family, arguments) in enumerate(CIFAR_FORMS):
        yield (
            f"{k}_{family}",
            build(
                family,
                arguments,
                input_shape=(16, 16, 3),
                classifier_activation=None,
            ),
        )


def main(folder):
    for name, model in networks():
        randomize(model)
        model.save_weights(folder / f"{name}.weights.h5")
        np.save(folder / f"{name}.npy", predict(model, images(4, (16, 16, 3))))
    (folder / "backend.txt").write_text(keras.backend.backend())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
