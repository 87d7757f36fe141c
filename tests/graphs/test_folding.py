import keras
import numpy as np
import pytest
from keras import layers

import keras_resfam
from keras_resfam.graphs.folding import fold_batch_norm

LINEAR = [
    ("dense", (5,), layers.Dense(4)),
    ("dense_on_images", (6, 6, 5), layers.Dense(4)),
    ("dense_channels_first_default", (5,), layers.Dense(4, use_bias=False)),
    ("conv1d", (8, 3), layers.Conv1D(4, 3)),
    ("conv1d_causal", (8, 3), layers.Conv1D(4, 3, padding="causal")),
    ("conv2d", (8, 8, 3), layers.Conv2D(4, 3, strides=2, padding="same")),
    ("conv2d_no_bias", (8, 8, 3), layers.Conv2D(4, 3, use_bias=False)),
    ("conv2d_groups", (8, 8, 4), layers.Conv2D(6, 3, groups=2)),
    ("conv2d_dilated", (9, 9, 3), layers.Conv2D(4, 3, dilation_rate=2)),
    ("conv3d", (4, 4, 4, 2), layers.Conv3D(3, 2)),
    ("depthwise1d", (8, 3), layers.DepthwiseConv1D(3, depth_multiplier=2)),
    ("depthwise2d", (8, 8, 3), layers.DepthwiseConv2D(3, depth_multiplier=2)),
    ("separable1d", (8, 3), layers.SeparableConv1D(4, 3)),
    ("separable2d", (8, 8, 3), layers.SeparableConv2D(5, 3, use_bias=False)),
    ("transpose1d", (8, 3), layers.Conv1DTranspose(4, 3, strides=2)),
    ("transpose2d", (8, 8, 3), layers.Conv2DTranspose(4, 3, strides=2)),
    ("transpose3d", (4, 4, 4, 2), layers.Conv3DTranspose(3, 2)),
]
FIRST = [
    ("conv2d", layers.Conv2D(4, 3, data_format="channels_first")),
    ("depthwise2d", layers.DepthwiseConv2D(3, data_format="channels_first")),
    ("separable2d", layers.SeparableConv2D(4, 3, data_format="channels_first")),
    ("transpose", layers.Conv2DTranspose(4, 3, data_format="channels_first")),
]


