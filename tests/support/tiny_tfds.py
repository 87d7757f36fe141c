"""A small real TFDS data_dir."""

import tensorflow_datasets as tfds


def write_images(
    data_dir,
    name,
    images,
    labels,
    classes,
    sized=True,
    shards=1,
    image=None,
    label=None,
):
    """Writes a data set; its "test" is its "train" again.

    Args:
        data_dir: Path.
        name: String.
        images: uint8 array, or list of arrays that differ in size.
        labels: Sequence of integers.
        classes: Integer.
        sized: Boolean. Whether the data set says of which size its images
            are.
        shards: Integer. With more than one, the data set is shuffled among
            them, and has no "test".
        image, label: TFDS features. Default to PNG and the classes.
    """
    shape = images[0].shape if sized else (None, None, 3)
    features = tfds.features.FeaturesDict(
        {
            "image": image
            or tfds.features.Image(shape=shape, encoding_format="png"),
            "label": label or tfds.features.ClassLabel(num_classes=classes),
        }
    )
    pairs = zip(images, labels, strict=True)
    examples = [
        (key, {"image": x, "label": y}) for key, (x, y) in enumerate(pairs)
    ]
    splits = {"train": examples, "test": examples}
    if shards > 1:
        del splits["test"]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=features,
        split_datasets=splits,
        data_dir=str(data_dir),
        download_config=tfds.download.DownloadConfig(num_shards=shards),
        disable_shuffling=shards == 1,
    )
