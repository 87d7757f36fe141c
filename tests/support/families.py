"""A small network of every builder, for tests that all of them must pass."""

import keras
import numpy as np

import keras_resfam

CIFAR_FORMS = [
    ("WideResNet", dict(depth=10, width=1)),
    ("WideResNet", dict(depth=10, width=2, block=(3, 1, 3), dropout=0.3)),
    ("DMRNet", dict(depth=8)),
    ("DMRNet", dict(depth=8, branches=3, mapping="identity")),
    ("DILNet", dict(depth=8)),
    ("OrthoPlainNet", dict(depth=8)),
    ("ResNet", dict(depth=8)),
    ("ResNet", dict(depth=8, preactivation=True)),
    ("ResNet", dict(depth=8, shortcut="projection")),
    ("ResNet18CIFAR", {}),
]
IMAGENET_FORMS = [
    ("WideResNet18", {}),
    ("WideResNet34", {}),
    ("WideResNet50_2", {}),
    ("WideResNet101_2", {}),
    ("DMRNet44", {}),
    ("DMRNet50", {}),
    ("OrthoPlainNet34", {}),
    ("OrthoPlainNet101", {}),
    ("ResNet18", {}),
    ("ResNet34", {}),
    ("ResNet50", {}),
    ("ResNet98", {}),
    ("ResNet101", {}),
    ("ResNet152", {}),
]
ONE_OF_EACH = [CIFAR_FORMS[k] for k in (1, 2, 4, 5, 7)]
FAMILIES = sorted({name for name, _ in CIFAR_FORMS + IMAGENET_FORMS})


def case_name(value):
    """Names the cases of a parametrized test."""
    if isinstance(value, dict):
        items = (f"{key}={item}" for key, item in value.items())
        return ",".join(items).replace(" ", "") or "default"
    return str(value)


def build(family, arguments, **common):
    return getattr(keras_resfam, family)(**arguments, **common)


def images(count=2, shape=(16, 16, 3), seed=0):
    """Raw images, 0..255, the same everywhere."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape)).astype("uint8")


def randomize(model, seed=0):
    """Gives every variable another value, the same on every backend.

    BatchNormalization starts as the identity, which would hide mistakes.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = keras.ops.convert_to_numpy(variable)
        noise = rng.normal(size=value.shape).astype("float32")
        if value.ndim > 1:
            fan_in = np.prod(value.shape[:-1])
            value = noise * np.sqrt(1.5 / fan_in)
        elif "variance" in variable.name or "gamma" in variable.name:
            value = np.exp(noise / 4)
        elif variable.dtype == "float32":
            value = noise / 4
        variable.assign(value)
    return model


def outputs_of(model, *names):
    """A model that gives the outputs of the named layers."""
    return keras.Model(
        model.inputs, [model.get_layer(name).output for name in names]
    )


def predict(model, x):
    """Predictions of one batch, as float64, without a training step."""
    y = model(keras.ops.convert_to_tensor(x, dtype="float32"), training=False)
    return keras.tree.map_structure(
        lambda t: keras.ops.convert_to_numpy(t).astype("float64"), y
    )
