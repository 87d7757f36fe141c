"""Fast predictions for single images."""

import keras
import numpy as np

from keras_resfam import graphs
from keras_resfam.backends.inference import compiled_inference
from keras_resfam.compiling.model import Compiled
from keras_resfam.compiling.program import Programs
from keras_resfam.graphs.copies import checked


def predictor(model):
    """Returns a function that predicts with little overhead.

    For a single image, the overhead of `model.predict_on_batch` can take as
    long as the network itself. The returned function checks the arrays, and
    runs the model as one compiled program. On the PyTorch backend, this is the
    program of `compiled`, which requires a C++ compiler on a CPU. The first
    call with each shape takes longer, because the program is compiled.

    Several threads may call the function at the same time. It uses the weights
    that the model has at the time of the call. If the layers of the model
    change, as with `model.quantize`, create a new predictor.

    Args:
        model: functional or sequential `keras.Model`, or a model that
            `compiled` returned.

    Returns:
        A function that takes an array of shape `(batch, ...)`, or a list of
        arrays if the model has several inputs, and returns what
        `predict_on_batch` returns. It raises a `ValueError` if the number, the
        shapes or the types of the arrays do not fit the model.

    Raises:
        ValueError: If `model` is neither functional nor sequential, overrides
            `call`, or is not built.

    Example:

    ```python
    predict = keras_resfam.predictor(keras_resfam.DMRNet(weights="cifar10"))
    probabilities = predict(image[None])[0]
    ```
    """
    model = checked(model.model if isinstance(model, Compiled) else model)
    model = graphs.shell(model)
    run = _inference(model)
    wanted = [(tuple(x.shape), x.dtype) for x in model.inputs]

    def predict(x):
        arrays = x if isinstance(x, list | tuple) else [x]
        if len(arrays) != len(wanted):
            raise ValueError(
                f"`x` should have one array for each of the {len(wanted)} "
                f"inputs of {model.name}. Received: {len(arrays)} arrays"
            )
        tensors = [
            _tensor(array, *spec)
            for array, spec in zip(arrays, wanted, strict=True)
        ]
        outputs = run(keras.tree.pack_sequence_as(model.input, tensors))
        arrays = [keras.ops.convert_to_numpy(output) for output in outputs]
        return keras.tree.pack_sequence_as(model.output, arrays)

    return predict


def _tensor(x, shape, dtype):
    """Converts an array to a tensor, after checking its shape and type."""
    array = np.asarray(x)
    sizes = zip(shape, array.shape, strict=False)
    if (
        array.ndim != len(shape)
        or 0 in array.shape
        or any(size not in (None, found) for size, found in sizes)
        or array.dtype.kind not in "biuf"
    ):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(
            f"`x` should be an array of numbers of shape ({wanted}). "
            f"Received: shape {array.shape}, type {array.dtype}"
        )
    return keras.ops.convert_to_tensor(array, dtype)


def _inference(model):
    """Returns a function from the model's inputs to a list of its outputs."""
    if keras.backend.backend() != "torch":
        return compiled_inference(model)
    import torch

    programs = Programs(model)

    def run(inputs):
        shapes = tuple(x.shape for x in keras.tree.flatten(inputs))
        with torch.no_grad():
            outputs, *_ = programs.call(shapes, False, inputs)
        return keras.tree.flatten(outputs)

    return run
