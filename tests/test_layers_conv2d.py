"""Conv2D by the backends' own ways against Keras's."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

import convolutions
import keras_resfam
from differentiate import gradients
from keras_resfam.backends import convolution
from keras_resfam.layers import Conv2D
from twins import assert_close, built_alike

SHAPE = (2, 7, 6, 4)
OPTIONS = [
    {},
    {"padding": "same"},
    {"padding": "same", "kernel_size": (2, 3)},
    {"strides": 2},
    {"strides": 2, "padding": "same"},
    {"strides": (1, 2), "padding": "same"},
    {"dilation_rate": 2, "padding": "same"},
    {"groups": 2},
    {"use_bias": False},
    {"activation": "relu"},
    {"lora_rank": 1},
]


def twins(filters=6, kernel_size=3, **options):
    """Our layer and Keras's, with the same weights."""
    rng = np.random.default_rng(0)
    return built_alike(
        Conv2D(filters, kernel_size, **options),
        keras.layers.Conv2D(filters, kernel_size, **options),
        SHAPE,
        lambda shape: rng.normal(size=shape),
    )


def images(dtype="float32"):
    x = np.random.default_rng(1).normal(size=SHAPE).astype("float32")
    return ops.cast(ops.convert_to_tensor(x), dtype)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_values(options):
    ours, theirs = twins(**options)
    assert_close(ours(images()), theirs(images()))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("part", [1, convolution.PART])
def test_gradients(part, options, monkeypatch):
    if part == 1 and keras.backend.backend() != "jax":
        pytest.skip("on JAX the batch may be taken in parts")
    monkeypatch.setattr(convolution, "PART", part)
    found = []
    for layer in twins(**options):
        values = [images(), *map(ops.convert_to_numpy, layer.weights)]

        def loss(x, *weights, layer=layer):
            for variable, value in zip(layer.weights, weights, strict=True):
                variable.assign(value)
            return ops.sum(layer(x) ** 2)

        found.append(gradients(loss, list(map(np.array, values))))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, 1e-4)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras exports it otherwise"
)
def test_models_are_exported_with_a_batch_of_any_size(tmp_path):
    """With their gradients, which JAX has to know for whatever comes."""
    import tensorflow as tf

    layer = Conv2D(6, 3, padding="same")
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer])
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    x = ops.convert_to_numpy(images())
    for batch in (x, x[:1]):
        assert_close(loaded.serve(batch).numpy(), model(batch))


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="XLA has kernels of its own"
)
@pytest.mark.parametrize(
    "count", [60, pytest.param(1200, marks=pytest.mark.large)]
)
def test_gradients_against_float64(count):
    """In a process of its own, which dies where memory is damaged.

    Where it has one, the C library's check makes that certain.
    """
    done = subprocess.run(
        [sys.executable, convolutions.__file__, str(count)],
        env={
            **os.environ,
            "LD_PRELOAD": "libc_malloc_debug.so.0",
            "MALLOC_CHECK_": "3",
            "TF_ENABLE_ONEDNN_OPTS": "1",  # also with AVX2 only
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "all right\n"


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only PyTorch's fails there"
)
@pytest.mark.parametrize("strides", [1, 2])
def test_gradients_of_one_filter_of_one_image(strides):
    options = {"strides": strides, "padding": "same"}
    convolutions.check(
        (1, 8, 8, 3), {"filters": 1, "kernel_size": 3, **options}
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(dtype):
    ours, theirs = twins(dtype=f"mixed_{dtype}")
    y = ours(images())
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    assert_close(y, theirs(images()), 3e-2)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("zeros", [1, 3])
def test_zeros_around_the_images(strides, zeros):
    """As Torch pads: the same number on every side."""
    ours, theirs = twins(strides=strides)
    padded = Conv2D.from_config({**ours.get_config(), "zeros": zeros})
    padded.build(SHAPE)
    padded.set_weights(ours.get_weights())
    y = padded(images())
    assert padded.compute_output_shape(SHAPE) == tuple(y.shape)
    assert padded.compute_output_shape((None, None, None, 4)) == (
        (None, None, None, 6)
    )
    assert_close(y, theirs(keras.layers.ZeroPadding2D(zeros)(images())))


def test_zeros_with_channels_first():
    layer = Conv2D(6, 3, zeros=2, data_format="channels_first")
    assert layer.compute_output_shape((2, 4, 7, 6)) == (2, 6, 9, 8)
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolution on the CPU")
    last = Conv2D(6, 3, zeros=2)
    layer.build((2, 4, 7, 6))
    last.build(SHAPE)
    last.set_weights(layer.get_weights())
    y = layer(ops.transpose(images(), (0, 3, 1, 2)))
    assert_close(ops.transpose(y, (0, 2, 3, 1)), last(images()))


@pytest.mark.parametrize(
    "options", [{"zeros": -1}, {"zeros": 1.0}, {"zeros": 1, "padding": "same"}]
)
def test_zeros_that_are_refused(options):
    with pytest.raises(ValueError, match="`(zeros|padding)`.*Received: "):
        Conv2D(6, 3, **options)


def test_channels_first_is_left_to_keras():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolution on the CPU")
    first = Conv2D(6, 3, data_format="channels_first")
    last = Conv2D(6, 3)
    first.build((2, 4, 7, 6))
    last.build(SHAPE)
    last.set_weights(first.get_weights())
    y = first(ops.transpose(images(), (0, 3, 1, 2)))
    assert_close(ops.transpose(y, (0, 2, 3, 1)), last(images()))


def test_torch_copies_no_image():
    """The kernel takes a view of the images, and gives one."""
    if keras.backend.backend() != "torch":
        pytest.skip("TensorFlow and JAX convolve images of channels last")
    from torch.profiler import profile

    ours, theirs = twins(16, padding="same", use_bias=False)
    x = ops.convert_to_tensor(
        np.random.default_rng(0).normal(size=(2, 64, 64, 4)), "float32"
    )

    def copied(layer):
        """The values of the largest copy."""
        with profile(record_shapes=True) as profiler:
            layer(x)
        copies = [
            event.input_shapes[0]
            for event in profiler.events()
            if event.name == "aten::copy_"
        ]
        return max((int(np.prod(shape)) for shape in copies), default=0)

    assert copied(theirs) >= x.numel()
    assert copied(ours) < x.numel()


def test_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input(SHAPE[1:]), Conv2D(3, 3)])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.layers[0]) is Conv2D
    assert again.layers[0].get_config() == model.layers[0].get_config()


