"""Measures a trained network on a test set.

    python training/evaluate.py runs/digits
    python training/evaluate.py runs/digits/best.weights.h5
    python training/evaluate.py weights/dmrnet_8_digits
    python training/evaluate.py cifar10 --builder DMRNet --set depth=14

The network is a training run, a file of its weights, a folder of `weights/`,
or what a builder takes as `weights`. Of a run, the numbers go into its
result.json. The model card of a folder has those that are printed of it.
"""

import importlib
import json
import pathlib
import shlex
import sys

import numpy as np

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.startup import command_line

BINS = 15  # of the calibration error


def evaluate(model, batches, class_names=None):
    """Measures a classifier.

    Args:
        model: `keras.Model` from raw images to logits of shape `(batch,
            classes)`.
        batches: Iterable of `(images, labels)`, to be gone through once: an
            array of shape `(batch, height, width, channels)` and integers of
            shape `(batch,)`.
        class_names: Sequence of strings. Defaults to the numbers.

    Returns:
        Dict. "examples"; in percent "accuracy", "error", "top5_error" (an
        answer counts that is among the five likeliest), "calibration_error"
        (expected, in 15 bins of equal width) and "per_class", a dict of
        errors by class name; "nll" is the mean negative log-likelihood, in
        nats.

    Raises:
        ValueError: If images or labels do not fit the model, or its logits
            are not finite.
    """
    from keras_resfam._checks import check_images
    from training.images import reading

    outputs, answers = [], []
    for x, y in batches:
        check_images(x, model.input_shape[1:])
        outputs.append(np.asarray(model.predict_on_batch(x), "float64"))
        answers.append(np.asarray(y).reshape(-1))
    outputs, answers = np.concatenate(outputs), np.concatenate(answers)
    broken = int(np.sum(~np.isfinite(outputs).all(axis=1)))
    if broken:
        raise ValueError(
            "The network should give finite logits. Received: others for "
            f"{broken} of {len(outputs)} images"
        )
    reading.check_labels("the data set", answers, outputs.shape[-1])
    outputs = outputs - outputs.max(axis=1, keepdims=True)
    logs = outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
    return measures(logs, answers, class_names)


def measures(logs, labels, class_names=None):
    """The numbers of `evaluate`, from log-probabilities.

    Args:
        logs: float64 array of shape `(examples, classes)`.
        labels: Integer array of shape `(examples,)`.
        class_names: Sequence of strings. Defaults to the numbers.
    """
    examples, classes = logs.shape
    names = class_names or [str(k) for k in range(classes)]
    rows = np.arange(examples)
    ranked = np.argsort(-logs, axis=1, kind="stable")
    right = ranked[:, 0] == labels
    among = (ranked[:, :5] == labels[:, None]).any(axis=1)
    return {
        "examples": examples,
        "accuracy": _percent(right),
        "error": _percent(~right),
        "top5_error": _percent(~among),
        "nll": float(-logs[rows, labels].mean()),
        "calibration_error": calibration_error(np.exp(logs.max(axis=1)), right),
        "per_class": {
            name: _percent(~right[labels == k])
            for k, name in enumerate(names)
            if (labels == k).any()
        },
    }


