"""From a recipe to a run: the data, the network, the optimizer."""

import dataclasses
import json
import shlex
import sys

import keras

import keras_resfam
from keras_resfam._files import read_json, replacing, write_json
from keras_resfam.datasets import DATASETS
from keras_resfam.models import families
from keras_resfam.pretrained import sources
from training.images import reading
from training.recipes.recipe import differences
from training.run import checkpoints, distribution
from training.run.loop import Run
from training.run.trainer import Trainer


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
        seed: Integer. Of the weights, the order and the augmentation.
        data_dir: See `reading.load`.
        devices: `distribution.Devices`. Defaults to one device.
        save_every: Integer. Steps between checkpoints within an epoch.
        steps_per_execution: Integer. Steps that run one behind another,
            without a look at the loss between. Defaults to `1`.
        evaluate_every: Integer. Epochs from one evaluation to the next.
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
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(recipe.precision)
    task = load_task(recipe, seed, data_dir, devices)
    check_colours(recipe, task.input_shape[-1])
    source = sources.find(recipe.weights, recipe.builder, recipe.arguments)
    preprocessing = preprocessing_of(recipe, source, task.input_shape[-1])
    description = describe(recipe, seed, task, preprocessing)
    check_folder(folder, description)
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
        trained = as_trained(network, recipe, seed)
    # Outside of the scope: a Trainer made within would have Keras 3.15 build
    # it of a batch, which fails with several TensorFlow workers.
    trainer = Trainer(
        network,
        recipe,
        task.classes,
        fill=colour_of_zero(network),
        trained=trained,
    )
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
    )


def check_execution(steps):
    """Refuses several steps in one execution where Keras has none."""
    if steps > 1 and keras.backend.backend() == "torch":
        raise ValueError(
            "`steps_per_execution` should be 1 with torch. "
            f"Received: steps_per_execution={steps}"
        )


def check_devices(recipe, devices):
    """Refuses what cannot be shared out among the devices."""
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


def check_colours(recipe, channels):
    """Refuses changes of colour to images that have none."""
    for field in ("jitter", "lighting"):
        value = getattr(recipe, field)
        if value and channels != 3:
            raise ValueError(
                f"A recipe's `{field}` should be 0 for images of {channels} "
                f"channels. Received: {field}={value}"
            )


@dataclasses.dataclass
class Task:
    """The data of a recipe: what `fit` and `evaluate` take."""

    epochs: object
    evaluation: object
    classes: int
    input_shape: tuple
    checksum: str  # of the training data


def load_task(recipe, seed, data_dir, devices):
    """Reads the data set of a recipe.

    Returns:
        `Task`.
    """
    if recipe.image_size:
        if reading.in_memory(recipe.dataset, data_dir):
            raise ValueError(
                "`image_size` should be None for the digits and for images in "
                "an .npz file, which have one size: `--set image_size=None`. "
                f"Received: image_size={recipe.image_size}"
            )
        return _streamed_task(recipe, seed, data_dir, devices)
    kept, held_out = reading.split_in_two(recipe.train_split, recipe.validation)
    train = reading.load(recipe.dataset, kept, data_dir)
    split = held_out or recipe.test_split
    evaluation = reading.load(recipe.dataset, split, data_dir)
    if held_out:
        check_held_out(recipe.validation, train[1], evaluation[1])
    for part, (_, labels) in ((kept, train), (split, evaluation)):
        reading.check_some(recipe.dataset, part, len(labels))
    classes = reading.classes_of(recipe.dataset, train[1], data_dir)
    reading.check_labels(recipe.dataset, evaluation[1], classes)
    check_same_shape(split, evaluation[0], train[0])
    size = devices.multiple(500)
    in_order = reading.InOrder(
        *evaluation, size, devices.shard, full=devices.count > 1
    )
    return Task(
        reading.Epochs(
            *train, recipe.batch_size, seed, recipe.mixup, devices.shard
        ),
        devices.spread(in_order, size),
        classes,
        train[0].shape[1:],
        reading.checksum(*train),
    )


def check_same_shape(split, images, trained):
    """Refuses to evaluate on images of another shape than those to train on."""
    if images.shape[1:] != trained.shape[1:]:
        raise ValueError(
            f"The images of {split} should be of the shape "
            f"{trained.shape[1:]}, as those to train on. "
            f"Received: images of shape {images.shape[1:]}"
        )


def check_held_out(count, train, held_out):
    """Refuses to hold out all images of a class.

    Args:
        count: Integer. The recipe's `validation`.
        train, held_out: Integer arrays, the labels of the two parts.
    """
    untrained = sorted(set(held_out.tolist()) - set(train.tolist()))
    if untrained:
        shown = ", ".join(map(str, untrained[:10]))
        raise ValueError(
            "`validation` should leave training images of each class; the "
            f"last {count} hold all of the classes {shown}. Shuffle the "
            f"images, or hold out fewer. Received: validation={count}"
        )


def _streamed_task(recipe, seed, data_dir, devices):
    builder = reading.tfds_builder(recipe.dataset, data_dir)
    from training.images import streams

    _, held_out = reading.split_in_two(recipe.train_split, recipe.validation)
    split = held_out or recipe.test_split
    size = devices.multiple(100)
    in_order = streams.in_order(
        builder, split, recipe.image_size, devices, size
    )
    return Task(
        streams.Stream(builder, recipe, seed, devices.shard),
        devices.spread(in_order, size),
        builder.info.features["label"].num_classes,
        (recipe.image_size, recipe.image_size, 3),
        reading.tfds_checksum(builder),
    )


