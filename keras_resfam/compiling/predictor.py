"""Predictions from NumPy to NumPy, without Keras's calls."""

import keras
import numpy as np

from keras_resfam import graphs
from keras_resfam.backends.inference import compiled_inference
from keras_resfam.compiling.model import Compiled
from keras_resfam.compiling.program import Programs
from keras_resfam.graphs.copies import checked


def predictor(model):
    """Returns a function that predicts as a model does, for single images.

    `model.predict_on_batch` walks through Keras's calls each time, which for
    one image can take as long as the network itself. What is returned here
    checks the arrays, and runs the model as one compiled program. On the
    backend torch that is what `compiled` makes, and needs a C++ compiler on a
    CPU. The first call with each shape takes its time.

    Several threads may call it at once. The weights are those that the model
    has at the time of the call. After a change of what it consists of, as by
    `model.quantize`, make another.

    Args:
        model: `keras.Model`. A functional or sequential model, or what
            `compiled` has made of one.

    Returns:
        A function of an array of shape `(batch, ...)`, or of a list of them
        for a model of several inputs, that returns what `predict_on_batch`
        does. It raises a `ValueError` for arrays of another number, shape or
        type than the model takes.

    Raises:
        ValueError: If `model` is neither functional nor sequential (or has a
            `call` of its own), or not built.

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
    """An array as a tensor of an input's type, if it has an input's shape."""
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
    """A function of tensors, as the model takes them, that returns a list."""
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
