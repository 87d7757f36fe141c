"""A small real TFDS data_dir."""

import tensorflow_datasets as tfds


def write_images(data_dir, name, images, labels, classes, sized=True):
    """Writes a data set; its "test" is its "train" again.

    Args:
        data_dir: Path.
        name: String.
        images: uint8 array, or list of arrays that differ in size.
        labels: Sequence of integers.
        classes: Integer.
        sized: Boolean. Whether the data set says of which size its images
            are.
    """
    shape = images[0].shape if sized else (None, None, 3)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape, encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=classes),
        }
    )
    examples = [
        (key, {"image": image, "label": int(label)})
        for key, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=features,
        split_datasets={"train": examples, "test": examples},
        data_dir=str(data_dir),
        disable_shuffling=True,
    )
