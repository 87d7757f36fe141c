"""Loads the trained network that the options of a command name."""

import pathlib
import zipfile

import keras

import keras_resfam
from keras_resfam import graphs
from keras_resfam.datasets import DATASETS
from keras_resfam.models import families
from keras_resfam.pretrained import sources
from keras_resfam.pretrained.files import RECIPE, WEIGHTS, describe
from training.images import reading
from training.images.evaluation import test_split
from training.recipes import parse_setting
from training.run import run_folder
from training.run.description import read as read_description


def load_network(options):
    """Loads the network that the options name.

    Returns:
        A pair: the `keras.Model`, which returns logits, and a dict. The dict is
        the recipe.json of the run or folder, or else it has the builder, its
        arguments and the data set.
    """
    if options.set and options.builder is None:
        raise ValueError(
            "`--set` should come with `--builder`, whose arguments it gives. "
            f"Received: --set {options.set[0]}"
        )
    file, path = run_file(options), pathlib.Path(options.network)
    if path.suffix == ".keras":
        return _load_keras_file(path, options)
    if file is not None and options.builder is not None:
        raise ValueError(
            "`--builder` should not be given for a run, whose recipe.json "
            f"names it. Received: --builder {options.builder} for {path}"
        )
    if file is not None:
        return _load_run(file)
    if options.builder is None and (path / RECIPE).is_file():
        description = read_description(path / RECIPE)
        model, _ = _load_weights(
            description["builder"],
            description["arguments"],
            options.network,
            description["dataset"],
        )
        return model, description
    return _load_weights(
        options.builder,
        builder_arguments(options),
        options.network,
        options.dataset,
    )


def title(model, description):
    """Returns the call that builds a network, or the name of a saved model."""
    if description["builder"] is None:
        return model.name
    return families.call(description["builder"], description["arguments"])


def run_file(options):
    """Returns the file of weights of the named run, or `None`."""
    path = pathlib.Path(options.network)
    is_file = path.name.endswith(".weights.h5")
    file = path if is_file else path / WEIGHTS
    # If a folder has the name of a data set, the latter takes precedence.
    if options.builder is not None and options.network in sources.names():
        return None
    return file if run_folder.is_run(file.parent) else None


def describe_weights(options):
    """Returns the size and SHA-256 of a run's weights, for its result.json."""
    file = run_file(options)
    return {"weights": describe(file.read_bytes())} if file else {}


def build(options, **common):
    """Builds a network for color images with the weights that are named.

    Args:
        options: Namespace. Has what `command_line.add_pretrained` adds.
        **common: Arguments that all builders take.
    """
    builder = find_builder(options.builder, options.network)
    return builder(
        **builder_arguments(options),
        weights=options.network,
        input_shape=(options.image_size, options.image_size, 3),
        **common,
    )


def builder_arguments(options):
    """Returns the builder's arguments from `--set`, such as `depth=14`."""
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
    """Builds the network that the recipe.json beside its weights describes."""
    if not file.is_file():
        raise ValueError(
            f"`network` should be a run that is complete; {file} not found. "
            f"Received: {file.parent}"
        )
    description = read_description(file.parent / RECIPE)
    model = families.get(description["builder"])(
        **description["arguments"],
        weights=str(file),
        classes=description["classes"],
        input_shape=tuple(description["input_shape"]),
        include_preprocessing=description["preprocessing"],
        classifier_activation=None,
    )
    return model, description


def _load_weights(name, arguments, weights, dataset):
    """Builds a network with `weights`, and describes their data set."""
    builder = find_builder(name, weights)
    source = sources.find(
        weights, name, {**families.defaults(name), **arguments}
    )
    normalized = source.dataset or source.preprocessing
    dataset = source.dataset or dataset
    record = reading.record_of(dataset or "")
    if dataset is None or not (normalized or record):
        raise ValueError(
            "A file of weights should be in the folder of its run, whose "
            "recipe.json states how images were normalized, or `--dataset` "
            "should be a data set of keras_resfam that it was trained on. "
            f"Received: {weights}, --dataset {dataset}"
        )
    data = {}
    if not normalized:
        data["include_preprocessing"] = record.name
        data["input_shape"] = record.image_shape
    model = builder(
        **arguments, **data, weights=source, classifier_activation=None
    )
    return model, {
        "builder": name,
        "arguments": arguments,
        **_of_dataset(dataset, model),
    }


def _of_dataset(dataset, model):
    """Returns the description of a data set, if there is no recipe.json."""
    shape, record = model.input_shape[1:], reading.record_of(dataset)
    of_that_size = record is not None and shape == record.image_shape
    varied = record is DATASETS["imagenet2012"] or not of_that_size
    transform = {}
    if graphs.image_moments(model) is not None:
        transform = keras_resfam.image_transform(model)
    return {
        "dataset": dataset,
        "test_split": test_split(dataset),
        "image_size": shape[0] if varied else None,
        "transform": {
            key: value
            for key, value in transform.items()
            if key in ("crop", "interpolation")
        },
    }


def _load_keras_file(path, options):
    """Loads a saved model, without its softmax."""
    if options.builder is not None or options.dataset is None:
        raise ValueError(
            "A .keras file should come without `--builder` and with "
            "`--dataset`, which names the data that the model was trained on. "
            f"Received: {path}, --builder {options.builder}, "
            f"--dataset {options.dataset}"
        )
    try:
        model = keras.saving.load_model(path)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`network` should be a model that Keras can load. {error} "
            f"Received: {path}"
        ) from error
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            "`network` should be a model of images of one size. "
            f"Received: {path} with inputs of shape {shape}"
        )
    outputs = model.output_shape
    if not isinstance(outputs, tuple) or len(outputs) != 2:
        raise ValueError(
            "`network` should be a classifier with outputs of shape (batch, "
            f"classes). Received: {path} with outputs of shape {outputs}"
        )
    return without_softmax(model), {
        "builder": None,
        "arguments": {},
        **_of_dataset(options.dataset, model),
    }


def without_softmax(model):
    """Returns a classifier without its softmax, which shares the weights.

    The softmax may be that of a nested model. A softmax that is not in a graph,
    such as that of a subclass of `keras.Model`, stays. `accuracy` refuses its
    outputs.
    """
    if not graphs.is_graph(model):
        return model
    graph = graphs.flat(graphs.read(model))
    steps = graphs.needed(graph.steps, graph.outputs)
    k = graphs.softmax_step(steps)
    if k is None:
        return model
    step = steps[k]
    if not graphs.is_softmax(step.operation):
        step.operation.activation = keras.activations.linear
        return model
    steps[k] = graphs.alias(step.inputs[0], step.outputs[0])
    (image,), values = graphs.run_on_inputs(steps, graph.inputs)
    return keras.Model(image, values[id(graph.outputs[0])], name=model.name)


def find_builder(name, weights):
    """Returns the builder of that name, for weights that do not name theirs."""
    if name not in families.names():
        raise ValueError(
            f"{weights} is neither a run nor a folder of weights/; for other "
            "weights, `--builder` should be a builder of keras_resfam. "
            f"Received: --builder {name}"
        )
    return families.get(name)
