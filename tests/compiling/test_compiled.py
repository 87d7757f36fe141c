"""Compiled models against the models that they are of."""

from concurrent import futures

import keras
import numpy as np
import pytest

import keras_resfam
from keras_resfam.backends.gradients import recorded
from keras_resfam.layers import GradientModulation
from policies import dtype_policy
from torch_compiler import TORCH, torch_only, uncompiled_graphs

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 255, (16, 8, 8, 3)).astype("float32")
Y = RNG.integers(0, 10, 16)


def network(builder="WideResNet", **arguments):
    keras.utils.set_random_seed(0)
    wide = builder == "WideResNet"
    least = {"depth": 10, "width": 1} if wide else {"depth": 8}
    return getattr(keras_resfam, builder)(
        input_shape=(8, 8, 3), **{**least, **arguments}
    )


def trained(model, runner, steps=2):
    """What `fit`, `evaluate` and `predict` give, and the weights at the end."""
    runner.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        "sparse_categorical_crossentropy",
    )
    history = runner.fit(
        X[: 8 * steps], Y[: 8 * steps], batch_size=8, shuffle=False, verbose=0
    )
    return [
        history.history["loss"],
        runner.evaluate(X, Y, batch_size=8, verbose=0),
        runner.predict(X, batch_size=8, verbose=0),
        *model.get_weights(),
    ]


@torch_only
@pytest.mark.parametrize(
    "builder, arguments",
    [
        ("DMRNet", {}),
        ("OrthoPlainNet", {"modulation": False, "orthonormality": 0.1}),
    ],
)
def test_computes_and_learns_the_same(builder, arguments):
    """Averages of batch normalization and penalties of kernels take part."""
    plain = network(builder, **arguments)
    own = network(builder, **arguments)
    expected = trained(plain, plain)
    found = trained(own, keras_resfam.compiled(own))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    start = network(builder, **arguments)
    assert np.abs(start.get_weights()[0] - found[3]).max() > 1e-4


@torch_only
def test_modulates_the_error_as_well():
    """What works in the backward pass is in no record of a call."""
    plain, own, without = (
        network("OrthoPlainNet", modulation=modulation)
        for modulation in (True, True, False)
    )
    expected = trained(plain, plain)
    found = trained(own, keras_resfam.compiled(own))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    other = trained(without, without)
    assert np.abs(other[3] - expected[3]).max() > 1e-3


@torch_only
def test_computes_in_mixed_precision_too():
    with dtype_policy("mixed_bfloat16"):
        plain, own = network(), network()
    expected = trained(plain, plain)
    found = trained(own, keras_resfam.compiled(own))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.02)
    assert np.abs(network().get_weights()[0] - found[3]).max() > 1e-4


@torch_only
def test_its_program_does_the_casting(monkeypatch):
    """Not Keras, weight by weight, before each call."""
    from keras_resfam.compiling import program as compiling

    types = set()
    record = compiling.record

    def watched(model, *arguments):
        types.update(str(v.value.dtype) for v in model.variables)
        return record(model, *arguments)

    monkeypatch.setattr(compiling, "record", watched)
    with dtype_policy("mixed_bfloat16"):
        fast = keras_resfam.compiled(network())
        fast.compile("sgd", "sparse_categorical_crossentropy")
        fast.train_on_batch(X[:8], Y[:8])
    assert types == {"torch.float32"}


