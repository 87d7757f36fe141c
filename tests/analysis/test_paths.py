import itertools
import math

import keras
import numpy as np
import pytest

import dense_nets
import keras_resfam
from keras_resfam.analysis import path_lengths
from keras_resfam.analysis.paths import count_paths

SHAPE = (8, 8, 3)


def moments(lengths):
    k, p = lengths["length"], lengths["probability"]
    mean = np.sum(k * p)
    return mean, math.sqrt(np.sum((k - mean) ** 2 * p))


def test_identity_blocks_have_binomial_paths():
    model = dense_nets.build(54)
    counts = count_paths(model)
    assert counts == {k: math.comb(54, k) for k in range(55)}
    lengths = path_lengths(model)
    assert lengths["length"].tolist() == list(range(55))
    within = lengths["probability"][19:36].sum()
    assert within == pytest.approx(0.980, abs=5e-4)
    effective = lengths["probability"][5:18].sum()
    assert effective == pytest.approx(0.0045, abs=5e-5)


# Layers L of DMRNet's figure and table, B = 2 in a branch.
@pytest.mark.parametrize(
    "builder, depth, branches, blocks, chance",
    [
        ("DMRNet", 20, 2, 9, 1 / 3),
        ("DMRNet", 14, 3, 6, 1 / 4),
        ("DMRNet", 14, 1, 6, 1 / 2),
        ("DILNet", 20, 2, 9, 2 / 3),
        ("DILNet", 14, 3, 6, 3 / 4),
    ],
)
def test_average_lengths_of_the_dmrnet_paper(
    builder, depth, branches, blocks, chance
):
    model = getattr(keras_resfam, builder)(
        depth=depth, branches=branches, input_shape=SHAPE
    )
    mean, deviation = moments(path_lengths(model, "layers"))
    assert mean == pytest.approx(2 * blocks * chance + 2)
    spread = 2 * math.sqrt(blocks * chance * (1 - chance))
    assert deviation == pytest.approx(spread)
    if (builder, depth) == ("DMRNet", 20):
        assert round(mean, 2) == 8.0 and round(deviation, 2) == 2.83


@pytest.mark.parametrize("shortcut", ["identity", "projection"])
@pytest.mark.parametrize("preactivation", [False, True])
def test_shortcuts_do_not_count(shortcut, preactivation):
    model = keras_resfam.ResNet(
        depth=14,
        shortcut=shortcut,
        preactivation=preactivation,
        input_shape=SHAPE,
    )
    assert count_paths(model) == {k: math.comb(6, k) for k in range(7)}
    assert moments(path_lengths(model, "layers"))[0] == pytest.approx(6 + 2)


def test_merge_and_run_paths_one_by_one():
    """Walks from stream to stream through three blocks of two branches."""
    model = keras_resfam.DMRNet(depth=8, input_shape=SHAPE)
    steps = [("branch", 0), ("branch", 1), *itertools.product("ab", "ab")]
    counts = {}
    for walk in itertools.product(steps, repeat=3):
        for start in (0, 1):
            stream, length = start, 0
            for kind, where in walk:
                if kind == "branch":
                    length += 1
                    fits = stream == where
                else:
                    fits = stream == "ab".index(kind)
                    where = "ab".index(where)
                if not fits:
                    break
                stream = where
            else:
                counts[length] = counts.get(length, 0) + 1
    found = count_paths(model)
    ratio = counts[0] / found[0]
    assert {k: n / ratio for k, n in counts.items()} == found


def test_streams_that_never_meet_are_residual_networks():
    model = keras_resfam.DMRNet(depth=8, mapping="identity", input_shape=SHAPE)
    found = count_paths(model)
    assert found[1] / found[0] == pytest.approx(2 + 1 / 2)


def test_concatenated_tensors_each_pass_on_their_paths():
    layer, op = keras.layers.Concatenate(), keras.ops.concatenate
    for concatenate in (layer, op):
        h = inputs = keras.Input((3,))
        h = keras.layers.Add()([h, keras.layers.Dense(3)(h)])
        model = keras.Model(inputs, concatenate([h, keras.layers.Dense(3)(h)]))
        assert count_paths(model, "layers") == {0: 1, 1: 2, 2: 1}


def test_a_branch_that_is_added_twice_is_two_paths():
    inputs = keras.Input((4,))
    f = keras.layers.Dense(4)(inputs)
    model = keras.Model(inputs, keras.layers.Add()([inputs, f, f]))
    found = path_lengths(model)
    np.testing.assert_allclose(found["probability"], [1 / 3, 2 / 3])


def test_units_are_blocks_or_layers():
    with pytest.raises(ValueError, match="Received: unit='modules'"):
        path_lengths(dense_nets.build(2), unit="modules")


JOINS = {
    "difference": lambda x, f: x - f,
    "average": lambda x, f: keras.layers.Average()([x, f]),
    "maximum": lambda x, f: keras.layers.Maximum()([x, f]),
    "no join": lambda x, f: f,
}


@pytest.mark.parametrize("join", JOINS)
def test_a_model_without_a_block_is_refused(join):
    x = inputs = keras.Input((4,))
    for _ in range(2):
        x = JOINS[join](x, keras.layers.Dense(4, "relu")(x))
    model = keras.Model(inputs, x)
    with pytest.raises(ValueError, match="`model`.*no block was found"):
        path_lengths(model)


def test_counts_of_a_deep_network_are_exact():
    """Of a depth whose counts no float holds, by sets of 64 bits and more."""
    counts = count_paths(dense_nets.build(130))
    assert counts == {k: math.comb(130, k) for k in range(131)}
