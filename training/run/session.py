"""Prepares a run from a recipe: the data, the network and the optimizer."""

import random

import keras
import numpy as np

from keras_resfam.pretrained import sources
from training.run import distribution
from training.run.description import check_same_run, describe, write_description
from training.run.loop import Run
from training.run.network import (
    build_network,
    color_of_zero,
    preprocessing_of,
    training_form,
)
from training.run.task import check_colors, load_task
from training.run.trainer import Trainer, modulation_layers


def prepare(
    recipe,
    folder,
    seed=0,
    data_dir=None,
    devices=None,
    save_every=500,
    steps_per_execution=1,
    evaluate_every=1,
):
    """Builds the run of a recipe, and writes its `recipe.json`.

    Args:
        recipe: `Recipe`.
        folder: Path. The run's folder, which is created if it is missing.
        seed: int. Sets the weights, the order and the augmentation. Defaults
            to `0`.
        data_dir: See `reading.load`.
        devices: `distribution.Devices`. Defaults to one device.
        save_every: int. Steps between checkpoints within an epoch. Defaults
            to `500`.
        steps_per_execution: int. Steps that run together, after which the loss
            is checked. Defaults to `1`.
        evaluate_every: int. Epochs between evaluations. Defaults to `1`.

    Returns:
        `loop.Run`.

    Raises:
        ValueError: If the data do not fit the recipe, or the folder holds a
            run of another recipe or seed.
        CheckpointError: If the folder cannot be written.
        HubError: If the Hub does not deliver the initial weights.
    """
    devices = devices or distribution.Devices()
    check_devices(recipe, devices)
    check_execution(steps_per_execution)
    set_random_seed(seed)
    keras.config.set_dtype_policy(recipe.precision)
    task = load_task(recipe, seed, data_dir, devices)
    channels = task.input_shape[-1]
    check_colors(recipe, channels)
    source = sources.find(recipe.weights, recipe.builder, recipe.arguments)
    preprocessing = preprocessing_of(recipe, source, channels)
    description = describe(recipe, seed, task, preprocessing)
    check_same_run(folder, description)
    trainer = _build_trainer(recipe, task, preprocessing, source, devices, seed)
    with devices.scope():
        trainer.compile_recipe(
            task.epochs.steps, steps_per_execution=steps_per_execution
        )
    # If anything has failed so far, no folder is left behind.
    if devices.first:
        write_description(folder, description)
    return Run(
        folder,
        trainer,
        task.epochs,
        task.evaluation,
        devices,
        choose=bool(recipe.validation),
        save_every=save_every,
        evaluate_every=evaluate_every,
        description=description,
    )


def _build_trainer(recipe, task, preprocessing, source, devices, seed):
    """Builds the network of a recipe, and the `Trainer` that trains it."""
    with devices.scope():
        network = build_network(
            recipe.builder,
            recipe.arguments,
            task.classes,
            task.input_shape,
            preprocessing,
            source,
        )
        if devices.strategy is not None:
            distribution.synchronize_batch_norm(network)
        trained = training_form(network, recipe, seed)
    check_schedules(recipe, network)
    # Outside of the scope. Otherwise, Keras 3.15 would build the Trainer from a
    # batch, which fails with several TensorFlow workers.
    trainer = Trainer(
        network,
        recipe,
        task.classes,
        fill=color_of_zero(network),
        trained=trained,
    )
    trainer.workers_average_logs = devices.strategy and devices.processes > 1
    return trainer


def set_random_seed(seed):
    """Seeds the random generators that Keras uses.

    Keras's own function imports TensorFlow if it is installed, even for another
    backend. That takes seconds and hundreds of megabytes.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        keras.utils.set_random_seed(seed)
        return
    random.seed(seed)
    np.random.seed(seed)
    if backend == "torch":
        import torch

        torch.manual_seed(seed)


def check_execution(steps):
    """Checks that the backend supports several steps per execution."""
    if steps > 1 and keras.backend.backend() == "torch":
        raise ValueError(
            "`steps_per_execution` should be 1 with torch. "
            f"Received: steps_per_execution={steps}"
        )


def check_schedules(recipe, network):
    """Checks that the network has the parts that the recipe schedules."""
    if recipe.modulation_epochs and not modulation_layers(network):
        raise ValueError(
            "A recipe's `modulation_epochs` should be None for a network "
            "without `GradientModulation`. "
            f"Received: modulation_epochs={recipe.modulation_epochs}"
        )
    if recipe.penalty_schedule and not network.losses:
        raise ValueError(
            "A recipe's `penalty_schedule` should be () for a network whose "
            "weights have no regularizers. "
            f"Received: penalty_schedule={recipe.penalty_schedule}"
        )


def check_devices(recipe, devices):
    """Checks that a recipe can be trained on the devices."""
    if recipe.log_moments and devices.count > 1:
        raise ValueError(
            "A recipe's `log_moments` should be False on several devices. "
            "Received: log_moments=True"
        )
    if recipe.precision == "mixed_float16" and devices.strategy is not None:
        raise ValueError(
            "`precision` should be mixed_bfloat16 or float32 on several "
            "devices with TensorFlow, because Keras 3.15 scales the loss of "
            "float16 on each separately. Received: precision=mixed_float16"
        )
    if recipe.batch_size % devices.count:
        raise ValueError(
            f"`batch_size` should be a multiple of the {devices.count} "
            f"devices. Received: batch_size={recipe.batch_size}"
        )
    if recipe.mixup and recipe.batch_size // devices.count % 2:
        raise ValueError(
            "`batch_size` should be even on each device with `mixup`, which "
            f"mixes pairs. Received: batch_size={recipe.batch_size} on "
            f"{devices.count} devices"
        )
