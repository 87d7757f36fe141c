import itertools
import math
import warnings

import keras
import numpy as np
import pytest

import dense_nets
import keras_resfam
import tiny_run
from families import images, predict, randomize
from keras_resfam.analysis import (
    delete_blocks,
    duplicate_blocks,
    lesion_study,
    path_lengths,
    permute_blocks,
    read_records,
    residual_blocks,
)
from keras_resfam.analysis.execution import BlockRunner
from keras_resfam.analysis.lesions import _kendall_tau, _plans
from keras_resfam.analysis.pictures import _positions_of_branches
from keras_resfam.analysis.plain import chain_of
from keras_resfam.analysis.surgery import deletion, intact, permutation

FEW = dict(
    max_deletions=2,
    max_swaps=2,
    max_repetitions=2,
    trials=2,
    batch_size=8,
    verbose=0,
)


@pytest.fixture(scope="module")
def model():
    return dense_nets.build()


@pytest.fixture(scope="module")
def records(model):
    return lesion_study(model, dense_nets.data(), **FEW)


def error(probabilities, labels):
    return 100 * np.mean(probabilities.argmax(-1) != labels)


@pytest.mark.parametrize("nested", [False, True])
def test_images_that_were_scaled_before_are_warned_of(nested):
    network = keras_resfam.DMRNet(depth=8, input_shape=(8, 8, 3), classes=4)
    if nested:
        network = keras.Sequential([network, keras.layers.Softmax()])
    x, y = images(4, (8, 8, 3)).astype("float32"), np.arange(4)
    none = FEW | {f"max_{k}": 0 for k in ("deletions", "swaps", "repetitions")}
    with pytest.warns(UserWarning, match="the means 125.3, .* from 0.* to 1$"):
        lesion_study(network, (x / x.max(), y), **none)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        lesion_study(network, (x, y), **none)
        lesion_study(network, (x.astype("uint8"), y), **none)


def test_a_deleted_branch_is_the_one_of_its_row():
    keras.utils.set_random_seed(0)
    network = randomize(keras_resfam.DMRNet(depth=8, input_shape=(8, 8, 3)))
    x = images(40, (8, 8, 3)).astype("float32")
    y = predict(network, x).argmax(-1)
    few = FEW | {"max_deletions": 0, "max_swaps": 0, "max_repetitions": 0}
    records = lesion_study(network, (x, y), branches=True, **few)
    rows = [row for row in records if row["study"] == "branch"]
    assert len(rows) == 6
    for row in rows:
        _, name = row["blocks"].split()
        expected = error(predict(delete_blocks(network, [name]), x), y)
        assert row["error"] == pytest.approx(expected), name
    assert len({row["error"] for row in rows}) > 2
    blocks = [row for row in records if row["study"] == "deletion"]
    assert _positions_of_branches(blocks, rows) == [1, 1, 2, 2, 3, 3]


def test_every_lesion_against_numpy(model):
    reference = dense_nets.Reference(model)
    x, _ = dense_nets.data()
    runner = BlockRunner(chain_of(model))
    batch = keras.ops.convert_to_tensor(x)
    outputs = runner.predict_single_deletions(
        batch, [(k, ()) for k in range(8)]
    )
    for k, output in enumerate(outputs):
        order = [other for other in range(8) if other != k]
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(output),
            reference.predict(x, order),
            atol=1e-4,
        )
    order = [0, 5, 2, 3, 4, 1, 7, 6]
    swapped = runner.predict(batch, permutation(order))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(swapped),
        reference.predict(x, order),
        atol=1e-4,
    )


def test_records_against_models_built_one_by_one(model, records):
    x, y = dense_nets.data()
    blocks = [block.name for block in residual_blocks(model)]
    build = {
        "intact": lambda names: model,
        "deletion": lambda names: delete_blocks(model, names),
        "deletions": lambda names: delete_blocks(model, names),
        "repetitions": lambda names: duplicate_blocks(model, names),
        "swaps": lambda names: permute_blocks(model, swapped(blocks, names)),
    }
    assert len(records) == 1 + 8 + 3 * 2 * 2
    assert len({row["error"] for row in records}) > 5
    for row in records:
        lesioned = build[row["study"]](row["blocks"].split())
        outputs = keras.ops.convert_to_numpy(lesioned(x, training=False))
        expected = error(outputs, y)
        assert row["error"] == pytest.approx(expected, abs=1e-4)
        assert row["examples"] == 20


