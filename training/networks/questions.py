"""What evaluate.py measures in addition to the error."""

import pathlib

from training.images import evaluation, folders, reading
from training.networks import accuracy, reliability, trust


def check(options, model, dataset, split):
    """Checks the options before anything is measured."""
    if options.fit_on is not None and not options.calibrate:
        raise ValueError(
            "`--fit-on` should come with `--calibrate`. "
            f"Received: --fit-on {options.fit_on}"
        )
    if options.fit_on == split:
        raise ValueError(
            "`--fit-on` should be other images than those that are measured. "
            f"Received: --fit-on {options.fit_on}"
        )
    if options.examples is not None and not options.corruptions:
        raise ValueError(
            "`--examples` should come with `--corruptions`. "
            f"Received: --examples {options.examples}"
        )
    if options.corruptions and model.input_shape != (None, 32, 32, 3):
        raise ValueError(
            "`--corruptions` should come with a network of images of shape "
            "(32, 32, 3), for which the severities were chosen. Received: a "
            f"network of images of shape {model.input_shape[1:]}"
        )
    for other in options.ood:
        _check_other(other, dataset, options.data_dir)


def _check_other(other, dataset, data_dir):
    """Checks that the images of `--ood` differ from those that are measured."""
    if other.partition(":")[0] == dataset.partition(":")[0]:
        raise ValueError(
            "`--ood` should be another data set than the one that is "
            f"measured. Received: --ood {other}"
        )
    if data_dir is None:
        return
    own = pathlib.Path(data_dir)
    if _is_folder(other):
        folder, own = pathlib.Path(other).resolve(), own.resolve()
        if folder.is_relative_to(own) or own.is_relative_to(folder):
            raise ValueError(
                "A folder of images for `--ood` should be outside of "
                f"`--data-dir`. Received: --ood {other}, --data-dir {data_dir}"
            )
    elif own.is_file() or folders.is_root(own):
        raise ValueError(
            "`--ood` should be a folder of images if `--data-dir` has one data "
            "set only, as an .npz file or a folder of images has. "
            f"Received: --ood {other}, --data-dir {data_dir}"
        )


def _is_folder(other):
    """Returns whether `--ood` names a folder, and not a data set."""
    return reading.record_of(other) is None and pathlib.Path(other).is_dir()


def ask(options, model, description, dataset, split, logits, labels):
    """Measures what the options ask for.

    Args:
        options: Namespace. The options of evaluate.py.
        model: `keras.Model` from raw images to logits.
        description: dict. What `loading.load_network` says of the network.
        dataset: str. The data set that is measured.
        split: str. Its split.
        logits: float64 array of shape `(examples, classes)`, of that split.
        labels: int array of shape `(examples,)`.

    Returns:
        A dict with "calibration", "corruptions" and "out_of_distribution", as
        the functions of `trust` return them, if the options ask for them.
    """

    def batches(other, split):
        data = other, split, description, options.data_dir
        return evaluation.load_data(*data)[0]

    def logits_of_others(other):
        if _is_folder(other):
            images = evaluation.all_in_folder("--ood", other, model)
        else:
            images = batches(other, evaluation.test_split(other))
        return accuracy.logits_of(model, images, labeled=False)[0]

    found = {}
    if options.calibrate:
        fit_on = options.fit_on or _held_out(description, dataset, split)
        held_out = None
        if fit_on:
            held_out = accuracy.logits_of(model, batches(dataset, fit_on))
            held_out = (*held_out, fit_on)
        found["calibration"] = trust.calibration(
            logits, labels, split, held_out
        )
    if options.corruptions:
        examples = evaluation.first_examples(
            batches(dataset, split), options.examples
        )
        found["corruptions"] = trust.under_corruptions(model, *examples)
    if options.ood:
        found["out_of_distribution"] = {
            other: trust.out_of_distribution(logits, logits_of_others(other))
            for other in options.ood
        }
    if options.reliability:
        measured = _certainty(found.get("calibration"), logits, labels)
        title = f"{pathlib.Path(options.network).name} on {dataset}"
        reliability.draw(options.reliability, measured, title)
    return found


def _held_out(description, dataset, split):
    """Returns the training images that a run has held out, if it has any."""
    count = description.get("validation")
    if not count or dataset != description["dataset"]:
        return None
    held_out = reading.split_in_two(description["train_split"], count)[1]
    return None if held_out == split else held_out


def _certainty(calibration, logits, labels):
    """Returns what the reliability diagram shows, by name."""
    if calibration is None:
        return {"as it is": trust.certainty(logits, labels)}
    name = f"temperature {calibration['temperature']:.3g}"
    return {"as it is": calibration["before"], name: calibration["after"]}
