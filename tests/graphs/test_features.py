"""Maps inside networks: the right ones, whole, and those of the network."""

import keras
import numpy as np
import pytest

import keras_resfam
from families import (
    CIFAR_FORMS,
    IMAGENET_FORMS,
    build,
    case_name,
    images,
    predict,
    randomize,
)
from keras_resfam import feature_extractor, flatten_model


@pytest.mark.parametrize("family, arguments", IMAGENET_FORMS, ids=case_name)
def test_strides_of_the_imagenet_forms(family, arguments, quick_initializers):
    """Of 225 pixels too, and whatever the number of the branches."""
    model = build(family, arguments, input_shape=(225, 225, 3))
    features = feature_extractor(model).output
    sizes = {name: x.shape[1] for name, x in features.items()}
    assert sizes == {"P2": 57, "P3": 29, "P4": 15, "P5": 8}
    last = model.get_layer("avg_pool").input
    assert features["P5"].shape == last.shape


@pytest.mark.parametrize("family, arguments", CIFAR_FORMS, ids=case_name)
def test_the_last_map_is_that_of_the_network_without_its_top(family, arguments):
    model = randomize(build(family, arguments, input_shape=(5, 7, 3)))
    bare = build(family, arguments, input_shape=(5, 7, 3), include_top=False)
    for layer in bare.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    x = images(shape=(5, 7, 3))
    maps = predict(feature_extractor(model), x)
    names = ["P0", "P1", "P2", "P3"][: len(maps)]
    assert list(maps) == names
    assert [maps[name].shape[1] for name in names] == [5, 3, 2, 1][: len(maps)]
    np.testing.assert_array_equal(maps[names[-1]], predict(bare, x))


def test_maps_are_the_blocks_outputs():
    model = randomize(keras_resfam.WideResNet(10, 1, input_shape=(8, 8, 3)))
    maps = feature_extractor(model).output
    assert [maps[x]._keras_history.operation.name for x in sorted(maps)] == [
        "stage1_block1_add",
        "stage2_block1_add",
        "head_relu",
    ]


def test_branches_are_joined_as_merge_and_run_merges_them():
    model = randomize(keras_resfam.DMRNet(14, input_shape=(8, 8, 3)))
    x = images(shape=(8, 8, 3))
    maps = predict(feature_extractor(model), x)
    branches = [f"stage1_block2_branch{k}_relu" for k in (1, 2)]
    own = predict(feature_extractor(model, branches), x)
    assert list(own) == branches
    mean = (own[branches[0]] + own[branches[1]]) / 2
    assert not np.allclose(own[branches[0]], own[branches[1]])
    np.testing.assert_allclose(maps["P0"], mean, rtol=1e-6, atol=1e-6)


def test_a_backbone_within_a_backbone_and_of_open_sizes():
    backbone = randomize(
        keras_resfam.ResNet18CIFAR(
            include_top=False, pooling="avg", input_shape=(None, None, 3)
        )
    )
    image = keras.Input((None, None, 3), name="photo")
    inner = keras.Sequential([backbone, keras.layers.Dense(6, name="hidden")])
    answer = keras.layers.Dense(4, name="answer")(inner(image))
    model = keras.Model(image, answer)
    x = images(shape=(9, 12, 3))

    whole = flatten_model(model)
    assert whole.get_layer("stage1_block1_conv1") not in backbone.layers
    assert not any(isinstance(x, keras.Model) for x in whole.layers)
    np.testing.assert_array_equal(predict(whole, x), predict(model, x))

    maps = predict(feature_extractor(model), x)
    expected = predict(feature_extractor(backbone), x)
    assert {k: y.shape for k, y in maps.items()} == {
        "P0": (2, 9, 12, 64),
        "P1": (2, 5, 6, 128),
        "P2": (2, 3, 3, 256),
        "P3": (2, 2, 2, 512),
    }
    for name, y in maps.items():
        np.testing.assert_array_equal(y, expected[name])


def test_gradients_reach_inner_layers_of_a_flat_model():
    """What Grad-CAM needs: one graph from the image to map and score."""
    backbone = keras_resfam.DMRNet(
        8, include_top=False, pooling="avg", input_shape=(8, 8, 3)
    )
    model = keras.Sequential([backbone, keras.layers.Dense(3)])
    flat = flatten_model(model)
    both = keras.Model(
        flat.input, [flat.get_layer("stage3_block1_relu").output, flat.output]
    )
    x = images(shape=(8, 8, 3))
    inner, scores = predict(both, x)
    kernel, bias = (
        keras.ops.convert_to_numpy(w) for w in model.layers[-1].weights
    )
    np.testing.assert_allclose(
        inner.mean((1, 2)) @ kernel + bias, scores, rtol=1e-5, atol=1e-5
    )


def test_errors():
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="network of keras_resfam.*layers"):
        feature_extractor(other)
    model = keras_resfam.DMRNet(8, input_shape=(8, 8, 3))
    with pytest.raises(ValueError, match="'stage9', which is called 0"):
        feature_extractor(model, ["stage3_block1_relu", "stage9"])
    with pytest.raises(ValueError, match="`model` should be a functional"):
        flatten_model(keras.layers.Dense(2))