def preprocessing_of(recipe, source, channels):
    """What the network should take as `include_preprocessing`.

    The data set whose channel moments normalise the images: that of the
    weights which it starts from, a `sources.Source` or `None`, else its
    own, else ImageNet's for colours.
    """
    if source is not None:
        return source.preprocessing or True
    if recipe.dataset in DATASETS:
        return recipe.dataset
    return "imagenet2012" if channels == 3 else True


def colour_of_zero(network):
    """The colour, a float a channel, that a network normalises to zero."""
    mean = network.get_layer("normalization").mean
    return keras.ops.convert_to_numpy(mean).reshape(-1)


def build_network(
    builder, arguments, classes, input_shape, preprocessing, source=None
):
    """Builds a recipe's network, with logits for outputs.

    Args:
        builder, arguments: As of a `Recipe`.
        classes: Integer.
        input_shape: Tuple.
        preprocessing: What `preprocessing_of` has returned.
        source: `sources.Source` of weights to start from, all but the
            classifier. Defaults to `None`, random ones.
    """
    known = families.defaults(builder)
    if not arguments.keys() <= known.keys():
        raise ValueError(
            f"A recipe's `arguments` should be those of {builder}: "
            f"{', '.join(known) or 'none'}. Received: arguments={arguments}"
        )
    build = families.get(builder)
    network = build(
        **arguments,
        weights=None,
        classes=classes,
        input_shape=input_shape,
        include_preprocessing=preprocessing,
        classifier_activation=None,
    )
    if source is not None:
        trained = build(**arguments, weights=source, include_top=False)
        for layer in trained.layers:
            network.get_layer(layer.name).set_weights(layer.get_weights())
    return network


def as_trained(network, recipe, seed):
    """The network in the form in which it is trained, on the same weights."""
    if recipe.drop_blocks is not None:
        network = with_blocks_dropped(network, recipe, seed)
    return compiled(network) if recipe.compiled else network


def compiled(network):
    """The network as one program, if such can hold it in training."""
    for layer in network.layers:
        if getattr(layer, "seed_generator", None) is not None:
            raise ValueError(
                "A recipe's `compiled` should be False for networks that draw "
                "random numbers in training. Received: compiled=True for one "
                f"with the {type(layer).__name__} '{layer.name}'"
            )
    return keras_resfam.compiled(network)


def with_blocks_dropped(network, recipe, seed):
    """The network as it is trained on some of its blocks at a time."""
    unknown = recipe.drop_blocks.keys() - {"active", "survival", "scale"}
    if unknown:
        raise ValueError(
            "A recipe's `drop_blocks` should have active or survival, and "
            f"scale. Received: drop_blocks={recipe.drop_blocks}"
        )
    if recipe.drop_blocks.get("scale") == "inference":
        raise ValueError(
            "A recipe's `drop_blocks` should scale in training or not at all: "
            "what is saved, and measured later, is the network without scales. "
            f"Received: drop_blocks={recipe.drop_blocks}"
        )
    from keras_resfam.analysis import drop_blocks

    return drop_blocks(network, **recipe.drop_blocks, seed=seed)


def describe(recipe, seed, task, preprocessing):
    """Returns what `recipe.json` says of a run."""
    description = {
        **dataclasses.asdict(recipe),
        "classes": task.classes,
        "input_shape": list(task.input_shape),
        "steps_per_epoch": task.epochs.steps,
        "preprocessing": preprocessing,
        "seed": seed,
        **means(recipe),
        "training_data": task.checksum,
    }
    # As JSON gives it back: tuples become lists.
    return json.loads(json.dumps(description))


def means(recipe):
    """By what a run is trained; it may go on by others."""
    return {
        "backend": keras.backend.backend(),
        "compiled": recipe.compiled,
        "keras": keras.__version__,
        "command": shlex.join(["python", *sys.argv]),
    }


def check_folder(folder, description):
    """Refuses a folder that holds another run."""
    path = folder / "recipe.json"
    if not path.exists():
        return
    begun = read_json(path)
    for key, (there, here) in differences(begun, description).items():
        raise ValueError(
            f"{folder} holds a run with {key}={there!r}: go on with its "
            f"command, or give another `--run-dir`. Received: {key}={here!r}"
        )


def write_description(folder, description):
    """Writes `recipe.json` where a run begins."""
    if not (folder / "recipe.json").exists():
        _write_description(folder, description)


def note_other_means(run):
    """Adds to `recipe.json` where a run goes on with another backend.

    Or with another version of Keras, or in another form. Where nothing is left
    of what it began with, it begins with these.
    """
    if run.result.exists():
        return
    path = run.folder / "recipe.json"
    description = read_json(path)
    continued = description.pop("continued", []) if run.step else []
    before, now = [description, *continued][-1], means(run.trainer.recipe)
    if all(before.get(key) == now[key] for key in now.keys() - {"command"}):
        return
    if run.step:
        place = {"epoch": run.epoch + 1, "batch": run.batch}
        description["continued"] = [*continued, {**place, **now}]
    else:
        description |= now
    _write_description(run.folder, description)


def _write_description(folder, description):
    path = folder / "recipe.json"
    with checkpoints.writing("recipe.json", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            write_json(partial, description)