def randomize(model):
    """Gives every variable a value that a trained network could have."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.3, 2.0, weight.shape)
        elif weight.name in ("bias", "beta", "moving_mean"):
            value = rng.normal(0.0, 0.5, weight.shape)
        elif weight.name in ("mean", "variance", "count"):
            continue
        else:
            fan_in = np.prod(weight.shape[:-1])
            value = rng.normal(0.0, fan_in**-0.5, weight.shape)
        weight.assign(value)
    return model


def outputs(model):
    rng = np.random.default_rng(1)
    sequential = isinstance(model, keras.Sequential)
    x = keras.tree.map_structure(
        lambda i: rng.normal(size=(2, *i.shape[1:])).astype("float32"),
        model.inputs[0] if sequential else model.input,
    )
    y = model(x, training=False)
    return [
        keras.ops.convert_to_numpy(v).astype("float64")
        for v in keras.tree.flatten(y)
    ]


def norms(model):
    return [
        layer.name
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization)
    ]


def check(model, left=(), tolerance=1e-4):
    """Folds, and compares what the two models compute."""
    randomize(model)
    folded = fold_batch_norm(model)
    assert norms(folded) == list(left)
    for y, expected in zip(outputs(folded), outputs(model), strict=True):
        assert expected.std() > 0.05
        np.testing.assert_allclose(y, expected, atol=tolerance, rtol=tolerance)
    return folded


def graph(layer, shape, **norm):
    inputs = layers.Input(shape, name="image")
    x = type(layer).from_config({**layer.get_config(), "name": "linear"})(
        inputs
    )
    x = layers.BatchNormalization(name="bn", **norm)(x)
    return keras.Model(inputs, layers.ReLU(name="relu")(x), name="net")


@pytest.mark.parametrize(
    "shape, layer", [case[1:] for case in LINEAR], ids=[c[0] for c in LINEAR]
)
def test_every_linear_layer_absorbs_its_norm(shape, layer):
    folded = check(graph(layer, shape))
    assert [x.name for x in folded.layers] == ["image", "linear", "relu"]
    assert folded.get_layer("linear").use_bias


@pytest.mark.parametrize(
    "layer", [case[1] for case in FIRST], ids=[case[0] for case in FIRST]
)
def test_channels_first(layer):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolution on the CPU")
    check(graph(layer, (3, 8, 8), axis=1))


def test_channels_first_dense_still_ends_in_channels():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        check(graph(layers.Dense(4), (6, 5)))
    finally:
        keras.config.set_image_data_format(before)


def test_merged_weights_by_the_formula():
    model = randomize(graph(layers.Conv2D(4, 3), (8, 8, 3), epsilon=0.02))
    kernel, bias = (w.astype("f8") for w in model.layers[1].get_weights())
    gamma, beta, mean, var = (
        w.astype("f8") for w in model.layers[2].get_weights()
    )
    scale = gamma / np.sqrt(var + 0.02)
    merged = fold_batch_norm(model).get_layer("linear").get_weights()
    np.testing.assert_allclose(merged[0], kernel * scale, rtol=1e-6)
    np.testing.assert_allclose(
        merged[1], beta + (bias - mean) * scale, rtol=1e-5
    )


@pytest.mark.parametrize("scale, center", [(True, False), (False, True)])
def test_norm_without_gamma_or_beta(scale, center):
    check(graph(layers.Conv2D(4, 3), (8, 8, 3), scale=scale, center=center))


class Doubled(layers.Conv2D):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


def conv(**arguments):
    return layers.Conv2D(3, 3, padding="same", **arguments)


def norm(**arguments):
    return layers.BatchNormalization(name="bn", **arguments)


def activated(x):
    return norm()(conv(activation="relu")(x))


def rectified(x):
    return norm()(layers.ReLU()(conv()(x)))


def padded(x):
    return norm()(layers.ZeroPadding2D()(conv()(x)))


def dropped(x):
    return norm()(layers.Dropout(0.5)(conv()(x)))


def read_twice(x):
    y = conv()(x)
    return layers.Add()([norm()(y), y])


def read_by_the_caller(x):
    y = conv()(x)
    return [y, norm()(y)]


def shared_convolution(x):
    shared = conv()
    return layers.Add()([norm()(shared(x)), shared(layers.ReLU()(x))])


def shared_norm(x):
    shared = norm()
    return layers.Add()([shared(conv()(x)), shared(conv()(x))])


def along_rows(x):
    return norm(axis=1)(conv()(x))


def in_another_precision(x):
    return norm(dtype="float64")(conv()(x))


def subclassed(x):
    return norm()(Doubled(3, 3)(x))


def low_rank(x):
    return norm()(conv(lora_rank=1)(x))


def first_of_all(x):
    return conv()(norm()(x))


@pytest.mark.parametrize(
    "net",
    [
        activated,
        rectified,
        padded,
        dropped,
        read_twice,
        read_by_the_caller,
        shared_convolution,
        shared_norm,
        along_rows,
        in_another_precision,
        subclassed,
        low_rank,
        first_of_all,
    ],
)
def test_left_alone(net):
    inputs = layers.Input((6, 6, 3))
    check(keras.Model(inputs, net(inputs)), left=["bn"])


def test_norm_that_uses_batch_statistics_is_left_alone():
    inputs = layers.Input((6, 6, 3))
    y = norm()(conv()(inputs), training=True)
    check(keras.Model(inputs, y), left=["bn"])


def test_models_called_in_training_are_left_alone():
    inner = keras.Sequential([layers.Input((6, 6, 3)), conv(), norm()])
    inputs = layers.Input((6, 6, 3))
    model = keras.Model(inputs, inner(inputs, training=True))
    folded = keras_resfam.fold_batch_norm(model)
    (left,) = [x for x in folded.layers if isinstance(x, keras.Sequential)]
    assert len(left.layers) == 2
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(
        *(keras.ops.convert_to_numpy(m(x)) for m in (folded, model)), atol=1e-5
    )


class Twice(keras.Model):
    """Functional, and more than its graph tells."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def test_a_model_with_a_call_of_its_own_is_no_graph():
    inputs = layers.Input((6, 6, 3))
    twice = Twice(inputs, norm()(conv()(inputs)))
    with pytest.raises(ValueError, match="`model` should be .* Received: mod"):
        keras_resfam.fold_batch_norm(twice)
    with pytest.raises(ValueError, match="functional"):
        keras_resfam.analysis.residual_blocks(twice)


