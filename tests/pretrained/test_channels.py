"""Weights for RGB images in networks for other channels."""

import keras
import numpy as np
import pytest

import keras_resfam
from keras_resfam import graphs
from keras_resfam.datasets import DATASETS
from keras_resfam.pretrained import sources

RNG = np.random.default_rng(0)
COLORS = keras.Input((8, 8, 3))
NETWORK = {"depth": 14, "weights": "cifar10", "classifier_activation": None}


def stem(model):
    return model.get_layer("stem_conv").get_weights()[0].astype("float64")


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_the_kernel_is_timms(channels):
    """`adapt_input_conv`: the sum, or repeated and scaled by 3 / channels."""
    rgb = stem(keras_resfam.DMRNet(**NETWORK))
    found = stem(keras_resfam.DMRNet(**NETWORK, input_shape=(32, 32, channels)))
    expected = rgb.sum(axis=2, keepdims=True)
    if channels > 1:
        repeated = np.concatenate([rgb] * -(-channels // 3), axis=2)
        expected = repeated[:, :, :channels] * 3 / channels
    assert found.shape == expected.shape
    # Published kernels have the three digits of float16.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_gray_image_is_what_its_three_channels_are():
    """With equal moments in all channels the outputs are the same."""
    equal = {"include_preprocessing": ((120.0,) * 3, (60.0,) * 3)}
    gray = {"include_preprocessing": ((120.0,), (60.0,))}
    images = RNG.uniform(0, 255, (2, 32, 32, 1)).astype("float32")
    expected = keras_resfam.DMRNet(**NETWORK, **equal).predict(
        np.repeat(images, 3, axis=-1), verbose=0
    )
    found = keras_resfam.DMRNet(
        **NETWORK, **gray, input_shape=(32, 32, 1)
    ).predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.02)


@pytest.mark.parametrize(
    ("channels", "order"), [(1, None), (4, [0, 1, 2, 0]), (2, [0, 1])]
)
def test_the_moments_go_with_the_channels(channels, order):
    model = keras_resfam.DMRNet(**NETWORK, input_shape=(32, 32, channels))
    record = DATASETS["cifar10"]
    for found, rgb in zip(
        graphs.image_moments(model), (record.mean, record.std), strict=True
    ):
        rgb = np.array(rgb)
        expected = [rgb.mean()] if order is None else rgb[order]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_other_layers_are_as_they_were():
    rgb = keras_resfam.DMRNet(**NETWORK)
    gray = keras_resfam.DMRNet(**NETWORK, input_shape=(32, 32, 1))
    for layer in rgb.layers:
        if layer.name != "stem_conv" and layer.weights:
            for ours, theirs in zip(
                layer.get_weights(),
                gray.get_layer(layer.name).get_weights(),
                strict=True,
            ):
                np.testing.assert_array_equal(ours, theirs)


def test_other_peoples_checkpoints_are_still_compared(tmp_path):
    """An adapted checkpoint is as strict as it is."""
    torch = pytest.importorskip("torch")
    small = {"depth": 10, "width": 0.5, "include_preprocessing": "cifar10"}
    state = keras_resfam.to_torch_state_dict(
        keras_resfam.WideResNet(**small), layout="robustbench"
    )
    state = {key: torch.as_tensor(np.array(x)) for key, x in state.items()}
    path = tmp_path / "net.pth"
    torch.save(state, path)
    options = {**small, "weights": str(path), "input_shape": (32, 32, 1)}
    options["include_preprocessing"] = ((120.0,), (60.0,))
    keras_resfam.WideResNet(**options)
    extra = {**state, "extra.weight": torch.zeros(3)}
    torch.save(extra, path)
    with pytest.raises(ValueError, match="extra.weight"):
        keras_resfam.WideResNet(**options)


def test_weights_for_gray_images_stay_gray():
    gray = {"depth": 8, "weights": "digits"}
    told = "`input_shape` should have 1 channel, .*'digits'.*: 3 channels"
    for shape in ({"input_shape": (8, 8, 3)}, {"input_tensor": COLORS}):
        with pytest.raises(ValueError, match=told):
            keras_resfam.DMRNet(**gray, **shape)
    source = sources.find("digits", "DMRNet", {"depth": 8, "width": 1})
    assert source.channels == 1
