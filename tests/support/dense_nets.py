"""Small residual networks of dense layers, and the same in NumPy float64."""

import keras
import numpy as np

WIDTH = 6
CLASSES = 4


def build(blocks=8, activation="relu", scale=0.5, dtype=None, use_ops=False):
    """Dense, then `h = h + V act(U h)` a block, then dense and softmax."""
    inputs = keras.Input((5,), dtype=dtype)
    options = {"dtype": dtype, "use_bias": False}
    h = keras.layers.Dense(WIDTH, name="stem", **options)(inputs)
    for k in range(1, blocks + 1):
        f = keras.layers.Dense(
            WIDTH, activation, name=f"stage1_block{k}_in", **options
        )(h)
        f = keras.layers.Dense(WIDTH, name=f"stage1_block{k}_out", **options)(f)
        if use_ops:
            h = h + f
        else:
            name = f"stage1_block{k}_add"
            h = keras.layers.Add(name=name, dtype=dtype)([h, f])
    outputs = keras.layers.Dense(
        CLASSES, "softmax", name="predictions", **options
    )(h)
    model = keras.Model(inputs, outputs, name="dense")
    draw = np.random.default_rng(0)
    for w in model.weights:
        w.assign(draw.normal(0, scale, w.shape))
    return model


def data(examples=20):
    draw = np.random.default_rng(1)
    x = draw.normal(size=(examples, 5)).astype("float32")
    return x, draw.integers(0, CLASSES, examples)


class Reference:
    """What `build` made, computed by NumPy in float64."""

    def __init__(self, model, activation="relu"):
        weights = [
            np.asarray(keras.ops.convert_to_numpy(w), "float64")
            for w in model.weights
        ]
        self.stem, *inner, self.head = weights
        self.blocks = list(zip(inner[::2], inner[1::2], strict=True))
        self.linear = activation is None

    def activate(self, z):
        return z if self.linear else np.maximum(z, 0)

    def predict(self, x, order=None):
        """Probabilities, with the blocks run in that order."""
        order = range(len(self.blocks)) if order is None else order
        h = x.astype("float64") @ self.stem
        for k in order:
            u, v = self.blocks[k]
            h = h + self.activate(h @ u) @ v
        return softmax(h @ self.head)

    def gradient(self, x, y, on):
        """Of the cross-entropy by x; `on` blocks pass their branch only."""
        h = x.astype("float64") @ self.stem
        inputs = []
        for u, v in self.blocks:
            inputs.append(h @ u)
            h = h + self.activate(h @ u) @ v
        error = softmax(h @ self.head)
        error[np.arange(len(y)), y] -= 1
        error = error @ self.head.T
        for k in reversed(range(len(self.blocks))):
            if k in on:
                u, v = self.blocks[k]
                slope = 1 if self.linear else inputs[k] > 0
                error = ((error @ v.T) * slope) @ u.T
        return error @ self.stem.T


def softmax(z):
    z = np.exp(z - z.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)
