"""Deletes each block of an ImageNet network, and measures what it loses.

    python training/examples/lesion_study_imagenet.py --images imagenette/val \\
        --out lesions.csv

The network is `ResNet50(weights="imagenet")` unless others are named, such as
`hf://timm/resnet101.a1_in1k --builder ResNet101`. The images are
<class>/<image>, where a class is a WordNet id or a name of ImageNet's classes,
such as n01440764 or tench. The folder need not have all classes; the network
chooses among 1,000. Images are cut as by `keras_resfam.predict_images`.

The errors are printed, the worst first, and written to a CSV file. The same
command continues an interrupted study. `analyse.py` runs all studies of Veit et
al. 2016 (https://arxiv.org/abs/1605.06431).
"""

import pathlib
import sys

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[2])

from training.startup import backend, command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    command_line.add_pretrained(add, builder="ResNet50")
    add("--images", type=pathlib.Path, required=True, metavar="PATH")
    add(
        "--examples",
        type=command_line.positive,
        help="the number of images (default: all)",
    )
    add("--out", type=pathlib.Path, required=True, metavar="PATH.csv")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    with command_line.exit_on_error("lesion_study_imagenet.py"):
        command_line.check_file("--out", options.out)
        backend.start(options.backend)
        from keras_resfam import analysis

        model = load(options)
        records = analysis.lesion_study(
            model,
            read(options, model),
            max_deletions=0,
            max_swaps=0,
            max_repetitions=0,
            batch_size=options.batch_size,
            output=options.out,
        )
    (intact,) = (row for row in records if row["study"] == "intact")
    lesions = [row for row in records if row["study"] == "deletion"]
    print(f"error of {intact['network']}: {intact['error']:.2f} %")
    for row in sorted(lesions, key=lambda row: -row["error"]):
        print(f"without {row['blocks']}: {row['error']:.2f} %")
    print(f"Written: {options.out}")


def read(options, model):
    """Returns the images, cut as the model takes them, and their labels."""
    import keras_resfam
    from training.images import folders

    root = options.images.resolve()
    names = folders.classes_in("--images", root)
    labels = labels_of(names)
    paths, numbers = folders.files(root.parent, root.name, names)  # shuffled
    images = keras_resfam.load_images(
        paths[: options.examples], **keras_resfam.image_transform(model)
    )
    return images, labels[numbers[: options.examples]]


def labels_of(names):
    """ImageNet's labels of classes that folders are named by."""
    import numpy as np

    from keras_resfam.datasets import DATASETS

    imagenet = DATASETS["imagenet2012"]
    labels = {name: k for k, name in enumerate(imagenet.class_names)}
    labels |= {name: k for k, name in enumerate(imagenet.wordnet_ids)}
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise ValueError(
            "The folders in `--images` should have the WordNet ids or the "
            "names of classes of ImageNet, such as n01440764 or tench. "
            f"Received: {', '.join(unknown[:5])}"
        )
    return np.array([labels[name] for name in names])


def load(options):
    """Returns the network, which has to choose among ImageNet's classes."""
    from training.networks import loading

    model = loading.build(options)
    if model.output_shape != (None, 1000):
        raise ValueError(
            "`network` should have the 1000 classes of ImageNet. Received: "
            f"{options.network}, with {model.output_shape[-1]} classes"
        )
    return model


if __name__ == "__main__":
    command_line.run(main)
