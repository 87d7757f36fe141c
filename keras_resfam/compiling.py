"""Models whose calls PyTorch compiles.

Keras's way of calling layers stops torch.compile. torch.export records the
operations that a call comes to, and those it can compile.
"""

import keras

from keras_resfam import gradients, kernels
from keras_resfam.copies import checked


def compiled(model):
    """Returns a model that computes what `model` does, compiled by PyTorch.

    On the backend torch, Keras calls one layer after another, and each
    operation is a pass over memory of its own. What is returned here runs as
    one program, whose operations PyTorch fuses. It has a `fit`, `evaluate` and
    `predict` like any Keras model, and the weights of `model`: to train the
    one trains the other. It is not compiled in Keras's sense: leave
    `jit_compile` alone when you do that. Its `save` saves `model`; the
    file of its `save_weights` is for another such model to load.

    The first batch of each shape takes a minute or so, in training and in
    inference, and wants a C++ compiler on a CPU. Batches should be of one
    size.

    On TensorFlow and JAX, whose `jit_compile` does such work, `model` itself
    is returned.

    Args:
        model: `keras.Model`. A functional or sequential model.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If `model` is neither functional nor sequential (or has a
            `call` of its own), or not built. The first batch raises it for
            layers that draw random numbers, such as Dropout in training.

    Example:

    ```python
    model = keras_resfam.WideResNet(depth=16, width=4)
    fast = keras_resfam.compiled(model)
    fast.compile("sgd", "sparse_categorical_crossentropy")
    fast.fit(images, labels, batch_size=100)
    model.save("wrn_16_4.keras")
    ```
    """
    checked(model)
    return Compiled(model) if keras.backend.backend() == "torch" else model


class Compiled(keras.Model):
    """Calls a functional model by programs, one for each shape of a batch."""

    def __init__(self, model):
        # What `model` casts is for its program to cast.
        super().__init__(
            name=f"{model.name}_compiled",
            dtype=model.dtype_policy,
            autocast=False,
        )
        self.model = model
        self.input_spec = model.input_spec
        self.programs = {}
        self.built = True

    def call(self, inputs, training=None):
        leaves = keras.tree.flatten(inputs)
        if any(x.device.type == "meta" for x in leaves):  # Keras asks shapes
            return self.model(inputs, training=training)
        trained = self.model.trainable_variables
        kept = self.model.non_trainable_variables
        values = ([v.value for v in group] for group in (trained, kept))
        arguments = *values, inputs
        kinds = tuple((tuple(x.shape), x.dtype) for x in leaves)
        # Weights that are frozen later change the lists, and so the program.
        key = bool(training), kinds, tuple(map(id, trained))
        if key not in self.programs:
            self.programs[key] = record(self.model, key[0], *arguments)
        outputs, updates, losses = self.programs[key](*arguments)
        self.add_loss(losses)
        if training:
            for variable, value in zip(kept, updates, strict=True):
                variable.assign(value)
        return outputs

    def save(self, *args, **kwargs):
        self.model.save(*args, **kwargs)

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            weights = self.trainable_variables
            self.optimizer.build(weights)
            kernels.lay_out_alike(self.optimizer.variables, weights)
        super().make_train_function(force)


def record(model, training, *arguments):
    """Returns the program of a model's stateless call, compiled by PyTorch.

    Args:
        model: `keras.Model`.
        training: bool.
        *arguments: of `model.stateless_call`: lists of tensors, and inputs.

    Returns:
        A function of `arguments`. It returns the outputs, the new values of
        what is not trained, and the losses that layers have added.
    """
    import torch

    # Those of weights come last, and Keras adds them by itself.
    penalties = sum(
        weight.regularizer is not None for weight in model.trainable_weights
    )

    class Call(torch.nn.Module):
        def forward(self, *arguments):
            outputs, updates, losses = model.stateless_call(
                *arguments, training=training, return_losses=True
            )
            return outputs, updates, losses[: len(losses) - penalties]

    try:
        with gradients.recorded() as backwards:
            program = torch.export.export(Call(), arguments, strict=False)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            "`model` should have a call that torch.export can record, without "
            "random numbers such as those of Dropout in training. Received: "
            f"{model}, of which it says: {first}"
        ) from error
    module = program.module()
    gradients.put_back(module.graph, backwards)
    cast_last(module.graph)
    module.recompile()
    # PyTorch takes images of channels last, of which this is about, for images
    # of channels first, and would turn their rows into channels.
    return torch.compile(module.forward, options={"layout_optimization": False})


def cast_last(graph):
    """Has a program cast what it permutes after that, not before.

    The outcome is the same. But what is cast PyTorch's compiler writes in the
    order of its axes, so that a kernel, which lies in another, would be turned
    twice.

    Args:
        graph: `torch.fx.Graph`. It is changed.
    """
    import torch

    aten = torch.ops.aten
    casts = aten.to.dtype, aten.to.dtype_layout
    for node in graph.find_nodes(
        op="call_function", target=aten.permute.default
    ):
        while (cast := node.args[0]).target in casts:
            with graph.inserting_before(node):
                permuted = graph.call_function(
                    node.target, (cast.args[0], node.args[1])
                )
                last = graph.call_function(
                    cast.target, (permuted, *cast.args[1:]), cast.kwargs
                )
            node.replace_all_uses_with(last)
            graph.erase_node(node)
            node = permuted