def test_saved_and_loaded_with_lora(tmp_path):
    model = keras.Sequential([keras.Input(SHAPE[1:]), Conv2D(3, 3)])
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.ones((2, 3)))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[0].lora_rank == 2
    assert_close(again(images()), model(images()))


on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="as JAX does on a processor"
)


def by_kernel(layer, x):
    """The gradient of a sum of squares as a function of the kernel, on JAX."""
    import jax

    def loss(kernel):
        return ops.sum(ops.square(layer.convolution_op(x, kernel)))

    return jax.grad(loss)


def recorded(layer, x):
    import jax

    return str(jax.make_jaxpr(by_kernel(layer, x))(layer.kernel.value))


def is_sum_of_products(layer, x):
    return "scan" in recorded(layer, x)


@on_jax
def test_sum_of_products_of_several_images(monkeypatch):
    """The largest part that divides the batch, of those that fit."""
    ours, theirs = twins(padding="same", use_bias=False)
    x = np.random.default_rng(2).normal(size=(9, 5, 5, 4))
    x = ops.convert_to_tensor(x, "float32")
    row = 5 * 5 * 3 * 4  # of the patches of an image
    monkeypatch.setattr(convolution, "PART", 5 * row)
    # Three parts of three images.
    assert "f32[3,3,5,5,4]" in recorded(ours, x)
    kernel = ours.kernel.value
    assert_close(by_kernel(ours, x)(kernel), by_kernel(theirs, x)(kernel), 1e-4)


@on_jax
@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"data_format": "channels_first"}], ids=str
)
def test_sum_of_products_is_not_for_all_layers(options):
    layer = Conv2D(6, 3, **options)
    shape = (2, 4, 7, 6) if "data_format" in options else SHAPE
    layer.build(shape)
    assert not is_sum_of_products(layer, ops.ones(shape))


@on_jax
def test_sum_of_products_is_for_one_processor(monkeypatch):
    import jax

    layer, theirs = twins()
    assert is_sum_of_products(layer, images())
    assert not is_sum_of_products(theirs, images())
    for name, value in ("default_backend", "gpu"), ("device_count", 2):
        with monkeypatch.context() as patch:
            patch.setattr(jax, name, lambda value=value: value)
            assert not is_sum_of_products(layer, images())


@on_jax
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sum_of_products_in_half_precision(dtype):
    ours, _ = twins(padding="same")
    kernel = ours.kernel.value
    gradient = by_kernel(ours, images())(kernel)
    half = by_kernel(ours, images(dtype))(kernel.astype(dtype))
    assert half.dtype == dtype
    scale = float(ops.max(ops.abs(gradient)))
    assert_close(half / scale, gradient / scale, 2e-2)


@on_jax
def test_sum_of_products_has_gradients():
    import jax

    found = []
    for layer in twins():
        gradient = by_kernel(layer, images())
        second = jax.grad(lambda k, g=gradient: ops.sum(g(k) ** 2))
        kernel = layer.kernel.value
        _, along = jax.jvp(gradient, (kernel,), (kernel,))
        found.append((second(kernel), along))
    for ours, theirs in zip(*found, strict=True):
        scale = float(ops.max(ops.abs(theirs)))
        assert_close(ours / scale, theirs / scale, 1e-4)


@on_jax
@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": "same"}])
def test_sum_of_products_has_forward_derivatives(options):
    import jax

    x, kernel = images(), twins()[0].kernel.value
    found = []
    for layer in twins(use_bias=False, **options):
        along = (ops.cos(x), ops.cos(kernel))
        found.append(jax.jvp(layer.convolution_op, (x, kernel), along))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, 1e-4)


@on_jax
def test_sum_of_products_for_each_image():
    import jax

    def of_one(layer):
        def gradient(image):
            return by_kernel(layer, image[None])(layer.kernel.value)

        return jax.vmap(gradient)(images())

    ours, theirs = map(of_one, twins(use_bias=False))
    assert_close(ours, theirs, 1e-4)


@on_jax
def test_networks_have_forward_derivatives():
    """Along any direction, what the gradient has in that direction."""
    import jax

    model = keras_resfam.ResNet(depth=8, input_shape=(8, 8, 3))
    weights, state = (
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
        )
    )
    x = np.random.default_rng(0).uniform(0, 255, size=(4, 8, 8, 3))

    def loss(weights):
        outputs, _ = model.stateless_call(weights, state, x, training=True)
        return -ops.sum(ops.log(outputs[:, 0]))

    rng = np.random.default_rng(1)
    along = [rng.normal(size=w.shape).astype("float32") * 0.1 for w in weights]
    value, forward = jax.jit(lambda w: jax.jvp(loss, (w,), (along,)))(weights)
    gradients = jax.jit(jax.grad(loss))(weights)
    backward = sum(
        float(np.vdot(g, a)) for g, a in zip(gradients, along, strict=True)
    )
    assert np.isfinite(value)
    assert float(forward) == pytest.approx(backward, rel=1e-3)
