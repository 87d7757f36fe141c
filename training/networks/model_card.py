"""The model card of a weights folder: every word from the folder's files."""

import html
import re

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from keras_resfam._files import read_json
from keras_resfam.datasets import DATASETS
from keras_resfam.models import families
from keras_resfam.pretrained import registry
from keras_resfam.pretrained.files import RECIPE
from training.run import reports, run_folder
from training.run.description import read as read_description

LICENSE = "apache-2.0"

HUB_DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "svhn_cropped": "ufldl-stanford/svhn",
    "imagenet2012": "ILSVRC/imagenet-1k",
}

# What result.json measures: its key, the metric's name on the Hub and in
# print, and the unit.
METRICS = (
    ("accuracy", "accuracy", "Accuracy", " %"),
    ("error", "error", "Error", " %"),
    ("top5_error", "top5_error", "Top-5 error", " %"),
    ("nll", "nll", "Negative log-likelihood", " nats"),
    ("calibration_error", "ece", "Calibration error (ECE)", " %"),
)


def render(folder):
    """Returns the text of a folder's model card.

    Args:
        folder: Path. Has recipe.json, log.csv and result.json.
    """
    description = read_description(folder / RECIPE)
    result = read_json(folder / run_folder.RESULT)
    title = _text(registry.title(description["dataset"]))
    call = families.call(description["builder"], description["arguments"])
    data = ModelCardData(
        model_name=folder.name,
        library_name="keras",
        license=_license(description),
        pipeline_tag="image-classification",
        tags=["keras_resfam", description["builder"], description["dataset"]],
        datasets=_known_on_the_hub(description["dataset"]),
        metrics=["accuracy"],
        eval_results=_eval_results(description, result, title),
    )
    sections = (
        f"# {_text(call)}, trained on {title}",
        _introduction(description, title),
        _usage(folder.name, description, title),
        _results(result, title),
        _training(folder, description),
        _files(),
    )
    body = "\n\n".join(sections)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")
    return f"{str(card).rstrip()}\n"


def _known_on_the_hub(dataset):
    """Returns the data set's name on the Hub, in a list, or `None`."""
    known = dataset in DATASETS
    return [HUB_DATASETS.get(dataset, dataset)] if known else None


def _license(description):
    """Returns the license of the weights; `None` if nothing tells it.

    Networks of this project have its own. Fine-tuned weights have the license
    of those that training started from.
    """
    weights, builder = description.get("weights"), description["builder"]
    if weights is None:
        return LICENSE
    known = registry.choose(weights, builder, description["arguments"])
    for network in registry.read_public():
        address = weights.partition("@")[0]
        if address == f"hf://{network.repository}":
            known = network
    if known is None:
        return None
    return getattr(known, "license", LICENSE)


def _text(value):
    """Returns a text as it is, within a line of Markdown: no HTML, no link."""
    escaped = html.escape(_line(value), quote=False)
    return re.sub(r"[\\`*_\[\]|~]", r"\\\g<0>", escaped)


def _line(value):
    """Returns a text in one line."""
    return " ".join(str(value).split())


def _eval_results(description, result, title):
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=HUB_DATASETS.get(
                description["dataset"], description["dataset"]
            ),
            dataset_name=title,
            dataset_split=result["split"],
            metric_type=metric,
            metric_name=name,
            metric_value=round(result[key], 4),
        )
        for key, metric, name, _ in METRICS
        if key in result
    ]


def _introduction(description, title):
    about = families.get(description["builder"]).__doc__
    summary, about = about.partition("Args:")[0].split("\n", 1)
    papers = " and ".join(
        f"[{' '.join(name.split())}]({address})"
        for name, address in re.findall(r"\[([^]]+)\]\(\s*(\S+?)\)", about)
    )
    height, width, channels = description["input_shape"]
    return (
        f"{summary} From {papers}. Trained on {title} with "
        "[Keras](https://keras.io) 3; runs on TensorFlow, JAX and PyTorch. "
        f"It takes raw images of {height} x {width} pixels and {channels} "
        f"channel{'s' if channels > 1 else ''}, 0 to 255, and gives the "
        f"probabilities of {description['classes']} classes."
    )


def _usage(name, description, title):
    # By its own name, which no other network will ever take.
    call = families.call(
        description["builder"], description["arguments"], weights=name
    )
    shape = ", ".join(map(str, ("batch", *description["input_shape"])))
    classes = f'"{description["dataset"]}"'
    if description["dataset"] not in DATASETS:
        classes = f'keras_resfam.class_names("{name}")'
    return f"""\
## Use

With keras_resfam (a clone of it, and `pip install -e .`), which verifies every
layer:

```python
import keras_resfam

model = keras_resfam.{_line(call)}
predictions = model.predict(images)  # ({shape}), 0 to 255
keras_resfam.decode_predictions(predictions, {classes})
```

With Keras alone, from a copy of this folder, or from its repository on the Hub
by `"hf://organization/name"` in place of the path:

```python
import keras

model = keras.saving.load_model("weights/{name}")
```"""


