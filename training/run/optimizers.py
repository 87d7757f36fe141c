"""SGD and learning rate schedules as in the papers' scripts."""

import collections
import itertools

import keras
from keras import ops


class SGD(keras.optimizers.Optimizer):
    """SGD with momentum and coupled weight decay, as in Torch and MXNet.

    With gradient `g`, weight `w` and velocity `v`, a step is

        g = g + weight_decay * w
        v = momentum * v + g
        w = w - learning_rate * (g + momentum * v if nesterov else v)

    `keras.optimizers.SGD` differs in two ways. Its weight decay does not go
    through the momentum. Its velocity includes past learning rates, so that
    steps after a drop of the rate are still large.

    Args:
        learning_rate: float or schedule.
        momentum: float in [0, 1). Defaults to `0.9`.
        nesterov: bool. Defaults to `True`.
        coupled_decay: float. The weight decay above, without the variables
            of `exclude_from_weight_decay()`. Defaults to `0.0`.
        restarts: sequence of ints. Steps before which the velocity is zeroed.
            Defaults to `()`.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as
            `global_clipnorm`.
    """

    def __init__(
        self,
        learning_rate,
        momentum=0.9,
        nesterov=True,
        coupled_decay=0.0,
        restarts=(),
        name="sgd",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov
        self.coupled_decay = coupled_decay
        self.restarts = tuple(restarts)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(learning_rate, variable.dtype)
        g = ops.cast(gradient, variable.dtype)
        velocity, decay = self._velocity(variable), self._decay(variable)
        w, v = map(ops.convert_to_tensor, (variable, velocity))
        if self.restarts:
            v = ops.where(self._restarts_now(), ops.zeros_like(v), v)
        if decay:
            g = g + decay * w
        v = self.momentum * v + g
        self.assign(velocity, v)
        self.assign_sub(
            variable, rate * (g + self.momentum * v if self.nesterov else v)
        )

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # Keras calls this for a step of all weights. PyTorch has a kernel for
        # all weights with the same decay.
        alike, others = collections.defaultdict(list), []
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            velocity = self._velocity(variable)
            tensors = variable.value, gradient, velocity.value
            if fuses_sgd(*tensors):
                alike[self._decay(variable)].append(tensors)
            else:
                others.append((gradient, variable))
        restart = bool(alike and self.restarts and self._restarts_now())
        for decay, triples in alike.items():
            fused_sgd(
                *zip(*triples, strict=True),
                rate=ops.cast(learning_rate, "float32"),
                momentum=self.momentum,
                nesterov=self.nesterov,
                decay=decay,
                restart=restart,
            )
        if others:
            super()._backend_update_step(
                *zip(*others, strict=True), learning_rate
            )

    def _velocity(self, variable):
        return self.velocities[self._get_variable_index(variable)]

    def _decay(self, variable):
        return self.coupled_decay if self._use_weight_decay(variable) else 0.0

    def _restarts_now(self):
        return ops.any(ops.equal(self.iterations, self.restarts))

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "coupled_decay": self.coupled_decay,
            "restarts": self.restarts,
        }


class Cosines(keras.optimizers.schedules.LearningRateSchedule):
    """Schedule of consecutive cosines from a peak to zero.

    `keras.optimizers.schedules.CosineDecayRestarts` has no warm-up, and the
    lengths of its cycles can only grow by a factor.

    Args:
        peak: float.
        bounds: list of ints. The steps at which cosines start and end.
        warmup: int. The number of steps of linear growth at the start.
    """

    def __init__(self, peak, bounds, warmup):
        self.peak, self.bounds, self.warmup = peak, list(bounds), warmup
        cosine = keras.optimizers.schedules.CosineDecay
        self.cosines = [
            cosine(peak, end - start)
            for start, end in itertools.pairwise(self.bounds)
        ]
        if warmup:
            length = max(1, self.bounds[1] - warmup)
            self.cosines[0] = cosine(
                0.0, length, warmup_target=peak, warmup_steps=warmup
            )

    def __call__(self, step):
        rate = self.cosines[0](step)
        for start, cosine in zip(
            self.bounds[1:-1], self.cosines[1:], strict=True
        ):
            since = ops.maximum(step - start, 0)
            rate = ops.where(step < start, rate, cosine(since))
        return rate

    def get_config(self):
        return {
            "peak": self.peak,
            "bounds": self.bounds,
            "warmup": self.warmup,
        }


def learning_rate(recipe, steps):
    """Returns the schedule of a recipe, a function of the step alone.

    Args:
        recipe: `Recipe`.
        steps: int. Steps per epoch.
    """
    # If the peak is an integer, Keras rounds all rates.
    peak = float(recipe.learning_rate)
    if recipe.schedule == "cosine":
        return Cosines(
            peak,
            [epoch * steps for epoch in (0, *recipe.restarts, recipe.epochs)],
            round(recipe.warmup * steps),
        )
    if not recipe.drops:
        return peak
    rates = [
        peak * recipe.drop_factor**drop for drop in range(len(recipe.drops) + 1)
    ]
    # Keras keeps the old rate through its boundary, so that is the last step
    # before the drop.
    boundaries = [epoch * steps - 1 for epoch in recipe.drops]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)


def build(recipe, steps):
    """Returns the optimizer of a recipe.

    Args:
        recipe: `Recipe`.
        steps: int. Steps per epoch.
    """
    optimizer = SGD(
        learning_rate(recipe, steps),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        coupled_decay=recipe.weight_decay,
        restarts=[epoch * steps for epoch in recipe.drops]
        if recipe.restart_momentum
        else (),
        global_clipnorm=recipe.clip_norm,
    )
    if recipe.decay == "kernels":
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if recipe.precision == "mixed_float16":
        # `compile` does this for float16 models, but the Trainer is float32.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def fuses_sgd(weight, gradient, velocity):
    """Returns whether PyTorch's fused kernel takes these tensors.

    They need the same order in memory, type and device.
    """
    return keras.backend.backend() == "torch" and all(
        x.stride() == weight.stride()
        and x.dtype == weight.dtype
        and x.device == weight.device
        for x in (gradient, velocity)
    )


def fused_sgd(
    weights, gradients, velocities, *, rate, momentum, nesterov, decay, restart
):
    """Updates weights and their velocities like `torch.optim.SGD`.

    Args:
        weights, gradients, velocities: lists of tensors.
        rate: Scalar tensor. The learning rate.
        momentum: float.
        nesterov: bool.
        decay: float. The coupled weight decay.
        restart: bool. Whether to zero the velocities first.
    """
    import torch
    from torch.optim import sgd

    weights, gradients, velocities = map(list, (weights, gradients, velocities))
    with torch.no_grad():
        if restart:
            torch._foreach_zero_(velocities)
        sgd.sgd(
            weights,
            gradients,
            velocities,
            fused=True,
            lr=rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=decay,
            dampening=0.0,
            maximize=False,
        )
