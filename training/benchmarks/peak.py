"""The speed of large matrix products, which bounds that of convolutions."""

import functools
import math
import time


def measure(keras, precision, size, least=0.2):
    """Measures every way in which a backend multiplies matrices.

    A backend may multiply matrices by one library and convolve by another, as
    PyTorch does by MKL and oneDNN. A 1 x 1 convolution is a matrix product by
    the second one. Which of them is faster depends on the processor.

    Args:
        keras: The module, with its backend.
        precision: str. The type of the matrices.
        size: int, a multiple of 256. Rows and columns of the matrices.
        least: float. Seconds that a sample takes at least.

    Returns:
        A dict: name of the way -> FLOP/s, the best of three samples.
    """

    def seconds(product, times):
        start = time.perf_counter()
        for _ in range(times):
            y = product()
        # Waits: a GPU does its work in order.
        keras.ops.convert_to_numpy(y[(0,) * len(y.shape)])
        return time.perf_counter() - start

    rates = {}
    for name, (product, flops) in products(keras, precision, size).items():
        seconds(product, 1)  # compiles
        times = math.ceil(least / seconds(product, 1))
        best = min(seconds(product, times) for _ in range(3))
        rates[name] = flops * times / best
    return rates


def products(keras, precision, size):
    """Returns functions, and the multiplications and additions of each."""
    ops = keras.ops
    normal = functools.partial(keras.random.normal, dtype=precision)
    a, b = normal((size, size)), normal((size, size))
    channels = size // 4
    images = normal((size // 256, 32, 32, channels))
    kernel = normal((1, 1, channels, channels))
    return {
        "matrix product": (lambda: ops.matmul(a, b), 2 * size**3),
        "1 x 1 convolution": (
            lambda: ops.conv(images, kernel, data_format="channels_last"),
            2 * math.prod(images.shape) * channels,
        ),
    }
