"""Measures classifiers."""

import importlib

import keras
import numpy as np

from keras_resfam import graphs
from keras_resfam._checks import are_probabilities, check_images, check_outputs
from training.images import evaluation, reading

BINS = 15  # of the calibration error


def evaluate(model, batches, class_names=None):
    """Measures a classifier.

    Args:
        model: `keras.Model` from raw images to logits of shape `(batch,
            classes)`.
        batches: iterable of `(images, labels)`, which is read once. Images
            have the shape `(batch, height, width, channels)`, and labels are
            ints of shape `(batch,)`.
        class_names: sequence of str. Defaults to `None`, the numbers of the
            classes.

    Returns:
        A dict of "examples"; in percent "accuracy", "error", "top5_error" (the
        label is not among the five most likely classes, only with more than
        five classes), "calibration_error" (expected, in 15 bins of equal width)
        and "per_class", a dict of errors by class name; and "nll", the mean
        negative log-likelihood in nats.

    Raises:
        ValueError: If images or labels do not fit the model, or its outputs
            are not finite or are probabilities.
    """
    logits, labels = logits_of(model, batches)
    return metrics(log_softmax(logits), labels, class_names)


def logits_of(model, batches, labeled=True):
    """Runs a classifier.

    Args:
        model: `keras.Model` from raw images to logits.
        batches: iterable of `(images, labels)`, as `evaluate` takes it.
        labeled: bool. Whether the labels are the classifier's classes.

    Returns:
        `(logits, labels)`: float64 array of shape `(examples, classes)` and
        integer array of shape `(examples,)`.

    Raises:
        ValueError: As `evaluate` does.
    """
    moments = graphs.image_moments(model)
    outputs, answers = [], []
    for x, y in batches:
        check_images("batches", x, model.input_shape[1:], moments)
        outputs.append(np.asarray(model.predict_on_batch(x), "float64"))
        answers.append(np.asarray(y).reshape(-1))
    outputs, answers = np.concatenate(outputs), np.concatenate(answers)
    check_outputs(outputs, model.name)
    if are_probabilities(outputs):
        raise ValueError(
            "`model` should return logits, or have a softmax in its graph. "
            f"Received: {model.name}, whose outputs are probabilities"
        )
    if labeled:
        reading.check_labels("the data set", answers, outputs.shape[-1])
    return outputs, answers


def log_softmax(logits):
    """Returns the logarithms of the probabilities, from logits."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def metrics(logs, labels, class_names=None):
    """Returns the numbers that `evaluate` returns, from log-probabilities.

    Args:
        logs: float64 array of shape `(examples, classes)`.
        labels: int array of shape `(examples,)`.
        class_names: sequence of str. Defaults to the numbers.
    """
    examples, classes = logs.shape
    names = class_names or [str(k) for k in range(classes)]
    rows = np.arange(examples)
    ranked = np.argsort(-logs, axis=1, kind="stable")
    right = ranked[:, 0] == labels
    among = (ranked[:, :5] == labels[:, None]).any(axis=1)
    top5 = {"top5_error": _percent(~among)} if classes > 5 else {}
    return {
        "examples": examples,
        "accuracy": _percent(right),
        "error": _percent(~right),
        **top5,
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
    gaps = [
        row["examples"] * abs(row["confidence"] - row["accuracy"])
        for row in reliability(confidence, right)
    ]
    return float(np.sum(gaps) / len(right))


def reliability(confidence, right):
    """Returns how often answers are right, by how certain they are.

    Args:
        confidence: float64 array of shape `(examples,)`. The largest
            probabilities.
        right: bool array of shape `(examples,)`.

    Returns:
        A list of dicts, of the bins of equal width that are not empty: "bin",
        from 0 to 14, "examples", and in percent the means "confidence" and
        "accuracy".
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "bin": k,
            "examples": int(np.sum(bins == k)),
            "confidence": float(100 * np.mean(confidence[bins == k])),
            "accuracy": _percent(right[bins == k]),
        }
        for k in range(BINS)
        if (bins == k).any()
    ]


def _percent(chosen):
    # The integers make 6.48 % the float 6.48, and not one next to it.
    return float(100 * int(np.sum(chosen)) / len(chosen))


def result(
    model, description, dataset, split, data_dir, command, ask=lambda x, y: {}
):
    """Measures a network on a split of a data set, for result.json.

    Args:
        model: `keras.Model` from raw images to logits.
        description: dict. What `loading.load_network` says of the network.
        dataset: str. The network's own, or another.
        split: str. Of the data set.
        data_dir: See `reading.load`.
        command: str. The command that measures it.
        ask: callable that takes the logits and the labels, and returns a dict
            of other entries. Defaults to one that returns none.
    """
    batches, names = evaluation.load_data(dataset, split, description, data_dir)
    evaluation.check_classes(model, dataset, names)
    logits, labels = logits_of(model, batches)
    backend = keras.backend.backend()
    return {
        "dataset": dataset,
        "split": split,
        **metrics(log_softmax(logits), labels, names),
        **ask(logits, labels),
        "backend": backend,
        "versions": {
            package: importlib.import_module(package).__version__
            for package in ("keras", backend, "numpy")
        },
        "command": command,
    }