@torch_only
def test_permutations_come_before_what_works_by_element():
    """There they meet, and cancel, and nothing is cast in another order."""
    import torch

    from keras_resfam.compiling.passes import permute_first

    aten = torch.ops.aten

    class Program(torch.nn.Module):
        def forward(self, x, kernel, scale):
            a = torch.sin(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            b = torch.relu(a).to(torch.bfloat16).float() * scale
            c = torch.cos(b.permute(0, -1, 1, 2))
            d = torch.cos((a + b).permute(0, 3, 1, 2))
            half = kernel.to(torch.bfloat16).to(torch.float32)
            return c, d, b, half.permute(1, 0) @ half, b + kernel[0]

    inputs = torch.randn(2, 3, 4, 5), torch.randn(6, 5), torch.tensor(2.0)
    module = torch.export.export(Program(), inputs, strict=False).module()
    expected = module(*inputs)
    permute_first(module.graph)
    module.recompile()
    for ours, theirs in zip(module(*inputs), expected, strict=True):
        assert torch.equal(ours, theirs)
    for node in module.graph.find_nodes(
        op="call_function", target=aten.cos.default
    ):
        assert node.args[0].target in (aten.mul.Tensor, aten.add.Tensor)
    (product,) = module.graph.find_nodes(
        op="call_function", target=aten.matmul.default
    )
    assert product.args[0].target == aten.to.dtype


@torch_only
@pytest.mark.parametrize("training", [False, True])
def test_what_is_in_its_program_is_used(training, monkeypatch):
    """Checks of types among it would count as uses of what they look at."""
    import torch

    from keras_resfam.compiling import norm_by_image

    aten = torch.ops.aten
    graphs = uncompiled_graphs(monkeypatch)
    keras_resfam.compiled(network("DMRNet"))(X[:2], training=training)
    (graph,) = graphs
    assert all(x.users for x in graph.nodes if x.op == "call_function")
    target = norm_by_image.normalize if training else aten.batch_norm.default
    norms = graph.find_nodes(op="call_function", target=target)
    assert norms
    for norm in norms:
        # In training, of the outputs and two moments the outputs.
        outputs = next(iter(norm.users)) if training else norm
        assert len(outputs.users) == 1


@torch_only
def test_computes_in_the_types_of_the_model():
    """Whatever the policy is where the model is compiled."""
    model = network()
    with dtype_policy("mixed_bfloat16"):
        fast = keras_resfam.compiled(model)
    found, expected = (m.predict(X, verbose=0) for m in (fast, model))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@torch_only
def test_all_variables_stay_contiguous():
    """As PyTorch's own tools, and its exports, expect."""
    model = network()
    fast = keras_resfam.compiled(model)
    trained(model, fast, steps=1)
    for variable in [*model.variables, *fast.optimizer.variables]:
        assert variable.value.is_contiguous(), variable.path


@torch_only
def test_frozen_weights_stay():
    model = network()
    fast = keras_resfam.compiled(model)
    before = model.get_weights()
    for layer in model.layers[:-1]:
        layer.trainable = False
    trained(model, fast)
    *frozen, kernel, bias = zip(before, model.get_weights(), strict=True)
    for old, new in frozen:
        np.testing.assert_array_equal(old, new)
    assert not np.array_equal(*kernel) and not np.array_equal(*bias)


@torch_only
def test_weights_that_are_frozen_later_stay_too():
    model = network()
    fast = keras_resfam.compiled(model)
    trained(model, fast, steps=1)
    for layer in model.layers[:-1]:
        layer.trainable = False
    before = model.get_weights()
    trained(model, fast, steps=1)
    *frozen, kernel, bias = zip(before, model.get_weights(), strict=True)
    for old, new in frozen:
        np.testing.assert_array_equal(old, new)
    assert not np.array_equal(*kernel) and not np.array_equal(*bias)


@torch_only
def test_weights_that_are_quantized_later_are_those_that_count():
    model = network()
    fast = keras_resfam.compiled(model)
    model.trainable = False
    before = fast.predict(X, batch_size=8, verbose=0)
    model.quantize("int8")
    expected = model.predict(X, batch_size=8, verbose=0)
    assert np.abs(expected - before).max() > 1e-5
    found = fast.predict(X, batch_size=8, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@torch_only
@pytest.mark.parametrize("nested", [False, True])
def test_statistics_that_are_frozen_later_stay_too(nested):
    """Of a normalization without weights, which no list of weights tells of."""
    inputs = keras.Input((8, 8, 3))
    normalization = keras.layers.BatchNormalization(scale=False, center=False)
    body = keras.Model(inputs, normalization(inputs))
    x = body(inputs) if nested else body.output
    outputs = keras.layers.Dense(10, "softmax")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    fast = keras_resfam.compiled(model)
    trained(model, fast, steps=1)
    normalization.trainable = False
    before = normalization.get_weights()
    trained(model, fast, steps=1)
    for old, new in zip(before, normalization.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@torch_only
def test_modulation_that_has_ended_does_not_act(monkeypatch):
    import torch

    uncompiled_graphs(monkeypatch)
    inputs = keras.Input((6,))
    low = keras.layers.Dense(6)
    x, link = GradientModulation(1.0)(low(inputs))
    x = keras.layers.Dense(6)(x * 1e-3)
    x, _ = GradientModulation(1.0)(x, link)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    fast = keras_resfam.compiled(model)
    images = keras.ops.convert_to_tensor(np.eye(6, dtype="float32"))

    def largest_gradient():
        outputs = fast(images, training=True)
        (found,) = torch.autograd.grad(outputs.sum(), low.kernel.value)
        return float(found.abs().max())

    modulated = largest_gradient()
    for layer in model.layers:
        if isinstance(layer, GradientModulation):
            layer.trainable = False
    assert 100 < modulated / largest_gradient() < 10000


@torch_only
def test_one_program_serves_batches_of_one_shape(monkeypatch):
    from keras_resfam.compiling import program as compiling

    made = []
    record = compiling.record

    def counted(*arguments):
        made.append(arguments[1])
        return record(*arguments)

    monkeypatch.setattr(compiling, "record", counted)
    model = network()
    trained(model, keras_resfam.compiled(model))
    assert sorted(made) == [False, True]


@pytest.mark.skipif(TORCH, reason="PyTorch compiles")
def test_elsewhere_it_is_the_model_itself():
    model = network()
    assert keras_resfam.compiled(model) is model


@torch_only
def test_it_classifies_photographs(monkeypatch):
    uncompiled_graphs(monkeypatch)
    model = network()
    photograph, options = X[0].astype("uint8"), {"names": "cifar10", "top": 1}
    ((expected,),) = keras_resfam.predict_images(model, photograph, **options)
    fast = keras_resfam.compiled(model)
    ((found,),) = keras_resfam.predict_images(fast, photograph, **options)
    assert found == (expected[0], pytest.approx(expected[1], abs=1e-5))


@torch_only
def test_random_numbers_are_refused():
    model = network(dropout=0.3)
    fast = keras_resfam.compiled(model)
    fast.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="`model`.*random.*Received"):
        fast.train_on_batch(X[:8], Y[:8])


@torch_only
def test_a_compiled_model_within_is_refused():
    inputs = keras.Input((8, 8, 3))
    outputs = keras_resfam.compiled(network())(inputs)
    with pytest.raises(ValueError, match="`model`.*whole.*Received.*_compiled"):
        keras_resfam.compiled(keras.Model(inputs, outputs))


@torch_only
def test_another_thread_trains_while_one_records():
    model = network("OrthoPlainNet")
    trained(model, model)
    with recorded():
        with futures.ThreadPoolExecutor(1) as thread:
            loss = thread.submit(model.train_on_batch, X[:8], Y[:8]).result()
    assert np.isfinite(loss)


def tiny():
    """A network that is quickly compiled, with penalties of two kinds."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    x = keras_resfam.layers.Conv2D(4, 3, kernel_regularizer="l2")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))


@torch_only
def test_eight_threads_with_batches_of_several_sizes():
    """Whose first ones meet: torch.export takes one at a time."""
    model = tiny()
    fast = keras_resfam.compiled(model)
    x = RNG.normal(size=(5, 4, 4, 3)).astype("float32")
    expected = model.predict_on_batch(x)

    def serve(thread):
        for call in range(6):
            size = 1 + (thread + call) % 3 * 2
            found = fast.predict_on_batch(x[-size:])
            np.testing.assert_allclose(found, expected[-size:], rtol=1e-4)
        return thread

    with futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(serve, range(8))) == list(range(8))


@torch_only
def test_losses_are_those_of_the_thread_that_called():
    fast = keras_resfam.compiled(tiny())
    x = keras.ops.ones((2, 4, 4, 3))
    fast(x, training=True)
    before = fast.losses
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(fast, 2 * x, training=False).result()
        assert pool.submit(lambda: fast.losses).result() is not before
    assert fast.losses is before


class Around(keras.Model):
    """A model of another, as a training loop may have it."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def call(self, inputs, training=False):
        return self.inner(inputs, training=training)


@torch_only
@pytest.mark.parametrize("around", [lambda model: model, Around])
def test_losses_of_layers_count(around):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.ActivityRegularization(l2=1e-3)(keras.layers.Flatten()(x))
    outputs = keras.layers.Dense(
        10, "softmax", kernel_regularizer="l2", activity_regularizer="l2"
    )(x)
    model = keras.Model(inputs, outputs)
    start = model.get_weights()
    expected = trained(model, model)
    model.set_weights(start)
    found = trained(model, around(keras_resfam.compiled(model)))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@torch_only
@pytest.mark.parametrize("training", [False, True])
def test_losses_can_be_read(training):
    model = network("OrthoPlainNet", orthonormality=0.1)
    fast = keras_resfam.compiled(model)
    for _ in range(2):  # they do not add up
        fast(keras.ops.convert_to_tensor(X[:8]), training=training)
    found, expected = (sum(m.losses).detach() for m in (fast, model))
    assert float(found) == pytest.approx(float(expected))


@torch_only
def test_float16_has_its_loss_scaled():
    with dtype_policy("mixed_float16"):
        fast = keras_resfam.compiled(network())
    fast.compile("sgd", "sparse_categorical_crossentropy")
    assert isinstance(fast.optimizer, keras.optimizers.LossScaleOptimizer)


@torch_only
def test_a_refused_optimizer_leaves_its_types():
    with dtype_policy("mixed_bfloat16"):
        fast = keras_resfam.compiled(network())
    with pytest.raises(ValueError):
        fast.compile("no such optimizer")
    assert fast.compute_dtype == "float32"


@torch_only
def test_images_of_another_shape_are_refused():
    fast = keras_resfam.compiled(network())
    with pytest.raises(ValueError, match="expected shape"):
        fast.predict(X[:, :4], verbose=0)


@torch_only
def test_inputs_may_come_in_another_structure():
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    model = keras.Model([a, b], keras.layers.Subtract()([a, b]))
    fast = keras_resfam.compiled(model)
    x = {"a": np.ones((4, 8)), "b": np.full((4, 8), 3.0)}
    for inputs in ([x["a"], x["b"]], x, [x["a"], x["b"]]):
        np.testing.assert_allclose(fast.predict(inputs, verbose=0), -2.0)


@torch_only
def test_a_saved_one_is_the_model(tmp_path):
    model = network()
    keras_resfam.compiled(model).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@torch_only
def test_it_is_no_part_of_what_is_saved_or_cloned(tmp_path):
    inputs = keras.Input((8, 8, 3))
    fast = keras_resfam.compiled(network())
    around = keras.Model(inputs, fast(inputs))
    for call in (
        lambda: keras.models.clone_model(fast),
        lambda: around.save(tmp_path / "model.keras"),
    ):
        with pytest.raises(ValueError, match="compiled model.*Received"):
            call()


@torch_only
@pytest.mark.parametrize("step", ["train_step", "compute_loss"])
def test_own_training_is_refused(step):
    Own = type("Own", (keras.Model,), {step: lambda self, *data: None})
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=f"`model`.*Received.*{step}"):
        keras_resfam.compiled(Own(inputs, keras.layers.Flatten()(inputs)))


def test_what_is_no_graph_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="`model`.*Received"):
        keras_resfam.compiled(Own())
