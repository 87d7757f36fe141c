"""What the first layers of a network tell about its images."""

import keras
import numpy as np
from keras import layers

import keras_resfam
from keras_resfam.graphs import data_config, image_moments


def sequence(*layers):
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


def test_augmentation_comes_before_normalization():
    network = keras_resfam.DMRNet(depth=8, weights="digits")
    augmentation = sequence(layers.RandomFlip(), layers.RandomRotation(0.1))
    model = sequence(layers.RandomContrast(0.1), augmentation, network)
    np.testing.assert_array_equal(image_moments(model), image_moments(network))
    assert data_config(model) == data_config(network)


def test_moments_of_several_layers():
    network = keras_resfam.DMRNet(depth=8, weights="digits")
    mean, std = image_moments(network)
    shifted = layers.Normalization(mean=[0.2], variance=[0.25])
    model = sequence(shifted, layers.Rescaling(255.0, 3.0), network)
    expected = 0.2 + 0.5 * (mean - 3) / 255, 0.5 * std / 255
    np.testing.assert_allclose(image_moments(model), expected, rtol=1e-6)
    assert data_config(model)["class_names"] == "digits"


def test_other_layers_come_before_normalization():
    network = keras_resfam.DMRNet(depth=8, weights="digits")
    assert image_moments(sequence(layers.ReLU(), network)) is None
