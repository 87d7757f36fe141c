"""Parameters lie in memory as PyTorch's own tools expect them to."""

import keras
import numpy as np
import pytest

import keras_resfam
from families import ONE_OF_EACH, build, case_name, images, randomize

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch's own tools"
)
SHAPE = (8, 8, 3)
LABELS = np.array([1, 7])


def loss(network):
    import torch

    logits = network(images(shape=SHAPE).astype("float32"), training=False)
    return torch.nn.functional.cross_entropy(logits, torch.as_tensor(LABELS))


def logits_of(family, arguments):
    options = dict(input_shape=SHAPE, classifier_activation=None)
    return randomize(build(family, arguments, **options))


@pytest.mark.parametrize("family, arguments", ONE_OF_EACH, ids=case_name)
def test_all_variables_are_contiguous(family, arguments, tmp_path):
    network = logits_of(family, arguments)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    network.train_on_batch(images(shape=SHAPE), LABELS)
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    folded = keras_resfam.fold_batch_norm(network)
    stock = keras_resfam.to_stock_layers(network)
    for model in network, loaded, folded, stock:
        for variable in model.variables:
            assert variable.value.is_contiguous(), variable.path
    for variable in network.optimizer.variables:
        assert variable.value.is_contiguous(), variable.path


def test_gradients_lie_as_the_kernels_do():
    """PyTorch's fused optimizers want so."""
    network = logits_of("WideResNet", {"depth": 10, "width": 1})
    loss(network).backward()
    for variable in network.trainable_variables:
        value = variable.value
        assert value.grad.stride() == value.stride(), variable.path


def test_parameters_become_a_vector_and_back():
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

    network = logits_of("DMRNet", {"depth": 8})
    vector = parameters_to_vector(network.parameters())
    values = [w.reshape(-1) for w in network.get_weights()]
    np.testing.assert_array_equal(
        np.sort(vector.detach().numpy()), np.sort(np.concatenate(values))
    )
    vector_to_parameters(2 * vector.detach(), network.parameters())
    for now, value in zip(network.get_weights(), values, strict=True):
        np.testing.assert_array_equal(now.reshape(-1), 2 * value)


def test_lbfgs_steps_as_with_keras_layers():
    import torch

    network = logits_of("WideResNet", {"depth": 10, "width": 1})
    stock = keras_resfam.to_stock_layers(network)
    losses = []
    for model in network, stock:
        optimizer = torch.optim.LBFGS(
            [v.value for v in model.trainable_variables], lr=0.1, max_iter=3
        )

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(model)
            value.backward()
            return value

        optimizer.step(closure)
        losses.append(float(loss(model).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    fresh = logits_of("WideResNet", {"depth": 10, "width": 1})
    assert losses[0] < 0.9 * float(loss(fresh).detach())
