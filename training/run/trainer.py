"""The model that `fit` trains: a network with augmentation and averages."""

import keras
import numpy as np
from keras import ops

from keras_resfam.compiling import Compiled
from keras_resfam.layers import GradientModulation
from training.images import augmentation
from training.run import optimizers


class Trainer(keras.Model):
    """Trains a network by a recipe.

    A training batch is `((images, draws), labels)`, an evaluation batch
    `(images, labels)`; images are raw, 0..255. `call`, `compute_loss` and
    `compute_metrics` are overridden, which every backend's `fit` goes through.

    Args:
        network: `keras.Model` that returns logits.
        recipe: `Recipe`.
        classes: int.
        fill: float, or one per channel. The color of padding and cutout.
            Defaults to `0.0`.
        trained: `keras.Model` that shares the weights of `network`, and is
            called in its place. Defaults to `None`, `network` itself.
    """

    def __init__(self, network, recipe, classes, fill=0.0, trained=None):
        super().__init__(dtype="float32", name="trainer")
        self.network = network
        self.trained = trained or network
        self.recipe = recipe
        self.classes = classes
        self.fill = np.asarray(fill, "float32")
        self.averages = []
        self.penalty_factor = 1.0
        self.workers_average_logs = False

    def compile_recipe(self, steps, **kwargs):
        """Compiles with the recipe's optimizer and loss.

        It creates all variables except for those of the network.

        Args:
            steps: int. Steps per epoch.
            **kwargs: Arguments of `compile`.
        """
        if self.recipe.average:
            self._add_averages()
        self.accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
        self.schedule = optimizers.learning_rate(self.recipe, steps)
        self.compile(
            optimizer=optimizers.build(self.recipe, steps),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True),
            weighted_metrics=[self.accuracy],
            **kwargs,
        )
        self.optimizer.build(self.trainable_variables)

    def meters(self):
        """Returns the variables of an epoch's running loss and accuracy."""
        loss = self.metrics[0]
        return [*loss.variables, *self.accuracy.variables]

    def learning_rate_at(self, step):
        """Returns the learning rate of a step, counted from 0."""
        rate = self.schedule
        return float(rate if isinstance(rate, float) else rate(step))

    def averaged(self):
        """Returns pairs of a moving average and the weight it follows."""
        return list(zip(self.averages, self.network.weights, strict=False))

    def call(self, inputs, training=False):
        paired = isinstance(inputs, (tuple, list))
        images, draws = inputs if paired else (inputs, None)
        if training and draws is not None:
            images = self.augment(images, draws)
        images = ops.cast(images, "float32")
        logits = self.trained(images, training=training)
        if training:
            self._update_averages()
        return ops.cast(logits, "float32")

    @property
    def losses(self):
        if not self.penalty_factor:
            return []
        # A compiled network has computed its losses during the call.
        along = isinstance(self.trained, Compiled)
        losses = self.trained.losses if along else super().losses
        if self.penalty_factor == 1:
            return losses
        return [self.penalty_factor * loss for loss in losses]

    def ready_for(self, epoch):
        """Sets what the recipe changes between epochs, counted from 0.

        These are not variables. After a change, the step is compiled again
        without the parts that have ended.
        """
        modulations = modulation_layers(self.network)
        modulates = self.recipe.modulates(epoch)
        factor = self.recipe.penalty_factor(epoch)
        before = {self.penalty_factor == factor} | {
            layer.trainable == modulates for layer in modulations
        }
        if before == {True}:
            return
        self.penalty_factor = factor
        for layer in modulations:
            layer.trainable = modulates
        self.train_function = None  # `fit` creates a new one

    def augment(self, images, draws):
        """Returns the recipe's changes to a batch of training images."""
        recipe = self.recipe
        images = augmentation.augment(
            images,
            draws,
            flip=recipe.flip,
            crop=recipe.crop,
            padding=recipe.padding,
            fill=self.fill,
            jitter=recipe.jitter,
            lighting=recipe.lighting,
            cutout=recipe.cutout,
        )
        return augmentation.mix(images, draws) if recipe.mixup else images

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        targets = ops.one_hot(y, self.classes, dtype="float32")
        if training:
            if self.recipe.mixup:
                targets = augmentation.mix(targets, x[1])
            smoothing = self.recipe.label_smoothing
            targets = (1 - smoothing) * targets + smoothing / self.classes
            return super().compute_loss(x, targets, y_pred, sample_weight)
        # Without weight penalties, which belong to training.
        return self.loss(targets, y_pred, sample_weight)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        if not self.workers_average_logs:
            return logs
        # Between TensorFlow's workers Keras 3.15 averages along an axis that
        # the numbers do not have.
        return {name: ops.expand_dims(v, 0) for name, v in logs.items()}

    def _add_averages(self):
        self.averages = [
            self.add_weight(
                shape=weight.shape,
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
                name=f"average_{index}",
            )
            for index, weight in enumerate(self.network.weights)
        ]
        for average, weight in self.averaged():
            average.assign(_copy(weight))

    def _update_averages(self):
        """Moves the averages toward the weights before this step.

        The moments of BatchNormalization are averaged too, because those of the
        current kernels do not fit averaged kernels.
        """
        if self.averages:
            rate = 1 - self.recipe.average
            move_averages(self.averages, self.network.weights, rate)

    def swap_averages(self):
        """Exchanges the weights and their averages."""
        for average, weight in self.averaged():
            kept = _copy(weight)
            weight.assign(_copy(average))
            average.assign(kept)


def modulation_layers(network):
    """Returns the network's layers of `GradientModulation`."""
    return [x for x in network.layers if isinstance(x, GradientModulation)]


def _copy(variable):
    """Returns a copy of a variable's value, on the same device."""
    return ops.copy(variable)


def move_averages(averages, weights, rate):
    """Moves averages toward the weights: by `rate * (weight - average)`.

    Args:
        averages, weights: lists of variables.
        rate: float between 0 and 1.
    """
    alike = {v.dtype for v in (*averages, *weights)} == {"float32"}
    if keras.backend.backend() == "torch" and alike:
        import torch

        with torch.no_grad():
            torch._foreach_lerp_(
                [v.value for v in averages], [v.value for v in weights], rate
            )
        return
    for average, weight in zip(averages, weights, strict=True):
        weight = ops.stop_gradient(weight)
        average.assign(average + rate * (weight - average))


class EvaluateAverages(keras.callbacks.Callback):
    """Callback that evaluates the averaged weights, if there are any."""

    def on_test_begin(self, logs=None):
        self.model.swap_averages()

    def on_test_end(self, logs=None):
        self.model.swap_averages()