def swapped(order, names):
    order = list(order)
    for a, b in zip(names[::2], names[1::2], strict=True):
        a, b = order.index(a), order.index(b)
        order[a], order[b] = order[b], order[a]
    return order


def test_all_single_deletions_cost_half_of_a_naive_loop():
    model = dense_nets.build(54)
    x = keras.ops.convert_to_tensor(dense_nets.data()[0])
    runner = BlockRunner(chain_of(model))
    runner.predict_single_deletions(x, [(k, ()) for k in range(54)])
    assert runner.evaluations == 54 * 55 // 2  # 27.5 times all blocks


def test_blocks_whose_dropout_has_a_seed_of_its_own_are_of_a_kind():
    x = keras.ops.convert_to_tensor(np.zeros((2, 8, 8, 1), "float32"))
    compiled = []
    for dropout in 0.0, 0.3:
        arguments = {"depth": 22, "width": 1, "dropout": dropout}
        chain = chain_of(tiny_run.network("WideResNet", arguments))
        runner = BlockRunner(chain)
        runner.predict(x, intact(chain))
        compiled.append(len(runner._compiled))
    # The stem, the head, the block and in both other stages also the block
    # that halves, with the activation that its shortcut shares.
    assert compiled == [9, 9]


def test_no_lesion_is_compiled(monkeypatch):
    model = tiny_run.network("ResNet", {"depth": 26})
    chain = chain_of(model)
    x = keras.ops.convert_to_tensor(np.zeros((2, 8, 8, 1), "float32"))
    traces = []
    stateless_call = keras.Model.stateless_call

    def counted(self, *args, **kwargs):
        traces.append(self)
        return stateless_call(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "stateless_call", counted)
    runner = BlockRunner(chain)
    runner.predict(x, intact(chain))
    runner.predict_single_deletions(x, [(k, ()) for k in range(12)])
    first = len(traces)
    # The stem, the head, the block and its rest in stage 1; in both other
    # stages also the block that halves, and its rest.
    assert first == (0 if keras.backend.backend() == "torch" else 12)
    assert len(runner._compiled) == 12
    most = dict.fromkeys(("deletions", "swaps", "repetitions"), 3)
    plans = _plans(chain, most, trials=2, branches=False, seed=0)
    layouts = [plan["layout"] for plan in plans if "layout" in plan]
    assert len(layouts) == 1 + 3 * 3 * 2
    for layout in layouts:
        runner.predict(x, layout)
    assert len(traces) == first
    assert len(runner._compiled) == 12


def test_calls_of_one_layer_are_told_from_calls_of_two():
    a, b, c, d = (keras.layers.Dense(4, name=f"dense{k}") for k in range(4))
    x = inputs = keras.Input((4,))
    x = keras.layers.Add(name="one")([x, a(b(a(x)))])
    x = keras.layers.Add(name="two")([x, d(d(c(x)))])
    model = keras.Model(inputs, x)
    chain = chain_of(model)
    data = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    found = BlockRunner(chain).predict(
        keras.ops.convert_to_tensor(data), intact(chain)
    )
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found),
        keras.ops.convert_to_numpy(model(data)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_functions_of_one_name_are_told_apart():
    def scaled(factor):
        def scale(x):
            return factor * x

        return scale

    h = inputs = keras.Input((3,))
    for factor in (0.5, 0.1):
        f = keras.layers.Dense(3, use_bias=False)(h)
        f = keras.layers.Lambda(scaled(factor))(f)
        f = keras.layers.Activation(scaled(2 * factor))(f)
        h = keras.layers.Add()([h, f])
    model = keras.Model(inputs, h)
    chain = chain_of(model)
    x = keras.ops.convert_to_tensor(np.eye(3, dtype="float32"))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(
            BlockRunner(chain).predict(x, intact(chain))
        ),
        keras.ops.convert_to_numpy(model(x)),
        atol=1e-6,
    )


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50V2"])
def test_networks_of_keras_applications(name):
    model = randomize(
        getattr(keras.applications, name)(
            weights=None, input_shape=(32, 32, 3), classes=5
        )
    )
    x = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3))
    x = x.astype("float32")
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    same = delete_blocks(model, [])(x, training=False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(same), expected)
    lost = residual_blocks(model)[3].name
    lesioned = delete_blocks(model, [lost])(x, training=False)
    lesioned = keras.ops.convert_to_numpy(lesioned)
    assert np.any(lesioned != expected)
    chain = chain_of(model)
    found = BlockRunner(chain).predict(
        keras.ops.convert_to_tensor(x), deletion(chain, [lost])
    )
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found), lesioned, atol=1e-4
    )
    n = len(chain.units)
    lengths = path_lengths(model)
    binomial = [math.comb(n, k) / 2**n for k in range(n + 1)]
    np.testing.assert_allclose(lengths["probability"], binomial)


