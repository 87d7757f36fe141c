"""Training with random residual blocks dropped in each mini-batch."""

import numbers

import keras
from keras import ops

from keras_resfam import graphs
from keras_resfam._checks import (
    check_choice,
    check_integer,
    check_number,
    is_integer,
    is_iterable,
    plain,
)
from keras_resfam.analysis.chain import check_blocks, without
from keras_resfam.analysis.finding import residual_chain
from keras_resfam.backends.conditions import run_if

_SCALINGS = (None, "training", "inference")


def drop_blocks(model, active=None, survival=None, scale=None, seed=None):
    """Drops random residual blocks in training, new ones in each mini-batch.

    With `active`, exactly that many blocks are active in each mini-batch. In
    Veit et al. 2016, section 5, these are 23 of 54, so that paths are about as
    long as the effective paths. With `survival`, each block is active with its
    own probability. This is stochastic depth (Huang et al. 2016), where the
    probability falls linearly with depth from 1 to 0.5 (`linear_survival`).
    Shortcuts always stay, so blocks that change the shape can be dropped too.

    In inference, all blocks are active. If `scale` is `None` or `"training"`,
    the outputs are exactly those of `model`, so its weights can be used without
    this function. The published stochastic depth multiplies each branch by its
    survival probability in inference (`scale="inference"`). Veit et al. do not
    state how they scale branches.

    A dropped branch is not computed, and its moving statistics do not change.
    Layers of a branch that are also used elsewhere are always computed, and so
    are those before them. Dropping saves time on PyTorch and TensorFlow. On
    JAX, on several devices with TensorFlow, and if the model's input has sizes
    of `None`, dropped branches are computed and ignored. XLA is slow here on
    CPUs, so `jit_compile` should keep its default.

    Args:
        model: functional `keras.Model` with residual blocks. It is not
            changed.
        active: int, from 0 to the number of blocks. The number of active
            blocks in a mini-batch. Exactly one of `active` and `survival` is
            required. Defaults to `None`.
        survival: sequence of floats in `[0, 1]`, one for each block. The
            probability that a block is active. Defaults to `None`.
        scale: `None`, `"training"` (active branches are divided by their
            survival probability in training) or `"inference"` (branches are
            multiplied by it in inference). With `active`, the probability is
            `active / blocks`. Defaults to `None`.
        seed: int, or `None` for a random one. Defaults to `None`.

    Returns:
        A `keras.Model` that shares the layers of `model`. The layers of a
        branch are inside one layer, `<branch>_switch`. To find or freeze them,
        use `model`.

    Raises:
        ValueError: If an argument is invalid, or if `model` has no residual
            blocks or drops blocks already. In training, if a layer of a branch
            adds a loss (`activity_regularizer`).

    Example:

    ```python
    model = ResNet(depth=110, preactivation=True)
    dropped = drop_blocks(model, active=23)
    dropped.compile("sgd", "sparse_categorical_crossentropy")
    dropped.fit(x_train, y_train)
    model.save_weights("model.weights.h5")  # the trained weights
    ```
    """
    graph = graphs.read_single(model)
    if any(isinstance(step.operation, BlockSwitches) for step in graph.steps):
        raise ValueError(
            "`model` should not drop blocks already. "
            f"Received: model={graph.name}"
        )
    chain = residual_chain(graph)
    check_blocks(chain)
    survival = _checked_survival(len(chain.units), active, survival, scale)
    inputs, values = graphs.fresh_input(chain.graph)
    switches = BlockSwitches(
        survival,
        plain(active),
        scale=scale,
        seed=plain(seed),
        name="block_switches",
    )(inputs)
    values[id(switches)] = switches
    steps = chain.graph.steps
    for k, unit in enumerate(chain.units):
        names = iter(unit.block.branches)
        for join in unit.joins:
            gates = []
            for x in join.branches:
                own = graphs.only_for(chain.graph, x, join.step)
                own = [step for step in own if step in unit.body]
                given, branch = graphs.part(own, x, name=next(names))
                name = f"{branch.name}_switch"
                gate = BlockGate(branch, k, scale, dtype=x.dtype, name=name)
                end = keras.KerasTensor(x.shape, x.dtype)
                gates.append(
                    graphs.Step(gate, ([*given, switches],), {}, [end])
                )
                steps = without(steps, own)
            steps = _with_gates(steps, join, gates)
    graphs.run(steps, values)
    outputs = values[id(chain.graph.outputs[0])]
    return keras.Model(inputs, outputs, name=f"{model.name}_dropping")