def test_norm_called_by_keyword_or_frozen():
    inputs = layers.Input((6, 6, 3))
    y = norm(trainable=False)(inputs=conv()(inputs), training=False)
    check(keras.Model(inputs, y))


def test_branches_are_rewired():
    inputs = {name: layers.Input((6, 6, 3), name=name) for name in "ab"}
    branches = [layers.BatchNormalization()(conv()(x)) for x in inputs.values()]
    total = layers.Add(name="total")(branches) * 0.5
    model = keras.Model(inputs, {"total": total, "branch": branches[1]})
    folded = check(model)
    assert set(folded.output) == {"total", "branch"}
    assert set(folded.input) == {"a", "b"}


def test_models_inside_are_merged():
    inner = graph(layers.Conv2D(3, 3), (6, 6, 3))
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            keras.Sequential([layers.Conv2D(3, 3), norm()], name="first"),
            inner,
            layers.Conv2D(4, 3),
            norm(),
        ]
    )
    folded = check(model)
    assert isinstance(folded.input, keras.KerasTensor)  # not a list of one
    assert norms(folded.get_layer("first")) == []
    assert norms(folded.get_layer("net")) == []
    assert norms(inner) == ["bn"]


def test_sequence_that_ends_in_two_outputs():
    x = layers.Input((3,))
    fork = keras.Model(x, [layers.Dense(2)(x), norm()(layers.Dense(2)(x))])
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3), fork])
    folded = check(model)
    assert len(folded.outputs) == 2


def test_normalization_keeps_its_moments():
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(3).normal(7.0, 2.0, (64, 6, 6, 3)))
    inputs = layers.Input((6, 6, 3))
    check(keras.Model(inputs, norm()(conv()(adapted(inputs)))))


def test_the_original_is_untouched():
    model = randomize(graph(conv(), (8, 8, 3)))
    model.compile("sgd", "mse")
    before, weights = outputs(model)[0], model.get_weights()
    folded = fold_batch_norm(model)
    folded.set_weights([0 * w for w in folded.get_weights()])
    np.testing.assert_array_equal(outputs(model)[0], before)
    for weight, old in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert model.get_layer("linear").output is model.get_layer("bn").input


def test_what_acts_in_training_only_is_dropped():
    layer = conv(kernel_regularizer="l2", kernel_constraint="unit_norm")
    inputs = layers.Input((6, 6, 3))
    alone = conv(kernel_regularizer="l2", name="alone")
    model = keras.Model(inputs, alone(norm()(layer(inputs))))
    folded = check(model)
    assert len(model.losses) == 2
    assert not folded.losses


