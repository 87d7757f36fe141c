"""Whether each change to a recorded graph still finds what it is for.

The graphs' names are PyTorch's: another version could take the speed away, and
all results would stay the same.
"""

import keras
import numpy as np
import pytest

import keras_resfam
from torch_compiler import TORCH, torch_only, uncompiled_graphs

if not TORCH:
    pytest.skip("of PyTorch's compiler", allow_module_level=True)

import torch

from keras_resfam.compiling import norm_by_image, passes, winograd

aten = torch.ops.aten
X = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")


def calls(graph, target):
    return len(graph.find_nodes(op="call_function", target=target))


@pytest.fixture
def watched(monkeypatch):
    """What each pass has found and left of its operation, by its name."""
    monkeypatch.setattr(winograd, "_CHANNELS", 8)
    monkeypatch.setattr(winograd, "_TILES", 1)
    monkeypatch.setattr(winograd, "_compiled", lambda function: function)
    monkeypatch.setattr(
        torch.backends.cpu, "get_cpu_capability", lambda: "AVX2"
    )
    uncompiled_graphs(monkeypatch)
    counts = {}

    def watch(module, name, *targets):
        own = getattr(module, name)

        def count(graph):
            return sum(calls(graph, target) for target in targets)

        def counted(graph, *arguments):
            before = count(graph)
            own(graph, *arguments)
            counts[name, module] = before, count(graph)

        monkeypatch.setattr(module, name, counted)

    convolutions = aten.conv2d.default, aten.conv2d.padding
    mark = passes.torch_mark()
    watch(passes, "leave_out_checks", aten._assert_tensor_metadata.default)
    watch(passes, "put_back_gradients", mark)
    watch(passes, "permute_first", aten.permute.default)
    watch(norm_by_image, "put_in", aten.batch_norm.default)
    watch(winograd, "put_in", *convolutions)
    return counts


@torch_only
def test_all_of_them_find_something_in_a_network_that_trains(watched):
    model = keras_resfam.OrthoPlainNet(depth=8, input_shape=(8, 8, 3))
    keras_resfam.compiled(model)(X, training=True)
    kinds = [type(layer).__name__ for layer in model.layers]
    found, left = watched["leave_out_checks", passes]
    assert found > 0 and left == 0
    found, left = watched["put_back_gradients", passes]
    assert (found, left) == (kinds.count("GradientModulation"), 0)
    found, left = watched["put_in", norm_by_image]
    assert (found, left) == (kinds.count("BatchNormalization"), 0)
    # The first has three channels, two have strides, one has 2 x 2 pixels.
    found, left = watched["put_in", winograd]
    assert (found, left) == (kinds.count("Conv2D"), 4)


@torch_only
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("builder", ["DMRNet", "ResNet", "WideResNet"])
def test_permutations_meet_and_cancel(builder, training, watched):
    """Those of images, of which every convolution has two, from each other."""
    depth = 10 if builder == "WideResNet" else 8
    build = getattr(keras_resfam, builder)
    model = build(depth=depth, input_shape=(8, 8, 3))
    keras_resfam.compiled(model)(X, training=training)
    found, left = watched["permute_first", passes]
    assert left < 0.75 * found


@torch_only
@pytest.mark.parametrize(
    "options", [{}, {"padding": "same"}, {"groups": 3}], ids=str
)
def test_pixels_are_taken_before_thin_pointwise_kernels(options, monkeypatch):
    """Of Keras's own layers, whose gradient damages memory with strides."""
    graphs = uncompiled_graphs(monkeypatch)
    keras.utils.set_random_seed(0)
    thin = keras.layers.Conv2D(15, 1, strides=(2, 3), **options)
    wide = keras.layers.Conv2D(16, 3, strides=2)
    model = keras.Sequential([keras.Input((8, 8, 3)), thin, wide])
    found = keras_resfam.compiled(model)(X)
    np.testing.assert_allclose(
        *(y.detach().numpy() for y in (found, model(X))), rtol=1e-4, atol=1e-6
    )
    (graph,) = graphs
    strides = [
        node.args[3]
        for node in graph.find_nodes(
            op="call_function", target=aten.conv2d.default
        )
    ]
    assert strides == [[1, 1], [2, 2]]
