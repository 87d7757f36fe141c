"""Whatever the arguments: a network that runs, or a ValueError."""

import inspect

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_resfam

junk = st.sampled_from([None, -1, 0, 0.5, "x", (), True, float("nan")])


def mostly(good):
    """Good values as a rule, and now and then any other."""
    return st.integers(0, 24).flatmap(lambda k: junk if k == 0 else good)


ARCHITECTURES = {
    "WideResNet": dict(
        depth=mostly(st.sampled_from([9, 10, 16])),
        width=mostly(st.sampled_from([0.25, 0.5, 1])),
        block=mostly(
            st.lists(st.sampled_from([1, 3, 2]), min_size=1, max_size=3)
        ),
        blocks=mostly(st.sampled_from([None, 1, 2])),
        dropout=mostly(st.sampled_from([0, 0.3])),
    ),
    "DMRNet": dict(
        depth=mostly(st.sampled_from([8, 13, 14])),
        width=mostly(st.sampled_from([0.25, 0.6])),
        branches=mostly(st.integers(1, 4)),
        mapping=mostly(st.sampled_from(["merge_and_run", "identity"])),
    ),
    "DILNet": dict(
        depth=mostly(st.sampled_from([8, 10])),
        width=mostly(st.sampled_from([0.25, 0.6])),
        branches=mostly(st.integers(1, 4)),
    ),
    "OrthoPlainNet": dict(
        depth=mostly(st.sampled_from([8, 12])),
        width=mostly(st.sampled_from([0.25, 0.6])),
        orthonormality=mostly(st.floats(0, 1)),
        modulation=mostly(st.sampled_from([True, False, 1.5])),
        modulation_at=mostly(st.sampled_from(["relu", "conv"])),
        regularizer=mostly(st.sampled_from(["double", "spectral"])),
        initializer=mostly(st.sampled_from([None, "he", "delta"])),
        shift=mostly(st.floats(0, 2)),
    ),
    "ResNet": dict(
        depth=mostly(st.sampled_from([8, 14])),
        width=mostly(st.sampled_from([0.25, 0.6, 1.3])),
        preactivation=mostly(st.booleans()),
        shortcut=mostly(st.sampled_from(["identity", "projection"])),
    ),
    "ResNet18CIFAR": {},
}
COMMON = dict(
    include_top=mostly(st.booleans()),
    input_shape=mostly(
        st.tuples(st.integers(3, 9), st.integers(4, 9), st.integers(1, 3))
    ),
    pooling=mostly(st.sampled_from([None, "avg", "max"])),
    classes=mostly(st.sampled_from([None, 1, 7])),
    classifier_activation=mostly(st.sampled_from([None, "softmax"])),
    include_preprocessing=mostly(
        st.sampled_from(
            [True, False, "cifar100", ((120,) * 3, (60, 0, 60)), ((1.5,), (2,))]
        )
    ),
)


@pytest.mark.parametrize("family", ARCHITECTURES)
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_any_arguments(family, data):
    strategies = {**ARCHITECTURES[family], **COMMON}
    arguments = data.draw(st.fixed_dictionaries(strategies))
    try:
        model = getattr(keras_resfam, family)(**arguments)
    except ValueError as error:
        message = str(error)
        assert "Received: " in message
        named = [name for name in arguments if f"`{name}`" in message]
        assert named, message
        assert f"{named[0]}=" in message
        return
    shape = model.input_shape[1:]
    y = model(np.full((2, *shape), 128.0, "float32"))
    y = keras.ops.convert_to_numpy(y)
    assert np.isfinite(y).all()
    if arguments["include_top"]:
        assert y.shape == (2, arguments["classes"] or 10)
    else:
        assert y.ndim == (2 if arguments["pooling"] else 4)


def test_every_family_is_tried():
    families = {
        name
        for name in keras_resfam.__all__
        if inspect.isfunction(getattr(keras_resfam, name))
        and "include_top"
        in inspect.signature(getattr(keras_resfam, name)).parameters
        and not name[-1].isdigit()
    }
    assert families == set(ARCHITECTURES)