def test_blockwise_run_of_merge_and_run_network():
    model = tiny_run.network(
        arguments={"depth": 14}, classifier_activation=None
    )
    chain = chain_of(model)
    x = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1)).astype("float32")
    runner = BlockRunner(chain)
    lesions = [(1, ()), (1, ("stage1_block2_branch2",)), (5, ())]
    outputs = runner.predict_single_deletions(
        keras.ops.convert_to_tensor(x), lesions
    )
    lost = ["stage1_block2", "stage1_block2_branch1", "stage3_block2"]
    for name, output in zip(lost, outputs, strict=True):
        expected = delete_blocks(model, [name])(x, training=False)
        expected = keras.ops.convert_to_numpy(expected)
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(output),
            expected,
            atol=1e-4 * np.abs(expected).max(),
        )


def test_swaps_leave_the_firsts_and_kendalls_tau_counts_pairs():
    model = tiny_run.network("ResNet", {"depth": 26, "preactivation": True})
    data = np.zeros((2, 8, 8, 1)), np.zeros(2, int)
    rows = lesion_study(
        model,
        data,
        max_deletions=0,
        max_repetitions=0,
        max_swaps=3,
        trials=4,
        verbose=0,
    )
    rows = [row for row in rows if row["study"] == "swaps"]
    assert len(rows) == 12
    names = [block.name for block in residual_blocks(model)]
    for row in rows:
        blocks = row["blocks"].split()
        assert not {"stage1_block1", "stage2_block1", "stage3_block1"} & {
            *blocks
        }
        for a, b in zip(blocks[::2], blocks[1::2], strict=True):
            assert a[:6] == b[:6]
        now = list(range(len(names)))
        for a, b in zip(blocks[::2], blocks[1::2], strict=True):
            a, b = (now.index(names.index(name)) for name in (a, b))
            now[a], now[b] = now[b], now[a]
        assert row["kendall_tau"] == pytest.approx(tau(now))


def tau(order):
    pairs = list(itertools.combinations(order, 2))
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs)


def test_kendalls_tau_of_one_distant_swap():
    order = list(range(54))
    order[19], order[35] = order[35], order[19]
    # 2 * 15 + 1 of the 1431 pairs are turned round.
    assert _kendall_tau(order) == pytest.approx(1 - 2 * 31 / 1431)


def test_study_goes_on_where_it_stopped(model, records, tmp_path):
    path = tmp_path / "lesions.csv"
    data = dense_nets.data()
    full = lesion_study(model, data, output=path, **FEW)
    assert full == records == sorted(read_records(path), key=records.index)
    lines = path.read_text().splitlines(keepends=True)
    mark = next(k for k, line in enumerate(lines) if ",deletions,1,0" in line)
    fields = lines[mark].split(",")
    fields[list(full[0]).index("error")] = "12.5"
    path.write_text("".join([*lines[:mark], ",".join(fields)]))
    again = lesion_study(model, data, output=path, **FEW)
    changed = [new for new, old in zip(again, full, strict=True) if new != old]
    assert [row["error"] for row in changed] == [12.5]
    assert len(path.read_text().splitlines()) == len(lines)