def _results(result, title):
    rows = "\n".join(
        f"| {name} | {result[key]:.4g}{unit} |"
        for key, _, name, unit in METRICS
        if key in result
    )
    split = _line(result["split"]).replace("`", "")
    text = f"""\
## Results

On the {result["examples"]} images of the `{split}` split of {title}:

| | |
|---|---|
{rows}

Measured with {_versions(result)} by

    {_line(result["command"])}

on the weights of this folder, whose kernels are stored in float16."""
    if "per_class" in result:
        classes = ", ".join(
            f"{_text(name)}: {error:.4g}"
            for name, error in result["per_class"].items()
        )
        text += f"\n\nError by class, in percent: {classes}."
    return "\n\n".join((text, *_answers(result, title)))


def _answers(result, title):
    """Yields what evaluate.py was asked beyond the error, in paragraphs."""
    if "calibration" in result:
        yield _calibration(result["calibration"])
    if "corruptions" in result:
        yield _corruptions(result["corruptions"])
    for name, found in result.get("out_of_distribution", {}).items():
        yield (
            "How well the network's certainty tells these images from the "
            f"{found['examples']} test images of "
            f"{_text(registry.title(name))}: the AUROC is "
            f"{found['auroc_probability']:.4g} % by the largest probability "
            f"and {found['auroc_energy']:.4g} % by the energy."
        )


def _calibration(found):
    fitted, measured = found["fitted_on"], found["measured_on"]
    before, after = found["before"], found["after"]
    temperature = f"{found['temperature']:.3f}"
    others, reason = "the", ""
    if fitted["split"].endswith("[::2]"):
        others, reason = "the other", ", since all training images were used"
    return f"""\
`keras_resfam.with_temperature(model, {temperature})` divides the logits by a
temperature, which changes the probabilities and no answer. It was fitted on
the {fitted["examples"]} images of `{_line(fitted["split"])}`{reason}. On
{others} {measured["examples"]}, `{_line(measured["split"])}`:

| | as it is | with the temperature |
|---|---|---|
| Negative log-likelihood | {before["nll"]:.4g} | {after["nll"]:.4g} nats |
| Calibration error (ECE) | {before["calibration_error"]:.4g} | \
{after["calibration_error"]:.4g} % |"""


def _corruptions(found):
    errors = [
        f"{name.replace('_', ' ')}: {sum(rows) / len(rows):.4g}"
        for name, rows in found["errors"].items()
    ]
    return (
        f"On the first {found['examples']} images with {len(errors)} of the 15 "
        "corruptions of CIFAR-10-C, each made anew in five severities, the "
        f"mean error is {found['mean_error']:.4g} %. By corruption, in "
        f"percent: {', '.join(errors)}."
    )


def _versions(result):
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    return f"{versions}, the backend {result['backend']},"


def _training(folder, description):
    done = int(reports.read(folder)[-1]["epoch"])
    planned = description["epochs"]
    epochs = done if done == planned else f"{done} of the {planned}"
    unit = "epoch" if planned == 1 else "epochs"
    started_from = ""
    if description.get("weights"):
        started_from = (
            "Training started from the weights "
            f"{_text(description['weights'])}, all but the classifier"
        )
        if _license(description) is None:
            started_from += ", whose license also applies to these weights"
        started_from += ".\n\n"
    text = f"""\
## Training

{started_from}{epochs} {unit}, by

    {_line(description["command"])}
"""
    for part in description.get("continued", ()):
        text += f"""
and from epoch {part["epoch"]}, batch {part["batch"]} on by

    {_line(part["command"])}
"""
    text += """
`recipe.json` has every number, `log.csv` the course of the run."""
    if (
        description["source"] == "this project"
        and description["error"] is not None
    ):
        note = _text(description["note"])
        text += (
            " The published error of this network is "
            f"{description['error']:g} %, {note}"
        )
        published = re.search(r"in (\d+) epochs", note)
        if published and done < int(published[1]):
            text += ": this schedule is shorter"
        text += "."
    return text


def _files():
    return """\
## Files

`config.json`, `metadata.json` and `model.weights.h5` are Keras's own layout.
`fingerprint.json` has the SHA-256 of each file, the type and shape of each
variable by layer name, and the logits of two fixed images. `recipe.json` and
`log.csv` are the run's, `result.json` has what is measured of this folder. The
parts that act in training only (regularizers, dropout, gradient modulation) are
left out."""