def _with_gates(steps, join, gates):
    """Inserts gates between branches and a join.

    Other steps that read the branches do not read the gates.
    """
    pairs = zip(join.branches, gates, strict=True)
    gated = {id(x): gate.outputs[0] for x, gate in pairs}
    place = steps.index(join.step)
    joined = graphs.renamed([join.step], gated)
    return [*steps[:place], *gates, *joined, *steps[place + 1 :]]


def linear_survival(blocks, last=0.5):
    """Returns survival probabilities that fall linearly with depth.

    They are `p_k = 1 - k / blocks * (1 - last)` for `k = 1 ... blocks`, as in
    Huang et al. 2016, section 3.

    Args:
        blocks: int. The number of residual blocks.
        last: float in `[0, 1]`. The survival probability of the last block.
            Defaults to `0.5`.

    Returns:
        A list of floats.
    """
    check_integer("blocks", blocks)
    check_number("last", last, 0, maximum=1)
    return [1 - k / blocks * (1 - last) for k in range(1, blocks + 1)]


def _checked_survival(blocks, active, survival, scale):
    if (active is None) == (survival is None):
        raise ValueError(
            "Exactly one of `active` and `survival` should be given. "
            f"Received: active={active}, survival={survival}"
        )
    check_choice("scale", scale, _SCALINGS)
    if active is not None:
        if not is_integer(active, 0) or active > blocks:
            raise ValueError(
                f"`active` should be an integer from 0 to {blocks}, the "
                f"number of blocks. Received: active={active!r}"
            )
        return [active / blocks] * blocks
    chances = list(survival) if is_iterable(survival) else [survival]
    fits = len(chances) == blocks and all(
        isinstance(p, numbers.Real) and 0 <= p <= 1 for p in chances
    )
    if not fits:
        raise ValueError(
            f"`survival` should be {blocks} probabilities, one for each "
            f"block. Received: survival={survival!r}"
        )
    return [float(p) for p in chances]


@keras.saving.register_keras_serializable("keras_resfam")
class BlockSwitches(keras.layers.Layer):
    """Draws the factors of all blocks for a mini-batch.

    Args:
        survival: list of floats. The probability that each block is active.
        active: int or `None`. The number of active blocks, if it is fixed.
            Defaults to `None`.
        scale: See `drop_blocks`. Defaults to `None`.
        seed: int or `None`. Defaults to `None`.
    """

    def __init__(self, survival, active=None, scale=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.survival = list(survival)
        self.active = active
        self.scale = scale
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        survival = ops.convert_to_tensor(self.survival, "float32")
        if not training:
            whole = self.scale != "inference"
            return ops.ones_like(survival) if whole else survival
        noise = keras.random.uniform(
            survival.shape, dtype="float32", seed=self.seed_generator
        )
        if self.active is None:
            works = noise < survival
        else:
            works = ops.argsort(ops.argsort(noise)) < self.active
        works = ops.cast(works, "float32")
        if self.scale == "training":
            works = ops.divide_no_nan(works, survival)
        return works

    def compute_output_spec(self, inputs, training=False):
        return keras.KerasTensor((len(self.survival),), "float32")

    def get_config(self):
        config = {
            "survival": list(self.survival),  # Keras tracks its own
            "active": self.active,
            "scale": self.scale,
            "seed": self.seed,
        }
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("keras_resfam")
class BlockGate(keras.layers.Layer):
    """A residual branch that is computed if its block is active.

    Args:
        branch: `keras.Model` with one output.
        block: int. The index of the block's factor.
        scale: See `drop_blocks`. Defaults to `None`.

    Call arguments:
        inputs: list of tensors. The inputs of the branch, and the factors of
            all blocks.
        training: bool. Defaults to `False`.
    """

    def __init__(self, branch, block, scale=None, **kwargs):
        # In half precision, a factor would be rounded.
        super().__init__(autocast=False, **kwargs)
        self.branch = branch
        self.block = block
        self.scale = scale

    def call(self, inputs, training=False):
        *given, factors = inputs
        given, factor = _unpacked(given), factors[self.block]
        if training:
            outputs = run_if(factor > 0, self.branch, given)
        else:
            outputs = self.branch(given, training=False)
        if self.scale != ("training" if training else "inference"):
            return outputs
        return ops.cast(ops.multiply(outputs, factor), outputs.dtype)

    def compute_output_shape(self, input_shape):
        return self.branch.compute_output_shape(_unpacked(input_shape[:-1]))

    def get_config(self):
        config = {
            "branch": keras.saving.serialize_keras_object(self.branch),
            "block": self.block,
            "scale": self.scale,
        }
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config):
        branch = keras.saving.deserialize_keras_object(config["branch"])
        return cls(**{**config, "branch": branch})


def _unpacked(inputs):
    """Returns a list of inputs, or the input if there is only one."""
    return inputs[0] if len(inputs) == 1 else inputs