def test_single_deletions_go_on_within_a_pass(model, records, tmp_path):
    path = tmp_path / "lesions.csv"
    data, batch = dense_nets.data(), BlockRunner.predict_single_deletions
    seen = []

    def counted(self, images, lesions):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(images))
        return batch(self, images, lesions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockRunner, "predict_single_deletions", counted)
        with pytest.raises(KeyboardInterrupt):
            lesion_study(model, data, output=path, **FEW)
        assert seen == [8, 8]
        seen[:] = [None]  # room for one batch more, of three
        assert lesion_study(model, data, output=path, **FEW) == records
    assert seen == [None, 8]
    assert [p.name for p in tmp_path.iterdir()] == ["lesions.csv"]
    # Counts of other lesions are not taken for these.
    partial = tmp_path / "other.csv.partial"
    partial.write_text('{"study": {}, "batches": 2, "wrong": [9]}')
    other = lesion_study(model, data, output=tmp_path / "other.csv", **FEW)
    assert other == records


def test_half_a_line_is_measured_again(model, records, tmp_path):
    path = tmp_path / "lesions.csv"
    lesion_study(model, dense_nets.data(), output=path, **FEW)
    whole = path.read_bytes()
    last = len(whole) - whole.rindex(b"\n", 0, -1)
    for lost in (1, 2, 5, last - 1, last, len(whole) - 3):
        path.write_bytes(whole[:-lost])
        again = lesion_study(model, dense_nets.data(), output=path, **FEW)
        assert again == records
        assert len(path.read_bytes()) == len(whole)


def test_longer_study_holds_the_shorter_one(model, records):
    longer = FEW | dict(max_deletions=3, trials=3)
    rows = lesion_study(model, dense_nets.data(), **longer)
    assert all(row in rows for row in records)
    other = lesion_study(model, dense_nets.data(), seed=1, **FEW)
    assert [r["blocks"] for r in other] != [r["blocks"] for r in records]


def test_only_what_is_asked_for_is_returned(model, records, tmp_path):
    path = tmp_path / "lesions.csv"
    lesion_study(model, dense_nets.data(), output=path, **FEW)
    less = FEW | dict(max_deletions=0, trials=1)
    rows = lesion_study(model, dense_nets.data(), output=path, **less)
    for row in records:
        alone = row["study"] in ("intact", "deletion")
        asked = alone or row["study"] != "deletions" and row["trial"] == 0
        assert (row in rows) == asked
    assert read_records(path) != rows


def test_the_name_that_keras_makes_is_no_other_network(tmp_path):
    path = tmp_path / "lesions.csv"
    few = FEW | dict(max_deletions=0, max_swaps=0, max_repetitions=0)
    found = []
    for _ in range(2):
        first = dense_nets.build(2)
        model = keras.Model(first.input, first.output)  # functional_<number>
        found.append(lesion_study(model, dense_nets.data(), output=path, **few))
    assert found[0] == found[1]
    with pytest.raises(ValueError, match="'network': 'mine'"):
        lesion_study(model, dense_nets.data(), output=path, name="mine", **few)
    longer = duplicate_blocks(model, ["stage1_block1"])  # of the same weights
    with pytest.raises(ValueError, match="'network': 'functional_.*repeated"):
        lesion_study(longer, dense_nets.data(), output=path, **few)


def test_records_of_other_blocks_are_refused(model, records, tmp_path):
    path = tmp_path / "lesions.csv"
    lesion_study(model, dense_nets.data(), output=path, **FEW)
    path.write_text(path.read_text().replace("stage1_block2", "other"))
    with pytest.raises(ValueError, match="'stage1_block2' for .*'other'"):
        lesion_study(model, dense_nets.data(), output=path, **FEW)


