"""Reads the images of a recipe for `fit` and `evaluate`."""

import dataclasses

from training.images import batches, folders, reading


@dataclasses.dataclass
class Task:
    """The data of a recipe: what `fit` and `evaluate` take."""

    epochs: object
    evaluation: object
    classes: int
    input_shape: tuple
    checksum: str  # of the training data
    evaluation_checksum: str
    class_names: tuple | None  # if the package does not know the data set


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
        if not folders.is_root(data_dir):
            return _streamed_task(recipe, seed, data_dir, devices)
    kept, held_out = reading.split_in_two(recipe.train_split, recipe.validation)
    split = held_out or recipe.test_split
    train, evaluation = (
        _read(recipe, part, data_dir) for part in (kept, split)
    )
    if held_out:
        check_held_out(recipe.validation, train[1], evaluation[1])
    for part, (_, labels) in ((kept, train), (split, evaluation)):
        reading.check_not_empty(recipe.dataset, part, len(labels))
    classes = reading.classes_of(recipe.dataset, train[1], data_dir)
    reading.check_labels(recipe.dataset, evaluation[1], classes)
    check_same_shape(split, evaluation[0], train[0])
    return Task(
        _epochs(*train, recipe, seed, devices.shard),
        _in_order(*evaluation, devices),
        classes,
        train[0].shape[1:],
        reading.checksum(*train),
        reading.checksum(*evaluation),
        _unknown_names(recipe.dataset, data_dir),
    )


def _read(recipe, split, data_dir):
    """Returns the images and labels of a split, in memory or in files."""
    name, size = recipe.dataset, recipe.image_size
    if size is None:
        return reading.load(name, split, data_dir)
    return reading.photographs(name, split, data_dir, size)


def _epochs(images, labels, recipe, seed, shard):
    """Returns the images to train on, in batches."""
    if recipe.image_size is not None:
        return folders.Epochs(images, labels, recipe, seed, shard)
    return batches.Epochs(
        images, labels, recipe.batch_size, seed, recipe.mixup, shard
    )


def _in_order(images, labels, devices):
    """Returns the images to evaluate on, in batches."""
    in_files = isinstance(images, folders.Photographs)
    size = devices.multiple(100 if in_files else 500)
    in_order = batches.InOrder(
        images, labels, size, devices.shard, full=devices.count > 1
    )
    return devices.spread(in_order, size)


def _unknown_names(dataset, data_dir):
    """Returns the names of the classes if only the data have them."""
    if reading.record_of(dataset) is not None:
        return None
    return reading.class_names(dataset, data_dir)


def check_colors(recipe, channels):
    """Checks that a recipe changes the colors of RGB images only."""
    for field in ("jitter", "lighting"):
        value = getattr(recipe, field)
        if value and channels != 3:
            raise ValueError(
                f"A recipe's `{field}` should be 0 for images of {channels} "
                f"channels. Received: {field}={value}"
            )


def check_same_shape(split, images, trained):
    """Checks that evaluation images have the shape of training images."""
    if images.shape[1:] != trained.shape[1:]:
        raise ValueError(
            f"The images of {split} should be of the shape "
            f"{trained.shape[1:]}, as those to train on. "
            f"Received: images of shape {images.shape[1:]}"
        )


def check_held_out(count, train, held_out):
    """Checks that not all images of a class are held out.

    Args:
        count: int. The recipe's `validation`.
        train, held_out: int arrays, the labels of the two parts.
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
        *2 * [reading.tfds_checksum(builder)],
        _unknown_names(recipe.dataset, data_dir),
    )
