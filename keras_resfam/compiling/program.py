"""A model's call as one program of PyTorch's.

Keras's way of calling layers stops torch.compile. torch.export records the
operations that a call comes to, and those it can compile.
"""

import threading

from keras_resfam.backends.gradients import recorded
from keras_resfam.backends.losses import split_losses
from keras_resfam.compiling import passes
from keras_resfam.compiling.compiler import compile_for_processor

_RECORDING = threading.RLock()  # torch.export is for one thread at a time


class Programs:
    """A model's programs, one for each kind of call, for several threads.

    Args:
        model: `keras.Model`.
    """

    def __init__(self, model):
        self.model = model
        self.made = {}

    def call(self, kind, training, inputs):
        """Calls the program of a kind, which the first such call records.

        Args:
            kind: hashable.
            training: bool.
            inputs: as in `record`. Those of a kind have the same shapes.

        Returns:
            What the function that `record` returns does.
        """
        program = self.made.get(kind)
        if program is not None:
            return program(inputs)
        with _RECORDING:
            program = self.made.get(kind) or record(
                self.model, training, inputs
            )
            results = program(inputs)  # PyTorch compiles at the first call
            self.made[kind] = program
        return results


def record(model, training, inputs):
    """Returns a model's call as a program, compiled by PyTorch.

    Args:
        model: `keras.Model`.
        training: bool.
        inputs: tensor, or a structure of tensors. The program takes others of
            the same shapes.

    Returns:
        A function of the inputs. It returns the outputs, a list of the losses
        that layers have added, and in training one of the sum of those of
        weights. It assigns what a call assigns.
    """
    import torch

    from keras_resfam.compiling import norm_by_image, winograd

    trained, kept = (
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
            # Without training only `evaluate` wants them: Keras adds them.
            total = [sum(penalties)] if training and penalties else []
            return outputs, updates, losses, total

    try:
        with recorded() as backwards:
            exported = torch.export.export(
                Call(), (trained, kept, inputs), strict=False
            )
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            "`model` should have a call that torch.export can record, without "
            "random numbers such as those of Dropout in training. Received: "
            f"{model}, of which it says: {first}"
        ) from error
    module = exported.module()
    passes.leave_out_checks(module.graph)
    passes.put_back_gradients(module.graph, backwards)
    passes.take_pixels_first(module.graph)
    passes.permute_first(module.graph)
    norm_by_image.put_in(module.graph)
    winograd.put_in(module.graph)
    module.recompile()
    # PyTorch takes images of channels last, of which this is about, for images
    # of channels first, and would turn their rows into channels.
    program = compile_for_processor(module.forward, layout_optimization=False)

    def call(inputs):
        outputs, updates, losses, total = program(trained, kept, inputs)
        if training and kept:  # PyTorch refuses empty lists
            with torch.no_grad():
                torch._foreach_copy_(kept, updates)
        return outputs, losses, total

    return call