def test_masks_are_refused():
    inputs = keras.Input((5, 3))
    h = keras.layers.Masking(name="masks")(inputs)
    h = keras.layers.Add()([h, keras.layers.Dense(3)(h)])
    h = keras.layers.GlobalAveragePooling1D()(h)
    with pytest.raises(ValueError, match="create masks.*the layer 'masks'"):
        lesion_study(
            keras.Model(inputs, h), (np.ones((2, 5, 3)), np.zeros(2, int))
        )


def test_records_of_another_study_are_refused(model, tmp_path):
    path = tmp_path / "lesions.csv"
    data = dense_nets.data()
    few = FEW | dict(max_deletions=0, max_swaps=0, max_repetitions=0)
    lesion_study(model, data, output=path, **few)
    with pytest.raises(ValueError, match="'seed': 7"):
        lesion_study(model, data, output=path, seed=7, **few)
    other = dense_nets.build(scale=2.0)
    with pytest.raises(ValueError, match="'weights': '.* of {.*'weights'"):
        lesion_study(other, data, output=path, **few)
    images, labels = data
    with pytest.raises(ValueError, match="'data': '.* of {.*'data'"):
        lesion_study(model, (images, labels[::-1]), output=path, **few)
    for other in ("epoch,loss\n1,0.5", '{"error": 0.5}'):
        path.write_text(other)
        with pytest.raises(ValueError, match="columns network.*Received"):
            lesion_study(model, data, output=path, **few)
        assert path.read_text() == other


def test_plain_networks_lose_layers():
    model = tiny_run.network("OrthoPlainNet", {"depth": 14})
    data = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 1)), np.arange(5)
    few = FEW | dict(max_deletions=0, max_swaps=0, max_repetitions=0)
    rows = lesion_study(model, data, **few)
    assert [row["blocks"] for row in rows[1:3]] == [
        "stage1_block1_conv1",
        "stage1_block1_conv2",
    ]
    assert len(rows) == 11


def test_data_may_be_batches_and_one_hot(model, records):
    x, y = dense_nets.data()
    assert lesion_study(model, [x, y], **FEW) == records
    y = np.eye(dense_nets.CLASSES)[y]
    for size in (6, 10):
        batches = [
            (x[k : k + size], y[k : k + size]) for k in range(0, 20, size)
        ]
        assert lesion_study(model, batches, **FEW) == records
        assert lesion_study(model, tuple(batches), **FEW) == records


def test_data_that_do_not_fit_are_refused(model):
    x, y = dense_nets.data()
    with pytest.raises(ValueError, match="20 images, 19 labels"):
        lesion_study(model, (x, y[:-1]), **FEW)
    for labels in (
        np.arange(20) % 4 + 1,
        y + 0.5,
        np.where(y, y, np.nan),
        np.stack([y, y], 1),
        np.eye(7)[y],
        np.eye(4)[y] * np.nan,
        np.eye(4)[y] * (y > 0)[:, None],
    ):
        with pytest.raises(ValueError, match="from 0 to 3.*Received: lab"):
            lesion_study(model, (x, labels), **FEW)
    with pytest.raises(ValueError, match="at least one.*0 images"):
        lesion_study(model, [], **FEW)
    with pytest.raises(ValueError, match="pair .*a tuple of 3 arrays"):
        lesion_study(model, (x, y, np.ones(20)), **FEW)
    for wrong, told in (
        (None, "data=None"),
        ([{"image": x, "label": y}], "batches, of which one is a dict"),
        ({"image": x, "label": y}, "batches, of which one is a str"),
        (list(zip(x, y, strict=True)), r"shapes \(5,\) and \(\)"),
        ((x, y.astype(str)), "a ndarray without numbers"),
        ([(x, y), (x[:, 1:], y)], r"of the shapes \[\(\(4,"),
    ):
        with pytest.raises(ValueError, match=f"or batches of such.*{told}"):
            lesion_study(model, wrong, **FEW)
    for wrong in (x[:, :-1], x[..., None]):
        with pytest.raises(ValueError, match="Received: images of shape"):
            lesion_study(model, (wrong, y), **FEW)
    for wrong in (np.nan, np.inf):
        broken = np.where(np.arange(20)[:, None] == 3, wrong, x)
        with pytest.raises(ValueError, match="5 of 100 values that are not"):
            lesion_study(model, (broken, y), **FEW)
    with pytest.raises(ValueError, match="branches='no'"):
        lesion_study(model, (x, y), branches="no", **FEW)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_no_class(wrong, tmp_path):
    model = dense_nets.build(3, activation=None)
    top = model.get_layer("predictions")
    top.activation = keras.activations.linear
    top.set_weights([top.get_weights()[0] * wrong])
    path = tmp_path / "lesions.csv"
    with pytest.raises(ValueError, match=r"\(intact\).* for 8 of 8 images"):
        lesion_study(model, dense_nets.data(), output=path, **FEW)
    assert read_records(path) == []


