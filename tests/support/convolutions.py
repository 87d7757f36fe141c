"""Convolutions and their gradients against float64, in a process of its own.

    python convolutions.py 40

checks the thin ones, and 40 random ones.

Some kernels of the backends' have written past their memory. Where the C
library checks what a process does to it, such a process is aborted.
"""

import itertools
import sys

import keras
import numpy as np

from keras_resfam.layers import Conv2D


def thin():
    """Yields 1 x 1 kernels with strides, of fewer channels than a block."""
    for channels, strides, side, batch in itertools.product(
        (3, 6, 8, 12, 15), (2, 3), (16, 56, 64, 224), (1, 8)
    ):
        padding = ("valid", "same")[side % 3 == 2]
        options = {"kernel_size": 1, "strides": strides, "padding": padding}
        yield (batch, side, side, channels), {"filters": 16, **options}
    zeros = {"filters": 4, "kernel_size": 1, "strides": 2, "zeros": 1}
    yield (2, 16, 16, 5), zeros
    groups = {"filters": 6, "kernel_size": 1, "strides": (1, 2), "groups": 3}
    yield (2, 16, 16, 9), groups


def random(count, seed=0):
    """Yields convolutions of all kinds, small ones."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        groups = int(rng.choice([1, 1, 1, 2, 3]))
        options = {
            "filters": groups * int(rng.integers(1, 20)),
            "kernel_size": tuple(map(int, rng.integers(1, 5, size=2))),
            "groups": groups,
            "padding": str(rng.choice(["valid", "same"])),
            "use_bias": bool(rng.integers(2)),
        }
        strided = rng.integers(3) > 0
        name = "strides" if strided else "dilation_rate"
        options[name] = tuple(map(int, rng.integers(1, 4, size=2)))
        if options["padding"] == "valid":
            options["zeros"] = int(rng.integers(3))
        if "dilation_rate" in options and rng.integers(2):
            options["dtype"] = "bfloat16"
        sides = map(int, rng.integers(10, 33, size=2))
        batch, channels = int(rng.integers(1, 5)), int(rng.integers(1, 20))
        yield (batch, *sides, groups * channels), options


def check(shape, options):
    """Compares a layer's outputs and gradients with those in float64."""
    rng = np.random.default_rng(0)
    layer = Conv2D(**options)
    layer.build(shape)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    weights = list(map(as_float64, layer.weights))
    x = as_float64(keras.ops.cast(rng.normal(size=shape), layer.compute_dtype))
    expected, pullback = convolve(layer, x, *weights)
    error = rng.normal(size=expected.shape).round(1)
    outputs, *gradients = by_backend(layer, x, error)
    # TensorFlow sums in bfloat16.
    tolerance = 1e-1 if layer.compute_dtype == "bfloat16" else 1e-4
    wanted = [expected, *pullback(error)]
    names = ["outputs", "images", *(w.name for w in layer.weights)]
    for name, ours, right in zip(
        names, [outputs, *gradients], wanted, strict=True
    ):
        off = np.abs(as_float64(ours) - right).max() / np.abs(right).max()
        # Not `>`, which no NaN is.
        if not off <= tolerance:
            sys.exit(f"{name} are off by {off:.1e}: {shape}, {options}")


def as_float64(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))


def convolve(layer, x, kernel, bias=0.0):
    """A layer's outputs by NumPy, and what takes their gradient back."""
    if layer.padding == "same":
        outputs = layer.compute_output_shape(x.shape)[1:3]
        total = [
            max(0, (n - 1) * stride + rate * (size - 1) + 1 - side)
            for n, stride, rate, size, side in zip(
                outputs,
                layer.strides,
                layer.dilation_rate,
                layer.kernel_size,
                x.shape[1:],
                strict=False,
            )
        ]
        margins = [(n // 2, n - n // 2) for n in total]
    else:
        margins = [(layer.zeros, layer.zeros)] * 2
    padded = np.pad(x, [(0, 0), *margins, (0, 0)])
    _, rows, columns, filters = layer.compute_output_shape(x.shape)
    groups = layer.groups
    kernels = kernel.reshape(*kernel.shape[:3], groups, -1)

    def seen(tap):
        """Which pixels a tap of the kernel meets."""
        return (
            slice(None),
            *(
                slice(i * rate, i * rate + (n - 1) * stride + 1, stride)
                for i, rate, n, stride in zip(
                    tap,
                    layer.dilation_rate,
                    (rows, columns),
                    layer.strides,
                    strict=True,
                )
            ),
        )

    def grouped(values):
        return values.reshape(*values.shape[:3], groups, -1)

    def multiply(values, matrices):
        """By a matrix for each group, of shape `(inputs, groups, outputs)`."""
        values = grouped(values)
        products = [values[..., g, :] @ matrices[:, g] for g in range(groups)]
        return np.concatenate(products, axis=-1)

    taps = list(np.ndindex(*layer.kernel_size))
    outputs = sum(multiply(padded[seen(tap)], kernels[tap]) for tap in taps)

    def pullback(error):
        axes = [(0, 1, 2)] * 2
        by_padded, by_kernel = np.zeros_like(padded), np.zeros_like(kernels)
        for tap in taps:
            pixels = grouped(padded[seen(tap)])
            for g in range(groups):
                by_kernel[tap][:, g] = np.tensordot(
                    pixels[..., g, :], grouped(error)[..., g, :], axes
                )
            back = kernels[tap].transpose(2, 1, 0)
            by_padded[seen(tap)] += multiply(error, back)
        top, left = (before for before, _ in margins)
        by_x = by_padded[:, top:, left:][:, : x.shape[1], : x.shape[2]]
        found = [by_x, by_kernel.reshape(kernel.shape), error.sum((0, 1, 2))]
        return found[: 2 + layer.use_bias]

    return outputs + bias, pullback


def by_backend(layer, x, error):
    """A layer's outputs, and the gradients of its images and weights."""
    x = keras.ops.cast(x, layer.compute_dtype)
    error = keras.ops.cast(error, layer.compute_dtype)
    weights = [w.value for w in layer.weights]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
        found = tape.gradient(outputs, [x, *weights], error)
        return outputs, *found
    import torch

    x.requires_grad_()
    outputs = layer(x)
    return outputs, *torch.autograd.grad(outputs, [x, *weights], error)


if __name__ == "__main__":
    for shape, options in itertools.chain(thin(), random(int(sys.argv[1]))):
        check(shape, options)
    print("all right")
