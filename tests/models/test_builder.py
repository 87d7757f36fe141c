"""What all builders share: arguments, errors, normalization, classifier."""

import inspect
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_resfam
from families import (
    CIFAR_FORMS,
    FAMILIES,
    IMAGENET_FORMS,
    ONE_OF_EACH,
    build,
    case_name,
    images,
    predict,
    randomize,
)
from keras_resfam.datasets import DATASETS
from keras_resfam.graphs import image_moments
from keras_resfam.layers import (
    BatchNormalization,
    Conv2D,
    GradientModulation,
    Rescaling,
)
from policies import dtype_policy

SMALL = (8, 8, 3)
NUMPY = {"depth": np.int64(10), "width": np.float32(0.5)}
COMMON = [
    "include_top",
    "weights",
    "input_tensor",
    "input_shape",
    "pooling",
    "classes",
    "classifier_activation",
    "include_preprocessing",
    "name",
]


def small_dmrnet(**common):
    return keras_resfam.DMRNet(depth=8, **common)


@pytest.mark.parametrize("family", FAMILIES)
def test_signature_and_documentation(family):
    builder = getattr(keras_resfam, family)
    assert family in keras_resfam.__all__
    parameters = inspect.signature(builder).parameters
    assert list(parameters)[-len(COMMON) :] == COMMON
    doc = builder.__doc__
    for parameter in parameters:
        assert f"\n    {parameter}: " in doc, parameter
    for section in ("Args:", "Returns:", "Raises:", "https://"):
        assert section in doc
    assert "{" not in doc


@pytest.mark.parametrize(
    "family, arguments", CIFAR_FORMS + IMAGENET_FORMS, ids=case_name
)
def test_forms(family, arguments, quick_initializers):
    """Each gives probabilities, and has Keras's layers but for four kinds."""
    size = 8 if (family, arguments) in CIFAR_FORMS else 32
    model = build(family, arguments, input_shape=(size, size, 3), classes=7)
    y = predict(model, images(shape=(size, size, 3)))
    assert y.shape == (2, 7)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)
    assert isinstance(model, keras.Model)
    for layer in model.layers:
        stock = layer.__module__.startswith("keras.")
        assert stock or type(layer) in (
            BatchNormalization,
            Conv2D,
            GradientModulation,
            Rescaling,
        )
    names = [layer.name for layer in model.layers]
    assert {"normalization", "stem_conv", "avg_pool", "predictions"} <= set(
        names
    )
    # Names do not depend on what was built before.
    again = build(family, arguments, input_shape=(size, size, 3), classes=7)
    assert [layer.name for layer in again.layers] == names


@pytest.mark.parametrize("family, arguments", IMAGENET_FORMS, ids=case_name)
def test_sizes_of_the_imagenet_forms(family, arguments, quick_initializers):
    """A convolution of 7x7 and a maximum, of stride 2 each; four stages."""
    model = build(family, arguments)
    stem = model.get_layer("stem_conv")
    assert stem.kernel_size == (7, 7)
    assert stem.output.shape[1:] == (112, 112, 64)
    assert model.get_layer("stem_pool").output.shape[1:] == (56, 56, 64)
    assert model.get_layer("avg_pool").input.shape[1:3] == (7, 7)


@pytest.mark.parametrize("family, arguments", CIFAR_FORMS, ids=case_name)
def test_saving_and_config(family, arguments, tmp_path):
    model = randomize(build(family, arguments, input_shape=SMALL))
    x = images(shape=SMALL)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predict(restored, x), predict(model, x))
    copy = keras.Model.from_config(model.get_config())
    assert [layer.name for layer in copy.layers] == [
        layer.name for layer in model.layers
    ]
    model.save_weights(tmp_path / "model.weights.h5")
    copy.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(predict(copy, x), predict(model, x))