def test_a_lesion_that_overflows_is_named():
    """Without the first block, `x - x`, the others meet no zeros."""
    h = inputs = keras.Input((4,))
    for name, factor in (("first", -1.0), ("second", 1e30)):
        branch = keras.layers.Dense(4, use_bias=False, name=f"{name}_f")
        h = keras.layers.Add(name=f"{name}_add")([h, branch(h)])
        branch.set_weights([factor * np.eye(4)])
    top = keras.layers.Dense(4, use_bias=False)
    model = keras.Model(inputs, top(h))
    top.set_weights([1e30 * np.eye(4)])
    data = np.ones((3, 4), "float32"), np.zeros(3, int)
    few = FEW | {"max_deletions": 0, "max_repetitions": 0}
    with pytest.raises(ValueError, match=r"\(deletion first\).* for 3 of 3"):
        lesion_study(model, data, **few)


def test_data_of_another_type_are_the_same(model, records, tmp_path):
    x, y = dense_nets.data()
    path = tmp_path / "lesions.csv"
    lesion_study(model, (x, y), output=path, **FEW)
    before = path.read_bytes()
    others = x.astype("float64"), y[:, None].astype("float32")
    assert lesion_study(model, others, output=path, **FEW) == records
    assert path.read_bytes() == before


def test_what_has_no_classes_is_refused():
    h = inputs = keras.Input((3,))
    h = keras.layers.Add()([h, keras.layers.Dense(3)(h)])
    yes = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(h))
    with pytest.raises(ValueError, match=r"two classes.*\(None, 1\)"):
        lesion_study(yes, (np.zeros((2, 3)), np.zeros(2, int)))


@pytest.mark.parametrize(
    "name", ["max_deletions", "max_swaps", "max_repetitions", "trials"]
)
def test_wrong_counts_are_refused(model, name):
    for value in (-1, 1.5):
        with pytest.raises(ValueError, match=f"`{name}`.*{name}={value}"):
            lesion_study(model, dense_nets.data(), **{name: value})


@pytest.mark.parametrize("name, value", [("batch_size", 0), ("seed", -1)])
def test_wrong_numbers_are_refused(model, name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*{name}={value}"):
        lesion_study(model, dense_nets.data(), **{name: value})


def test_layers_that_have_adapted_keep_each_its_own():
    """Blocks are compiled once for all that compute the same."""
    draw = np.random.default_rng(0)
    inputs = x = keras.Input((8,))
    keras.utils.set_random_seed(0)
    for scale in (10, 1, 0.1):
        normalization = keras.layers.Normalization()
        normalization.adapt(draw.normal(1, scale, size=(100, 8)))
        branch = keras.layers.Dense(8)(normalization(x))
        x = keras.layers.Add()([x, branch])
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    x = draw.normal(size=(200, 8)).astype("float32")
    labels = predict(model, x).argmax(axis=1)
    found = lesion_study(model, (x, labels), **(FEW | {"max_deletions": 0}))
    expected = [model]
    expected += [delete_blocks(model, [b]) for b in residual_blocks(model)]
    errors = [
        100 * np.mean(predict(m, x).argmax(axis=1) != labels) for m in expected
    ]
    assert errors[0] == 0 < min(errors[1:])
    np.testing.assert_allclose([row["error"] for row in found[:4]], errors)
