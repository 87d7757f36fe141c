"""Models whose calls PyTorch compiles."""

import threading

import keras

from keras_resfam import graphs
from keras_resfam.compiling.program import Programs
from keras_resfam.graphs.copies import checked

STEPS = (
    *("train_step", "test_step", "predict_step"),
    *("compute_loss", "compute_metrics"),
)


def compiled(model):
    """Returns a model that computes what `model` does, compiled by PyTorch.

    On the backend torch, Keras calls one layer after another, and each
    operation is a pass over memory of its own. What is returned here runs as
    one program, whose operations PyTorch fuses. In float32, on processors with
    AVX2 and no more, it has wide convolutions of 3 x 3 multiply a quarter as
    often (Lavin & Gray 2015, https://arxiv.org/abs/1509.09308), to a rounding
    of some 1e-5 of the largest outputs. It has a `fit`, `evaluate` and
    `predict` like any Keras model, and the weights of `model`: to train the
    one trains the other. It is not compiled in Keras's sense: leave
    `jit_compile` alone when you do that.

    Its `save` and `export` are those of `model`: what is saved has no
    optimizer (`keras.callbacks.BackupAndRestore` is there to go on). The file
    of its `save_weights` is for another such model to load. A model around it
    can be trained, but not saved: build that around `model`, and compile the
    whole.

    The first batch of each shape takes a minute or two, in training and in
    inference, and wants a C++ compiler on a CPU. Batches should be of one
    size. Several threads may predict at once: those whose first batches meet
    wait for each other.

    On TensorFlow and JAX, whose `jit_compile` does such work, `model` itself
    is returned.

    Args:
        model: `keras.Model`. A functional or sequential model.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If `model` is neither functional nor sequential (or has a
            `call` or a `train_step` of its own), or not built, or has a
            compiled model in it. The first batch raises it for layers that
            draw random numbers, such as Dropout in training.

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
    if keras.backend.backend() != "torch":
        return model
    _check_steps(model)
    for layer in graphs.layers_within(model):
        if isinstance(layer, Compiled):
            raise ValueError(
                "`model` should have no compiled model in it: compile the "
                f"whole alone. Received: model={model}, with {layer.name}"
            )
    return Compiled(model)


def _check_steps(model):
    """Refuses a model with a way of its own of training or being measured."""
    for step in STEPS:
        if getattr(type(model), step) is not getattr(keras.Model, step):
            raise ValueError(
                f"`model` should have Keras's own {', '.join(STEPS)}, as "
                f"those of what is compiled are. Received: model={model}, "
                f"with another {step}"
            )


class Compiled(keras.Model):
    """Calls a functional model by programs, one for each kind of batch."""

    def __init__(self, model):
        # What `model` casts is for its program to cast: of another policy
        # Keras would hand over its weights in half precision.
        super().__init__(
            name=f"{model.name}_compiled", dtype="float32", autocast=False
        )
        self.model = model
        self.input_spec = model.input_spec
        self.programs = Programs(model)
        self.of_thread = threading.local()  # losses of its last training call
        self.built = True

    def call(self, inputs, training=None):
        self.of_thread.losses = None
        leaves = keras.tree.flatten(inputs)
        if any(x.device.type == "meta" for x in leaves):  # Keras asks shapes
            return self.model(inputs, training=training)
        kinds = repr(
            keras.tree.map_structure(
                lambda x: (tuple(x.shape), x.dtype), inputs
            )
        )
        # What is frozen later is another program's: weights, and also moving
        # statistics, which no list of weights tells of. So are weights that
        # take the place of others, as in quantization.
        weights = tuple((id(v), v.trainable) for v in self.model.variables)
        layers = graphs.layers_within(self.model) if training else ()
        switches = tuple(layer.trainable for layer in layers)
        outputs, losses, penalties = self.programs.call(
            (bool(training), kinds, weights, switches), bool(training), inputs
        )
        if losses:  # a model around this one finds them so
            self.add_loss(losses)
        if training:
            self.of_thread.losses = [*losses, *penalties]
        return outputs

    @property
    def losses(self):
        recorded = getattr(self.of_thread, "losses", None)
        return super().losses if recorded is None else recorded

    def compile(self, *args, **kwargs):
        # By its types Keras decides whether to scale the loss.
        self.dtype_policy = self.model.dtype_policy
        try:
            super().compile(*args, **kwargs)
        finally:
            self.dtype_policy = "float32"

    def save(self, *args, **kwargs):
        self.model.save(*args, **kwargs)

    def export(self, *args, **kwargs):
        self.model.export(*args, **kwargs)

    def get_config(self):
        raise ValueError(
            "A compiled model should not be part of what is saved or cloned: "
            "use the model that it is made of, which has the same weights. "
            f"Received: {self}, of {self.model}"
        )