def test_a_convolution_that_is_added_gains_a_bias_of_zeros():
    inputs = layers.Input((6, 6, 3))
    first = conv(use_bias=False, name="first")(inputs)
    added = conv(use_bias=False, name="added")(inputs)
    both = layers.Add()([first, added])
    model = keras.Model(inputs, [layers.ReLU()(first), both])
    folded = check(model)
    assert not folded.get_layer("first").use_bias  # read elsewhere as well
    np.testing.assert_array_equal(folded.get_layer("added").bias, np.zeros(3))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_weights_are_stored_as_they_are_computed_with(policy, tmp_path):
    inputs = layers.Input((8, 8, 3))
    x = norm(dtype=policy)(conv(dtype=policy, name="linear")(inputs))
    x = layers.ReLU(dtype=policy)(x)
    x = layers.BatchNormalization(name="last", dtype=policy)(x)
    model = keras.Model(inputs, x)
    folded = check(model, left=["last"], tolerance=0.1)
    linear = folded.get_layer("linear")
    for weight in linear.weights:
        assert keras.backend.standardize_dtype(weight.dtype) == "bfloat16"
    # What a batch normalization averages needs more.
    assert folded.get_layer("last").dtype_policy.name == policy
    assert folded.output.dtype == model.output.dtype

    folded.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    for ours, theirs in zip(outputs(loaded), outputs(folded), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_half_precision_weights_give_what_casts_give():
    """Storing them in float16 changes no bit of the outputs."""
    inputs = layers.Input((8, 8, 3))
    layer = layers.Conv2D(4, 3, dtype="mixed_float16")
    model = randomize(keras.Model(inputs, layer(inputs)))
    folded = fold_batch_norm(model)
    stored = folded.layers[-1].kernel
    assert keras.backend.standardize_dtype(stored.dtype) == "float16"
    np.testing.assert_array_equal(outputs(folded)[0], outputs(model)[0])


def test_saved_and_loaded(tmp_path):
    folded = check(graph(conv(use_bias=False), (8, 8, 3)))
    folded.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(outputs(loaded)[0], outputs(folded)[0])


def test_keras_applications():
    arguments = dict(
        weights=None, classes=7, classifier_activation=None, pooling="avg"
    )
    check(
        keras.applications.MobileNetV2(
            input_shape=(32, 32, 3), alpha=0.35, **arguments
        )
    )
    resnet = keras.applications.ResNet50V2(input_shape=(32, 32, 3), **arguments)
    first = [name for name in norms(resnet) if name.endswith("preact_bn")]
    assert len(first) == 16
    check(resnet, left=[*first, "post_bn"])


AFTER_AN_ADDITION = ["stage2_block1_bn1", "stage3_block1_bn1", "head_bn"]


@pytest.mark.parametrize(
    "builder, arguments, left",
    [
        ("DMRNet", {"depth": 8}, []),
        ("DILNet", {"depth": 8}, []),
        ("OrthoPlainNet", {"depth": 8}, []),
        ("ResNet", {"depth": 8}, []),
        ("WideResNet", {"depth": 10, "width": 2}, AFTER_AN_ADDITION),
    ],
)
def test_the_families(builder, arguments, left):
    check(
        getattr(keras_resfam, builder)(
            **arguments,
            input_shape=(8, 8, 3),
            include_preprocessing=False,
            classifier_activation=None,
        ),
        left,
    )


def test_modulation_is_left_out():
    model = keras_resfam.OrthoPlainNet(depth=8, input_shape=(8, 8, 3))
    names = {layer.name for layer in model.layers}
    modulations = {name for name in names if "modulation" in name}
    assert len(modulations) == 7
    folded = check(model)
    assert not {layer.name for layer in folded.layers} & modulations


def test_modulation_that_is_told_its_mode_is_left_out():
    image = keras.Input((8, 8, 3))
    modulation = keras_resfam.layers.GradientModulation(name="modulation")
    x, _ = modulation(image, training=True)
    folded = fold_batch_norm(keras.Model(image, layers.Conv2D(4, 3)(x)))
    assert "modulation" not in [layer.name for layer in folded.layers]


def test_modulation_whose_link_is_read_stays():
    image = keras.Input((8, 8, 3))
    x, link = keras_resfam.layers.GradientModulation(name="below")(image)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(x))
    x, link = keras_resfam.layers.GradientModulation(name="above")(x, link)
    folded = fold_batch_norm(keras.Model(image, [x, link]))
    names = [layer.name for layer in folded.layers]
    assert "above" in names and "below" not in names
    y, link = folded(np.ones((1, 8, 8, 3), "float32"))
    assert y.shape == (1, 6, 6, 4)
    assert keras.ops.convert_to_numpy(link) == 0


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    "model",
    [None, "resnet", Subclassed(), keras.Sequential([layers.Dense(2)])],
    ids=["none", "name", "subclassed", "unbuilt"],
)
def test_refuses_what_has_no_graph(model):
    with pytest.raises(ValueError, match="`model` should be .* Received: mod"):
        fold_batch_norm(model)
