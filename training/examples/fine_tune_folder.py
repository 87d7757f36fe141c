"""Fine-tunes a network with pretrained weights on a folder of images.

    python training/examples/fine_tune_folder.py imagenet --builder ResNet18 \\
        --data-dir photos --out photos.keras

The images are photos/train/<class>/*.jpg and photos/test/<class>/*.jpg. First,
a classifier is trained on the features of the pretrained network, which are
computed once. Then the whole network is trained with a low learning rate. The
test accuracies of both are printed.

The model is saved with the names of its classes beside it, in photos.json. For
more augmentation, and to continue after an interruption, use the recipe
`fine_tune` of train.py.
"""

import json
import pathlib
import sys

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[2])

from training.startup import backend, command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    command_line.add_pretrained(add)
    add("--data-dir", type=pathlib.Path, required=True, metavar="PATH")
    add("--out", type=pathlib.Path, required=True, metavar="PATH.keras")
    add("--epochs", type=command_line.positive, default=5)
    add("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args(arguments)
    if options.out.suffix != ".keras":
        parser.error(f"--out should end in .keras. Received: {options.out}")
    return options


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("fine_tune_folder.py"):
        command_line.check_file("--out", options.out)
        backend.start(options.backend)
        from training.networks import loading

        names = classes(options.data_dir)
        backbone = loading.build(options, include_top=False, pooling="avg")
        train, test = (
            read(backbone, options.data_dir, split, names)
            for split in ("train", "test")
        )
        model = with_classifier(backbone, train, len(names))
        print(f"classifier alone: {accuracy(model, test):.2f} % right")
        train_all(model, train, options)
        print(f"whole network: {accuracy(model, test):.2f} % right")
        model.save(options.out)
    names_file = options.out.with_suffix(".json")
    names_file.write_text(json.dumps(names, indent=1) + "\n")
    print(f"Written: {options.out} and {names_file}")


def classes(data_dir):
    """Returns the names of the classes, which are those of the folders."""
    from training.images import folders

    if not folders.is_root(data_dir):
        raise ValueError(
            "`--data-dir` should have images in train/<class>/ and "
            f"test/<class>/. Received: --data-dir {data_dir}"
        )
    return list(folders.classes(data_dir))


def read(model, data_dir, split, names):
    """Returns the images of a split, cropped for the model, and labels."""
    import keras_resfam
    from training.images import folders

    paths, labels = folders.files(data_dir, split, names)
    transform = keras_resfam.image_transform(model)
    return keras_resfam.load_images(paths, **transform), labels


def with_classifier(backbone, data, classes):
    """Adds a linear classifier, trained on the features of a network.

    The model is a functional one, in which `keras_resfam.analysis` finds the
    blocks of the network.
    """
    import keras

    features = backbone.predict(data[0], batch_size=32, verbose=0)
    classifier = keras.layers.Dense(
        classes, "softmax", kernel_initializer="zeros", name="predictions"
    )
    probe = keras.Sequential([keras.Input(features.shape[1:]), classifier])
    optimizer = keras.optimizers.Adam(1e-2)
    probe.compile(optimizer, "sparse_categorical_crossentropy")
    probe.fit(features, data[1], epochs=100, verbose=0)
    return keras.Model(backbone.input, classifier(backbone.output))


def train_all(model, data, options):
    """Trains all layers, with half of the images mirrored."""
    import keras
    import numpy as np

    images, labels = data
    size, epochs = options.batch_size, options.epochs
    steps = epochs * -(-len(labels) // size)
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        order = rng.permutation(len(labels))
        mirrored = rng.random((len(labels), 1, 1, 1)) < 0.5
        model.fit(
            np.where(mirrored, images[:, :, ::-1], images)[order],
            labels[order],
            batch_size=size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=2,
        )


def accuracy(model, data):
    """Returns the share of images that are classified correctly, in percent."""
    answers = model.predict(data[0], batch_size=32, verbose=0).argmax(axis=1)
    return 100 * (answers == data[1]).mean()


if __name__ == "__main__":
    command_line.run(main)
