"""Keras models whose calls PyTorch compiles."""

import threading

import keras

from keras_resfam import graphs
from keras_resfam.compiling.program import Programs
from keras_resfam.graphs.copies import checked

_STEPS = (
    *("train_step", "test_step", "predict_step"),
    *("compute_loss", "compute_metrics"),
)


def compiled(model):
    """Returns a model that computes what `model` does, compiled by PyTorch.

    On the PyTorch backend, Keras calls one layer after another, and each
    operation makes a pass over memory. The returned model runs as one program,
    whose operations PyTorch fuses. In float32 on processors with AVX2 but not
    AVX-512, wide 3x3 convolutions also need only a quarter of the
    multiplications (Lavin & Gray 2015, https://arxiv.org/abs/1509.09308), with
    rounding errors of about 1e-5 of the largest outputs. The returned model
    has `fit`, `evaluate` and `predict` like any Keras model. It shares the
    weights of `model`, so training one trains the other. Before `fit`, call
    its `compile` as usual, without `jit_compile`.

    `save` and `export` save `model`, without the state of the optimizer. (Use
    `keras.callbacks.BackupAndRestore` to resume training.) A file that
    `save_weights` writes can be loaded by another model that this function
    returned. A model that contains a compiled model can be trained, but not
    saved. Instead, build it from `model` and compile the whole.

    The first batch of each shape takes a minute or two, in training and in
    inference, and requires a C++ compiler on a CPU. All batches should have
    the same size. Several threads may predict at the same time. They wait for
    each other while their first batches are compiled.

    On TensorFlow and JAX, which have `jit_compile` for this purpose, `model`
    itself is returned.

    Args:
        model: functional or sequential `keras.Model`.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If `model` is neither functional nor sequential, overrides
            `call` or `train_step`, is not built, or contains a compiled model.
            The first batch raises it for layers that draw random numbers, such
            as Dropout in training.

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
                "`model` should not contain a compiled model: compile the "
                f"whole only. Received: model={model}, with {layer.name}"
            )
    return Compiled(model)


def _check_steps(model):
    """Checks that a model does not override how it is trained or evaluated."""
    for step in _STEPS:
        if getattr(type(model), step) is not getattr(keras.Model, step):
            raise ValueError(
                f"`model` should not override {', '.join(_STEPS)}, because "
                f"the compiled model has those of Keras. Received: "
                f"model={model}, which overrides {step}"
            )


class Compiled(keras.Model):
    """Runs a functional model as compiled programs, one per kind of batch.

    Args:
        model: functional or sequential `keras.Model`.
    """

    def __init__(self, model):
        # The program casts inputs and weights. With the policy of `model`,
        # Keras would pass the weights in half precision.
        super().__init__(
            name=f"{model.name}_compiled", dtype="float32", autocast=False
        )
        self.model = model
        self.input_spec = model.input_spec
        self.programs = Programs(model)
        self.local = threading.local()  # losses of the last training call
        self.built = True

    def call(self, inputs, training=None):
        self.local.losses = None
        leaves = keras.tree.flatten(inputs)
        if any(x.device.type == "meta" for x in leaves):  # Keras infers shapes
            return self.model(inputs, training=training)
        kinds = repr(
            keras.tree.map_structure(
                lambda x: (tuple(x.shape), x.dtype), inputs
            )
        )
        # A program is valid for one set of frozen layers only, and for the same
        # variables, which quantization replaces. Whether moving statistics are
        # frozen shows in the layers' `trainable`, but not in the weights.
        weights = tuple((id(v), v.trainable) for v in self.model.variables)
        layers = graphs.layers_within(self.model) if training else ()
        switches = tuple(layer.trainable for layer in layers)
        outputs, losses, penalties = self.programs.call(
            (bool(training), kinds, weights, switches), bool(training), inputs
        )
        if losses:  # for a model that contains this one
            self.add_loss(losses)
        if training:
            self.local.losses = [*losses, *penalties]
        return outputs

    @property
    def input_shape(self):
        return self.model.input_shape

    @property
    def output_shape(self):
        return self.model.output_shape

    @property
    def losses(self):
        recorded = getattr(self.local, "losses", None)
        return super().losses if recorded is None else recorded

    def compile(self, *args, **kwargs):
        # Keras decides by the policy whether to scale the loss.
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
            "A compiled model cannot be saved or cloned as a part of another: "
            "use the model that it was made from, which has the same weights. "
            f"Received: {self}, made from {self.model}"
        )