@pytest.mark.parametrize("family, arguments", ONE_OF_EACH, ids=case_name)
def test_one_compiled_training_step(family, arguments):
    """Under XLA where Keras has it, and in mixed precision."""
    with dtype_policy("mixed_bfloat16"):
        model = build(family, arguments, input_shape=SMALL)
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert model.get_layer("normalization").compute_dtype == "float32"
    before = {
        v.path: keras.ops.convert_to_numpy(v) for v in model.trainable_variables
    }
    jit = "auto" if keras.backend.backend() == "torch" else True
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=jit)
    history = model.fit(images(8, SMALL), np.arange(8), batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    moved = [
        v.path
        for v in model.trainable_variables
        if np.any(keras.ops.convert_to_numpy(v) != before[v.path])
    ]
    assert moved == list(before)
    assert model.predict(images(shape=SMALL), verbose=0).dtype == "float32"


@pytest.mark.parametrize("family", ["WideResNet18", "DMRNet50"])
def test_imagenet_forms_are_saved_and_formatted(
    family, tmp_path, quick_initializers
):
    options = {"classes": 5, "include_preprocessing": False}
    model = build(family, {}, input_shape=(32, 32, 3), **options)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    x = images(shape=(32, 32, 3)) / 128 - 1
    expected = predict(model, x)
    np.testing.assert_array_equal(predict(restored, x), expected)
    keras.config.set_image_data_format("channels_first")
    try:
        first = build(family, {}, input_shape=(3, 32, 32), **options)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert first.output_shape == (None, 5)
    first.set_weights(model.get_weights())
    if keras.backend.backend() != "tensorflow":  # has no such CPU kernels
        np.testing.assert_allclose(
            predict(first, x.transpose(0, 3, 1, 2)), expected, atol=1e-4
        )


@pytest.mark.parametrize("jit", [True, False])
def test_predict_agrees_with_call(jit):
    if jit and keras.backend.backend() == "torch":
        pytest.skip("Keras runs torch eagerly")
    model = randomize(small_dmrnet(input_shape=SMALL))
    model.compile(jit_compile=jit)
    x = images(5, SMALL)
    np.testing.assert_allclose(
        model.predict(x, batch_size=2, verbose=0), predict(model, x), atol=1e-5
    )


def test_without_top():
    x = images(shape=(16, 16, 3))
    whole = randomize(small_dmrnet(input_shape=(16, 16, 3)))
    models = {
        pooling: small_dmrnet(
            input_shape=(16, 16, 3), include_top=False, pooling=pooling
        )
        for pooling in (None, "avg", "max")
    }
    for model in models.values():
        model.set_weights(whole.get_weights()[:-2])
    features = predict(models[None], x)
    assert features.shape == (2, 4, 4, 64)
    np.testing.assert_allclose(
        predict(models["avg"], x), features.mean((1, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(
        predict(models["max"], x), features.max((1, 2)), rtol=1e-5
    )
    kernel, bias = whole.get_weights()[-2:]
    logits = features.mean((1, 2)) @ kernel + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(
        predict(whole, x), p / p.sum(1, keepdims=True), atol=1e-5
    )


def test_logits():
    model = randomize(small_dmrnet(input_shape=SMALL))
    logits = small_dmrnet(input_shape=SMALL, classifier_activation=None)
    logits.set_weights(model.get_weights())
    x = images(shape=SMALL)
    z = predict(logits, x)
    np.testing.assert_allclose(
        np.exp(z) / np.exp(z).sum(1, keepdims=True),
        predict(model, x),
        atol=1e-6,
    )


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn_cropped"])
def test_preprocessing_is_in_the_graph(name):
    whole = randomize(
        small_dmrnet(input_shape=SMALL, include_preprocessing=name)
    )
    bare = small_dmrnet(input_shape=SMALL, include_preprocessing=False)
    bare.set_weights(whole.get_weights())
    x = images(shape=SMALL)
    normalized = (x - np.array(DATASETS[name].mean)) / DATASETS[name].std
    np.testing.assert_allclose(
        predict(whole, x), predict(bare, normalized), atol=1e-5
    )
    names = [layer.name for layer in bare.layers]
    assert "normalization" not in names


def test_default_preprocessing():
    mean, std = image_moments(small_dmrnet(input_shape=SMALL))
    np.testing.assert_allclose(mean, DATASETS["cifar10"].mean, rtol=1e-9)
    np.testing.assert_allclose(std, DATASETS["cifar10"].std, rtol=1e-9)
    # Images of another kind: from [0, 255] to [-1, 1].
    found = image_moments(small_dmrnet(input_shape=(8, 8, 1)))
    np.testing.assert_allclose(found, [[127.5], [127.5]])


@pytest.mark.parametrize("name", ["cifar10", "imagenet2012"])
@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
def test_normalization_by_numpy(first, name):
    """Also where Keras's data format is another by then."""
    before = keras.config.image_data_format()
    if first:
        keras.config.set_image_data_format("channels_first")
    try:
        shape = (3, 8, 9) if first else (8, 9, 3)
        image = small_dmrnet(input_shape=shape, include_preprocessing=name)
        layer = image.get_layer("normalization")
    finally:
        keras.config.set_image_data_format(before)
    x = images(2, (8, 9, 3))
    expected = (x - np.array(DATASETS[name].mean)) / DATASETS[name].std
    given = np.moveaxis(x, -1, 1) if first else x
    found = keras.ops.convert_to_numpy(layer(given))
    found = np.moveaxis(found, 1, -1) if first else found
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_weights_of_other_moments_do_not_load(tmp_path):
    """By Keras's own way, which knows of no configuration."""
    path = tmp_path / "a.weights.h5"
    ours = randomize(
        small_dmrnet(input_shape=SMALL, include_preprocessing="cifar10")
    )
    ours.save_weights(path)
    other = small_dmrnet(input_shape=SMALL, include_preprocessing="cifar100")
    with pytest.raises(ValueError, match="normalize images .* Received: a net"):
        other.load_weights(path)
    with pytest.warns(UserWarning, match="normalize images"):
        other.load_weights(path, skip_mismatch=True)
    like = small_dmrnet(input_shape=SMALL, include_preprocessing="cifar10")
    like.load_weights(path)
    bare = small_dmrnet(input_shape=SMALL, include_preprocessing=False)
    bare.load_weights(path)
    for twin in like, bare:
        for value, own in zip(
            twin.get_weights(), ours.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(value, own)


def test_files_of_weights_pass_to_keras_and_back(tmp_path):
    """Keras's layers look for no moments, and write none."""
    ours = randomize(small_dmrnet(input_shape=SMALL))
    stock = keras_resfam.to_stock_layers(small_dmrnet(input_shape=SMALL))
    again = small_dmrnet(input_shape=SMALL)
    path = tmp_path / "a.weights.h5"
    ours.save_weights(path)
    stock.load_weights(path)
    stock.save_weights(path)
    again.load_weights(path)
    x = images(shape=SMALL)
    np.testing.assert_array_equal(predict(again, x), predict(ours, x))


def test_files_of_networks_with_keras_normalization_load(tmp_path):
    """As networks were before: whole ones, and weights by Keras's own way."""
    ours = randomize(small_dmrnet(input_shape=SMALL))
    image = keras.Input(SMALL, name="image")
    x = keras.layers.Normalization(
        mean=DATASETS["cifar10"].mean,
        variance=np.square(DATASETS["cifar10"].std).tolist(),
        name="normalization",
    )(image)
    bare = small_dmrnet(include_preprocessing=False, input_tensor=x)
    bare.set_weights(ours.get_weights())
    np.testing.assert_allclose(
        image_moments(bare), image_moments(ours), rtol=1e-6
    )
    bare.save(tmp_path / "before.keras")
    bare.save_weights(tmp_path / "before.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "before.keras")
    again = small_dmrnet(input_shape=SMALL)
    again.load_weights(tmp_path / "before.weights.h5")
    x = images(shape=SMALL)
    for network in loaded, again, keras_resfam.fold_batch_norm(loaded):
        np.testing.assert_allclose(
            predict(network, x), predict(ours, x), atol=1e-5
        )


def test_preprocessing_keeps_float32_under_mixed_precision():
    with dtype_policy("mixed_bfloat16"):
        model = small_dmrnet(input_shape=SMALL)
    x = images(shape=SMALL)
    cifar10 = DATASETS["cifar10"]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model.get_layer("normalization")(x)),
        (x - np.array(cifar10.mean)) / cifar10.std,
        atol=1e-5,
    )


def test_input_tensor():
    inputs = keras.Input((16, 16, 1))
    rgb = keras.layers.Concatenate()([inputs] * 3)
    model = small_dmrnet(input_tensor=rgb)
    assert model.input is inputs
    plain = small_dmrnet(input_shape=(16, 16, 3))
    randomize(plain)
    model.set_weights(plain.get_weights())
    x = images(shape=(16, 16, 1))
    np.testing.assert_allclose(
        predict(model, x), predict(plain, np.repeat(x, 3, -1)), atol=1e-6
    )


@pytest.mark.parametrize("family, arguments", ONE_OF_EACH, ids=case_name)
def test_common_arguments_of_every_family(family, arguments):
    """Two bodies on one input of the user's, in one model."""
    inputs = keras.Input((16, 16, 1))
    rgb = keras.layers.Concatenate()([inputs] * 3)
    body = build(
        family, arguments, input_tensor=rgb, include_top=False, pooling="max"
    )
    plain = build(family, arguments, input_shape=(16, 16, 3), include_top=False)
    randomize(plain)
    body.set_weights(plain.get_weights())
    both = keras.Model(inputs, [body(inputs), plain(rgb)])
    pooled, features = predict(both, images(shape=(16, 16, 1)))
    np.testing.assert_allclose(pooled, features.max((1, 2)), rtol=1e-4)


def test_two_instances_in_one_model():
    inputs = keras.Input(SMALL)
    first, second = (small_dmrnet(input_shape=SMALL) for _ in range(2))
    assert first.name != second.name
    both = keras.Model(inputs, [first(inputs), second(inputs)])
    x = images(shape=SMALL)
    for part, y in zip((first, second), predict(both, x), strict=True):
        np.testing.assert_allclose(y, predict(part, x), atol=1e-6)


def test_names():
    assert small_dmrnet(name="mine").name == "mine"
    assert small_dmrnet().name.startswith("dmrnet")


def test_images_of_any_size():
    model = randomize(small_dmrnet(input_shape=(None, None, 3)))
    fixed = small_dmrnet(input_shape=(20, 12, 3))
    fixed.set_weights(model.get_weights())
    x = images(shape=(20, 12, 3))
    np.testing.assert_allclose(predict(model, x), predict(fixed, x), atol=1e-6)


@pytest.mark.parametrize("family, arguments", CIFAR_FORMS, ids=case_name)
def test_channels_first(family, arguments):
    last = randomize(build(family, arguments, input_shape=(16, 16, 3)))
    keras.config.set_image_data_format("channels_first")
    try:
        first = build(family, arguments, input_shape=(3, 16, 16))
        assert build(family, arguments).input_shape == (None, 3, 32, 32)
    finally:
        keras.config.set_image_data_format("channels_last")
    first.set_weights(last.get_weights())
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolution on CPU")
    x = images(shape=(16, 16, 3))
    np.testing.assert_allclose(
        predict(first, x.transpose(0, 3, 1, 2)), predict(last, x), atol=1e-5
    )


BAD_COMMON = [
    (dict(include_top="yes"), "`include_top`.*'yes'"),
    (dict(weights="imagenot"), "`weights`.*'imagenot'"),
    (dict(weights=3), "`weights`.*=3"),
    (dict(input_tensor=np.ones((1, 8, 8, 3))), "`input_tensor`"),
    (dict(input_tensor=keras.KerasTensor((None, 8, 8, 3))), "`input_tensor`"),
    (dict(input_shape=(8, 8)), r"`input_shape`.*\(8, 8\)"),
    (dict(input_shape=(8, 8, 3, 1)), "`input_shape`"),
    (dict(input_shape=(3, 8, 3)), r"`input_shape`.*at least 4.*\(3, 8, 3\)"),
    (dict(input_shape=(8, 8, None)), "`input_shape`.*channel"),
    (dict(input_shape=(8, 8, 0)), "`input_shape`"),
    (dict(input_shape=8), "`input_shape`.*=8"),
    (dict(input_shape=(8.0, 8, 3)), "`input_shape`"),
    (dict(pooling="bogus"), "`pooling`.*'avg', 'max'.*'bogus'"),
    (dict(pooling=True), "`pooling`.*=True"),
    (dict(classes=0), "`classes`.*=0"),
    (dict(classes=2.5), "`classes`.*=2.5"),
    (dict(classes=True), "`classes`.*=True"),
    (dict(classifier_activation="bogus"), "`classifier_activation`.*'bogus'"),
    (dict(classifier_activation=3), "`classifier_activation`.*=3"),
    (dict(include_preprocessing="bogus"), "`include_preprocessing`.*'bogus'"),
    (dict(include_preprocessing=None), "`include.*one of True, False, 'cif"),
    (dict(include_preprocessing=1), "`include_preprocessing`.*=1"),
    (dict(include_preprocessing="digits"), "`include_preprocessing`.*channel"),
    (dict(name=3), "`name`.*=3"),
    (dict(name=""), "`name`.*=''"),
    (dict(name="a/b"), "`name`.*='a/b'"),
]


@pytest.mark.parametrize("common, match", BAD_COMMON)
def test_bad_common_arguments(common, match):
    with pytest.raises(ValueError, match=f"(?s){match}") as caught:
        small_dmrnet(**common)
    assert "Received:" in str(caught.value)


def test_bad_input_tensors():
    with pytest.raises(ValueError, match="`input_tensor.shape`.*Received"):
        small_dmrnet(input_tensor=keras.Input((8,)))
    with pytest.raises(ValueError, match="`input_shape`.*Received"):
        small_dmrnet(input_tensor=keras.Input(SMALL), input_shape=(16, 16, 3))
    with pytest.raises(ValueError, match="`input_shape`.*=32"):
        small_dmrnet(input_tensor=keras.Input(SMALL), input_shape=32)


def test_small_images_are_refused_by_imagenet_forms():
    with pytest.raises(ValueError, match="`input_shape`.*at least 32"):
        keras_resfam.WideResNet18(input_shape=(31, 32, 3))


def test_networks_too_deep_for_pythons_recursion(quick_initializers):
    before = sys.getrecursionlimit()  # which other libraries may have raised
    sys.setrecursionlimit(1000)
    try:
        with pytest.raises(RecursionError, match="sys.setrecursionlimit"):
            keras_resfam.ResNet(depth=410, input_shape=(8, 8, 3))
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="wants converters of their own"
)
@pytest.mark.parametrize("folded", [False, True])
def test_exported_to_onnx(folded, tmp_path):
    import onnxruntime

    model = small_dmrnet(input_shape=SMALL)
    if folded:
        model = keras_resfam.fold_batch_norm(model)
    x = images(shape=SMALL).astype("float32")
    expected = predict(model, x)
    path = tmp_path / "model.onnx"
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    (name,) = (tensor.name for tensor in session.get_inputs())
    (outputs,) = session.run(None, {name: x})
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_unknown_argument():
    with pytest.raises(TypeError, match=r"DMRNet\(\) .*bogus"):
        small_dmrnet(bogus=1)


def test_import_is_light():
    """Nothing heavy comes along, and little time is added to Keras's own."""
    code = (
        "import sys, time, keras\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import keras_resfam\n"
        "seconds = time.process_time() - start\n"
        "added = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'matplotlib', 'jax',\n"
        "         'torch', 'sklearn', 'huggingface_hub', 'training'}\n"
        "print(seconds, *(added & heavy))\n"
    )

    def run():
        return subprocess.run(
            [sys.executable, "-c", code],
            # As for users, whose Python keeps what it has compiled.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()

    seconds, *heavy = run()
    assert not heavy
    # The least of a few: other processes only ever add to it.
    assert float(seconds) < 0.05 or any(
        float(run()[0]) < 0.05 for _ in range(5)
    )


def test_numbers_of_numpy_are_as_good_as_pythons(tmp_path):
    model = keras_resfam.WideResNet(
        **NUMPY,
        block=(np.int64(3), 3),
        dropout=np.float32(0.3),
        classes=np.int64(4),
        input_shape=tuple(np.array(SMALL)),
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = images(shape=SMALL)
    np.testing.assert_array_equal(predict(loaded, x), predict(model, x))
    assert model.output_shape == (None, 4)
