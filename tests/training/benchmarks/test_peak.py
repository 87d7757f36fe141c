import keras
import numpy as np

from training.benchmarks import peak


def test_both_ways_multiply_what_they_count(monkeypatch):
    """The flops are those of the matrices that NumPy multiplies."""
    drawn = []

    def normal(shape, dtype):
        values = np.random.default_rng(len(drawn)).normal(size=shape)
        drawn.append(values)
        return keras.ops.convert_to_tensor(values, dtype)

    monkeypatch.setattr(keras.random, "normal", normal)
    ways = peak.products(keras, "float32", 256)
    a, b, images, kernel = drawn
    factors = {
        "matrix product": (a, b),
        "1 x 1 convolution": (images.reshape(-1, 64), kernel[0, 0]),
    }
    assert ways.keys() == factors.keys()
    for name, (product, flops) in ways.items():
        left, right = factors[name]
        assert flops == 2 * left.shape[0] * left.shape[1] * right.shape[1]
        result = keras.ops.convert_to_numpy(product())
        np.testing.assert_allclose(
            result.reshape(len(left), -1), left @ right, rtol=1e-3, atol=1e-3
        )


def test_rates_are_measured():
    rates = peak.measure(keras, "float32", 256, least=0.001)
    assert rates.keys() == {"matrix product", "1 x 1 convolution"}
    assert all(1e7 < rate < 1e15 for rate in rates.values())
