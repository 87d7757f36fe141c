"""Records and compiles a call of a model as one program of PyTorch.

`torch.compile` cannot compile Keras's calls of layers. `torch.export` can
record their operations as a graph, and `torch.compile` can compile that.
"""

import threading

from keras_resfam.backends.gradients import recorded
from keras_resfam.backends.losses import split_losses
from keras_resfam.compiling import passes
from keras_resfam.compiling.compiler import compile_for_processor

_RECORDING = threading.RLock()  # torch.export is not thread-safe


class Programs:
    """The compiled programs of a model, one for each kind of call.

    It can be used by several threads.

    Args:
        model: `keras.Model`.
    """

    def __init__(self, model):
        self.model = model
        self.programs = {}

    def call(self, kind, training, inputs):
        """Calls the program of a kind, which the first call records.

        Args:
            kind: hashable. Calls of the same kind have the same shapes and the
                same variables.
            training: bool. Whether the model is called in training mode.
            inputs: tensor, or structure of tensors. The inputs of the model.

        Returns:
            The result of the function that `record` returns.
        """
        program = self.programs.get(kind)
        if program is not None:
            return program(inputs)
        with _RECORDING:
            program = self.programs.get(kind) or record(
                self.model, training, inputs
            )
            results = program(inputs)  # PyTorch compiles at the first call
            self.programs[kind] = program
        return results


def record(model, training, inputs):
    """Records a call of a model, and compiles it with PyTorch.

    Args:
        model: `keras.Model`.
        training: bool. Whether the model is called in training mode.
        inputs: tensor, or structure of tensors. An example of the inputs, whose
            shapes and types the program is compiled for.

    Returns:
        A function that takes inputs and returns a tuple: the outputs, the list
        of losses that layers add, and a list with the sum of the losses of
        regularizers in training. It updates the model's variables as a call of
        the model does.
    """
    import torch

    trainable, state = (
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
        )
    )

    class Call(torch.nn.Module):
        def forward(self, *arguments):
            outputs, updates, losses = model.stateless_call(
                *arguments, training=training, return_losses=True
            )
            losses, penalties = split_losses(model, losses)
            # Outside of training, only `evaluate` needs these losses, and Keras
            # adds them itself.
            total = [sum(penalties)] if training and penalties else []
            return outputs, updates, losses, total

    try:
        with recorded() as backwards:
            exported = torch.export.export(
                Call(), (trainable, state, inputs), strict=False
            )
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            "`model` should have a call that torch.export can record, without "
            "random numbers such as those of Dropout in training. Received: "
            f"{model}, for which torch.export fails: {first}"
        ) from error
    module = exported.module()
    _run_passes(module.graph, backwards)
    module.recompile()
    # PyTorch's layout optimization assumes channels first. It would mistake the
    # rows of images with channels last for channels.
    program = compile_for_processor(module.forward, layout_optimization=False)

    def call(inputs):
        outputs, updates, losses, total = program(trainable, state, inputs)
        if training and state:  # PyTorch does not take empty lists
            with torch.no_grad():
                torch._foreach_copy_(state, updates)
        return outputs, losses, total

    return call


def _run_passes(graph, backwards):
    """Makes a recorded graph faster, and inserts its custom gradients."""
    from keras_resfam.compiling import norm_by_image, winograd

    passes.leave_out_checks(graph)
    passes.put_back_gradients(graph, backwards)
    passes.take_pixels_first(graph)
    passes.permute_first(graph)
    norm_by_image.put_in(graph)
    winograd.put_in(graph)
