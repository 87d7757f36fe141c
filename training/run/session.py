"""From a recipe to a run: the data, the network, the optimizer."""

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
        folder: Path. The run's folder; made if missing.
        seed: int. Of the weights, the order and the augmentation.
        data_dir: See `reading.load`.
        devices: `distribution.Devices`. Defaults to one device.
        save_every: int. Steps between checkpoints within an epoch.
        steps_per_execution: int. Steps that run one behind another,
            without a look at the loss between. Defaults to `1`.
        evaluate_every: int. Epochs from one evaluation to the next.
            Defaults to `1`.

    Returns:
        `loop.Run`.

    Raises:
        ValueError: If the data do not fit the recipe, or the folder holds a
            run of another recipe or seed.
        CheckpointError: If the folder cannot be written.
        HubError: If the Hub does not give the weights to start from.
    """
    devices = devices or distribution.Devices()
    check_devices(recipe, devices)
    check_execution(steps_per_execution)
    set_random_seed(seed)
    keras.config.set_dtype_policy(recipe.precision)
    task = load_task(recipe, seed, data_dir, devices)
    check_colors(recipe, task.input_shape[-1])
    source = sources.find(recipe.weights, recipe.builder, recipe.arguments)
    preprocessing = preprocessing_of(recipe, source, task.input_shape[-1])
    description = describe(recipe, seed, task, preprocessing)
    check_same_run(folder, description)
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
    # Outside of the scope: a Trainer made within would have Keras 3.15 build
    # it of a batch, which fails with several TensorFlow workers.
    trainer = Trainer(
        network,
        recipe,
        task.classes,
        fill=color_of_zero(network),
        trained=trained,
    )
    check_schedules(recipe, network)
    trainer.workers_average_logs = devices.strategy and devices.processes > 1
    with devices.scope():
        trainer.compile_recipe(
            task.epochs.steps, steps_per_execution=steps_per_execution
        )
    # What has failed so far leaves no folder behind.
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


def set_random_seed(seed):
    """Seeds what Keras draws from.

    Keras's own function imports TensorFlow wherever it is installed, also for
    another backend: seconds, and hundreds of megabytes.
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
    """Refuses several steps in one execution where Keras has none."""
    if steps > 1 and keras.backend.backend() == "torch":
        raise ValueError(
            "`steps_per_execution` should be 1 with torch. "
            f"Received: steps_per_execution={steps}"
        )


def check_schedules(recipe, network):
    """Refuses an end of what the network does not have."""
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
    """Refuses what cannot be shared out among the devices."""
    if recipe.log_moments and devices.count > 1:
        raise ValueError(
            "A recipe's `log_moments` should be False on several devices. "
            "Received: log_moments=True"
        )
    if recipe.precision == "mixed_float16" and devices.strategy is not None:
        raise ValueError(
            "`precision` should be mixed_bfloat16 or float32 on several "
            "devices with TensorFlow: Keras 3.15 scales the loss of float16 "
            "for each by itself. Received: precision=mixed_float16"
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
