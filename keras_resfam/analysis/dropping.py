"""Training with residual blocks switched on and off for every mini-batch."""

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
from keras_resfam.analysis.finding import check_blocks, residual_chain, without
from keras_resfam.backends.conditions import run_if

_SCALINGS = (None, "training", "inference")


def drop_blocks(model, active=None, survival=None, scale=None, seed=None):
    """Switches whole residual blocks on and off, anew for each mini-batch.

    With `active`, exactly that many blocks work in each batch (Veit et al.
    2016, section 5: 23 of 54, so that a path's length is about that of the
    effective paths). With `survival`, each block works with a probability of
    its own: stochastic depth (Huang et al. 2016, whose survival falls linearly
    with depth from 1 to 0.5; see `linear_survival`). Shortcuts always stay, so
    blocks that change the shape are dropped like all others.

    Only training is switched. At inference all blocks work; with `scale` of
    `None` or `"training"` it is bit for bit the model's own, so the weights
    can be used without this function. Stochastic depth as published scales
    each branch by its survival at inference (`scale="inference"`). Of the rule
    in Veit's retraining nothing is said that we know of.

    A dropped branch is not computed, and its moving statistics stay as they
    are. Layers of it that something else reads or calls too are computed
    always, and so is what leads to them. Dropping saves time on PyTorch and
    TensorFlow; on JAX, on several devices of TensorFlow, and where a model
    leaves the size of its images open, branches are computed and left out. On
    processors XLA is slow here: leave `jit_compile` alone.

    Example:

    ```python
    model = ResNet(depth=110, preactivation=True)
    dropped = drop_blocks(model, active=23)
    dropped.compile("sgd", "sparse_categorical_crossentropy")
    dropped.fit(x_train, y_train)
    model.save_weights("model.weights.h5")  # has learned with it
    ```

    Args:
        model: functional `keras.Model` with residual blocks. Stays as it is.
        active: int, from 0 to the number of blocks. How many blocks work in a
            mini-batch.
        survival: sequence of floats within 0 and 1, one for each block. Just
            one of `active` and `survival` is given.
        scale: `None`, `"training"` (working branches are divided by their
            survival while training) or `"inference"` (branches are multiplied
            by their survival otherwise). The survival is `active / blocks`
            where `active` is given. Defaults to `None`.
        seed: int, or `None` for a random one. Defaults to `None`.

    Returns:
        A `keras.Model` that shares the layers of `model`. Those of a branch
        are within one layer, `<branch>_switch`: to find or freeze them, ask
        `model`.

    Raises:
        ValueError: If an argument is not as above, or `model` has no residual
            blocks, or drops some already. In training, if a layer of a branch
            adds a loss of its own (`activity_regularizer`).
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
    """Has a join read gates, and it alone: others may read the branches."""
    pairs = zip(join.branches, gates, strict=True)
    gated = {id(x): gate.outputs[0] for x, gate in pairs}
    place = steps.index(join.step)
    joined = graphs.renamed([join.step], gated)
    return [*steps[:place], *gates, *joined, *steps[place + 1 :]]


def linear_survival(blocks, last=0.5):
    """Survival probabilities that fall linearly with depth.

    `p_k = 1 - k / blocks * (1 - last)` for `k = 1 ... blocks`, as in Huang et
    al. 2016, section 3.

    Args:
        blocks: int. The number of residual blocks.
        last: float within 0 and 1. The last block's survival. Defaults to
            `0.5`.

    Returns:
        A list of floats.
    """
    check_integer("blocks", blocks)
    check_number("last", last, 0, maximum=1)
    return [1 - k / blocks * (1 - last) for k in range(1, blocks + 1)]


def _checked_survival(blocks, active, survival, scale):
    if (active is None) == (survival is None):
        raise ValueError(
            "Just one of `active` and `survival` should be given. "
            f"Received: active={active}, survival={survival}"
        )
    check_choice("scale", scale, _SCALINGS)
    if active is not None:
        if not is_integer(active, 0) or active > blocks:
            raise ValueError(
                f"`active` should be an integer within 0 and {blocks}, the "
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
        survival: list of floats. The probability of each block to work.
        active: int or `None`. How many work in a mini-batch, if that is fixed.
        scale: `None`, `"training"` or `"inference"`; see `drop_blocks`.
        seed: int or `None`.
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
    """A residual branch that is computed where its block works.

    Args:
        branch: `keras.Model`. Of one output.
        block: int. The position of its factor.
        scale: as of `BlockSwitches`. Inference is left alone unless it is
            `"inference"`.

    Call arguments:
        inputs: list of tensors: what the branch takes, and the factors of all
            blocks.
        training: bool. Defaults to `False`.
    """

    def __init__(self, branch, block, scale=None, **kwargs):
        # A factor in half precision would be off by a part of all branches.
        super().__init__(autocast=False, **kwargs)
        self.branch = branch
        self.block = block
        self.scale = scale

    def call(self, inputs, training=False):
        *given, factors = inputs
        given, factor = self._given(given), factors[self.block]
        if training:
            outputs = run_if(factor > 0, self.branch, given)
        else:
            outputs = self.branch(given, training=False)
        if self.scale != ("training" if training else "inference"):
            return outputs
        return ops.cast(ops.multiply(outputs, factor), outputs.dtype)

    def compute_output_shape(self, input_shape):
        return self.branch.compute_output_shape(self._given(input_shape[:-1]))

    def _given(self, structure):
        """As the branch takes it: by itself, where it is one."""
        return structure[0] if len(structure) == 1 else structure

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
