"""What evaluate.py can ask of a network beyond its error."""

import pathlib

from training.images import evaluation, reading
from training.networks import accuracy, reliability, trust


def check(options, dataset, split):
    """Refuses options that have no answer, before any work."""
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
    for other in options.ood:
        if other.partition(":")[0] == dataset.partition(":")[0]:
            raise ValueError(
                "`--ood` should be another data set than the one that is "
                f"measured. Received: --ood {other}"
            )
        if options.data_dir and pathlib.Path(options.data_dir).is_file():
            raise ValueError(
                "With `--ood`, `--data-dir` should be a folder with both data "
                f"sets. Received: --data-dir {options.data_dir}"
            )


def ask(options, model, description, dataset, split, logits, labels):
    """Answers what the options ask.

    Args:
        options: Namespace. What evaluate.py was given.
        model: `keras.Model` from raw images to logits.
        description: Dict. What `loading.load_network` says of the network.
        dataset: String. What is measured.
        split: String. Of the data set.
        logits: float64 array of shape `(examples, classes)`, of that split.
        labels: Integer array of shape `(examples,)`.

    Returns:
        Dict. Of "calibration", "corruptions" and "out_of_distribution", those
        that were asked for, as the functions of `trust` return them.
    """

    def run(other, split):
        data = other, split, description, options.data_dir
        batches, _ = evaluation.load_data(*data)
        return accuracy.logits_of(model, batches, labelled=other == dataset)

    found = {}
    if options.calibrate:
        fit_on = options.fit_on or _held_out(description, dataset, split)
        held_out = (*run(dataset, fit_on), fit_on) if fit_on else None
        found["calibration"] = trust.calibration(
            logits, labels, split, held_out
        )
    if options.corruptions:
        images, _ = reading.load(dataset, split, options.data_dir)
        found["corruptions"] = trust.under_corruptions(
            model, images[: options.examples], labels[: options.examples]
        )
    if options.ood:
        found["out_of_distribution"] = {
            other: trust.out_of_distribution(
                logits, run(other, evaluation.test_split(other))[0]
            )
            for other in options.ood
        }
    if options.reliability:
        measured = _certainty(found.get("calibration"), logits, labels)
        title = f"{pathlib.Path(options.network).name} on {dataset}"
        reliability.draw(options.reliability, measured, title)
    return found


def _held_out(description, dataset, split):
    """The training images that a run has held out, if it has any."""
    count = description.get("validation")
    if not count or dataset != description["dataset"]:
        return None
    held_out = reading.split_in_two(description["train_split"], count)[1]
    return None if held_out == split else held_out


def _certainty(calibration, logits, labels):
    """What the reliability diagram shows, by name."""
    if calibration is None:
        return {"as it is": trust.certainty(logits, labels)}
    name = f"temperature {calibration['temperature']:.3g}"
    return {"as it is": calibration["before"], name: calibration["after"]}