def calibration_error(confidence, right):
    """Expected calibration error, in percent (Guo et al. 2017, section 2)."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(np.sum(confidence[bins == k]) - np.sum(right[bins == k]))
        for k in range(BINS)
    ]
    return float(100 * np.sum(gaps) / len(right))


def _percent(chosen):
    # Of integers, so that 6.48 % is 6.48 and no neighbour of it.
    return float(100 * int(np.sum(chosen)) / len(chosen))


def add_network(add):
    """Adds the options that name a network, with a parser's `add_argument`."""
    add(
        "network",
        help="a run, or one of its .weights.h5 files; a folder of weights/; "
        "or, with --builder, what the builder takes as `weights`",
    )
    add("--builder", help="such as DMRNet")
    add(
        "--set",
        action="append",
        default=[],
        metavar="ARGUMENT=VALUE",
        help="an argument of the builder, such as depth=14",
    )


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add_network(add)
    add("--dataset", help="another than the network's own")
    add("--split", help="of the data set (default: its test split)")
    add("--data-dir", metavar="PATH", help="as for train.py")
    command_line.add_backend(add)
    add(
        "--output",
        type=pathlib.Path,
        metavar="PATH",
        help="where the numbers go (default: result.json of a run, for its "
        "test split; nowhere else)",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    command_line.choose_backend(options.backend)
    from keras_resfam._files import write_json

    with command_line.in_a_line("evaluate.py"):
        command_line.check_file("--output", options.output)
        model, recipe = load_network(options)
        dataset = options.dataset or recipe["dataset"]
        own = own_split(recipe, dataset, options.data_dir)
        split = options.split or own
        weights = weights_of(options)
        command = shlex.join(["python", *sys.argv])
        measured = measure(
            model, recipe, dataset, split, options.data_dir, command
        )
        result = measured | weights
        print(json.dumps(result, indent=2))
        output = options.output
        usual = dataset == recipe["dataset"] and split == own
        if output is None and usual and _is_run(options.network):
            output = pathlib.Path(options.network) / "result.json"
        if output is not None:
            write_json(output, result)


def weights_of(options):
    """Which file of weights the numbers will be of, of a run."""
    from keras_resfam.pretrained.files import describe

    file = run_file(options)
    return {"weights": describe(file.read_bytes())} if file else {}


def measure(model, recipe, dataset, split, data_dir, command):
    """What a result.json says: the numbers of a network, and of what they are.

    Args:
        model: `keras.Model` from raw images to logits.
        recipe: Dict. What the network is trained by.
        dataset: String. The recipe's, or another.
        split: String. Of the data set.
        data_dir: See `reading.load`.
        command: String. What measures this.
    """
    import keras

    batches, names = load_data(dataset, split, recipe, data_dir)
    check_classes(model, dataset, names)
    backend = keras.backend.backend()
    return {
        "dataset": dataset,
        "split": split,
        **evaluate(model, batches, names),
        "backend": backend,
        "versions": {
            package: importlib.import_module(package).__version__
            for package in ("keras", backend, "numpy")
        },
        "command": command,
    }


def _is_run(network):
    """Whether it is a run's folder: those of weights/ have a config.json."""
    folder = pathlib.Path(network)
    return (folder / "recipe.json").is_file() and not (
        folder / "config.json"
    ).exists()


def run_file(options):
    """The weights of a run that are meant; `None` for weights of elsewhere."""
    path = pathlib.Path(options.network)
    is_file = path.name.endswith(".weights.h5")
    file = path if is_file else path / "model.weights.h5"
    return file if _is_run(file.parent) else None


def load_network(options):
    """Returns the network, with logits for outputs, and its recipe, a dict."""
    if options.set and options.builder is None:
        raise ValueError(
            "`--set` should come with `--builder`, whose arguments it gives. "
            f"Received: --set {options.set[0]}"
        )
    file, path = run_file(options), pathlib.Path(options.network)
    if file is not None and options.builder is not None:
        raise ValueError(
            "`--builder` should not be given for a run, whose recipe.json "
            f"names it. Received: --builder {options.builder} for {path}"
        )
    if file is not None:
        return _load_run(file)
    if options.builder is None and (path / "recipe.json").is_file():
        from keras_resfam._files import read_json

        recipe = read_json(path / "recipe.json")
        model, _ = _load_weights(
            recipe["builder"], recipe["arguments"], options.network
        )
        return model, recipe
    return _load_weights(
        options.builder, builder_arguments(options), options.network
    )


def builder_arguments(options):
    """What `--set` gives: `depth=14`, or `arguments.depth=14` as train.py."""
    from keras_resfam.models import families
    from training.recipes import parse_setting

    find_builder(options.builder, options.network)
    settings = map(parse_setting, options.set)
    arguments = {k.removeprefix("arguments."): v for k, v in settings}
    known = families.defaults(options.builder)
    if not arguments.keys() <= known.keys():
        raise ValueError(
            f"`--set` takes the arguments of {options.builder}: "
            f"{', '.join(known) or 'none'}. Received: --set {options.set}"
        )
    return arguments


def _load_run(file):
    """A network as the recipe.json beside its file of weights describes it."""
    from keras_resfam._files import read_json
    from keras_resfam.models import families

    if not file.is_file():
        raise ValueError(
            f"`network` should be a run that is complete; {file} not found. "
            f"Received: {file.parent}"
        )
    recipe = read_json(file.parent / "recipe.json")
    model = families.get(recipe["builder"])(
        **recipe["arguments"],
        weights=str(file),
        classes=recipe["classes"],
        input_shape=tuple(recipe["input_shape"]),
        include_preprocessing=recipe["preprocessing"],
        classifier_activation=None,
    )
    return model, recipe


def _load_weights(name, arguments, weights):
    """What a builder makes of `weights`, and what is known of their data."""
    from keras_resfam.models import families
    from keras_resfam.pretrained import sources

    builder = find_builder(name, weights)
    source = sources.find(
        weights, name, {**families.defaults(name), **arguments}
    )
    if source.dataset is None:
        raise ValueError(
            "A file of weights should lie in the folder of its run, whose "
            "recipe.json says how images were normalised. "
            f"Received: {weights}"
        )
    model = builder(**arguments, weights=source, classifier_activation=None)
    return model, {
        "builder": name,
        "arguments": arguments,
        "dataset": source.dataset,
        "test_split": test_split(source.dataset),
        "image_size": 224 if source.dataset == "imagenet2012" else None,
    }


def find_builder(name, weights):
    """The builder of a name, for weights that do not tell theirs."""
    from keras_resfam.models import families

    if name not in families.names():
        raise ValueError(
            f"{weights} is no run and no folder of weights/; for other "
            "weights, `--builder` should be a builder of keras_resfam. "
            f"Received: --builder {name}"
        )
    return families.get(name)


def test_split(dataset):
    """The split of a data set that no network is trained on."""
    return "validation" if dataset == "imagenet2012" else "test"


def own_split(recipe, dataset, data_dir):
    """What a network is measured on: its recipe's test split.

    Of a data set that has none, what the run has held out.

    Args:
        recipe: Dict.
        dataset: String. The recipe's, or another.
        data_dir: See `reading.load`.
    """
    from training.images import reading

    if dataset != recipe["dataset"]:
        return test_split(dataset)
    split, count = recipe["test_split"], recipe.get("validation")
    if not count or reading.has_split(dataset, split, data_dir):
        return split
    return reading.split_in_two(recipe["train_split"], count)[1]


def load_data(dataset, split, recipe, data_dir):
    """Returns the batches of a data set, and the names of its classes."""
    from training.images import reading

    names = reading.class_names(dataset, data_dir)
    if recipe.get("image_size") and not reading.in_memory(dataset, data_dir):
        builder = reading.tfds_builder(dataset, data_dir)
        from training.images import streams

        batches = streams.in_order(builder, split, recipe["image_size"])
        return batches.as_numpy_iterator(), names
    images, labels = reading.load(dataset, split, data_dir)
    reading.check_some(dataset, split, len(labels))
    return in_batches(images, labels), names


def check_classes(model, dataset, names):
    """Refuses a data set of other classes than the network's, if it is known.

    Args:
        model: `keras.Model`.
        dataset: String.
        names: Sequence of the classes' names, or `None`.
    """
    classes = model.output_shape[-1]
    if names and len(names) != classes:
        raise ValueError(
            f"`dataset` should have the {classes} classes of the network. "
            f"Received: {dataset}, which has {len(names)}"
        )


def in_batches(images, labels, size=100):
    """Yields arrays in batches `(images, labels)`.

    Small ones: eager torch keeps what all layers return until the last has
    run, 3.6 GB for 100 images in WRN-28-10.
    """
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        yield images[rows], labels[rows]


def first(batches, examples=None):
    """The arrays of the first examples, or of all."""
    chosen, count = [], 0
    for batch in batches:
        chosen.append(batch)
        count += len(batch[1])
        if examples is not None and count >= examples:
            break
    images, labels = map(np.concatenate, zip(*chosen, strict=True))
    return images[:examples], labels[:examples]


if __name__ == "__main__":
    command_line.run(main)
