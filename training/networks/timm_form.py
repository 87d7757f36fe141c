"""A trained network in the form that timm loads.

It is published in a separate repository. timm and Keras each read a
`config.json` at the root of a repository, and neither looks into a subfolder.
"""

import json
import re

import safetensors.numpy
from huggingface_hub import ModelCard

import keras_resfam
from keras_resfam import graphs
from keras_resfam.models import families
from keras_resfam.pretrained import fingerprint, registry
from keras_resfam.pretrained.files import RECIPE
from keras_resfam.pretrained.foreign import TIMM
from training.images import reading
from training.networks import packaging
from training.run.description import read as read_description

CROP = 224 / 256  # the crop's side to the shorter side, as in evaluation

# timm has its stem of 7 x 7 only.
ARCHITECTURES = {k: v for k, v in TIMM.items() if k != "ResNet18CIFAR"}


def contents(folder, repository):
    """Returns the files of a weights folder's network, as timm has them.

    Args:
        folder: Path. A folder that `package.py` has written.
        repository: str. `organization/name`, for the card.

    Returns:
        A dict from names to bytes.

    Raises:
        ValueError: If timm does not have the network.
    """
    description = read_description(folder / RECIPE)
    architecture = _architecture(description)
    network = packaging.build(description, str(folder))
    state = keras_resfam.to_torch_state_dict(network, "timm")
    stored = {name: fingerprint.stored(value) for name, value in state.items()}
    config = _config(architecture, description, network)
    card = _card((folder / "README.md").read_text(), description, repository)
    return {
        "README.md": card.encode(),
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "model.safetensors": safetensors.numpy.save(stored, {"format": "pt"}),
        RECIPE: (folder / RECIPE).read_bytes(),
    }


def _architecture(description):
    """timm's name of a network."""
    builder, arguments = description["builder"], description["arguments"]
    usual = families.architecture(builder, {})
    if (
        builder not in ARCHITECTURES
        or families.architecture(builder, arguments) != usual
    ):
        raise ValueError(
            f"`--timm` takes the networks of {', '.join(ARCHITECTURES)}, with "
            "their default arguments, which timm has too. Received: "
            f"{families.call(builder, arguments)}"
        )
    return ARCHITECTURES[builder]


def _config(architecture, description, network):
    """Returns timm's config.json, of the network and its preprocessing."""
    height, width, channels = description["input_shape"]
    # Images are divided by 255 there before they are normalized.
    moments = graphs.image_moments(network) or ([0] * channels, [1] * channels)
    mean, std = ([float(x) / 255 for x in values] for values in moments)
    return {
        "architecture": architecture,
        "num_classes": description["classes"],
        "label_names": list(_class_names(description)),
        "pretrained_cfg": {
            "input_size": [channels, height, width],
            "interpolation": "bilinear",
            "crop_pct": CROP if description.get("image_size") else 1.0,
            "crop_mode": "center",
            "mean": mean,
            "std": std,
            "num_classes": description["classes"],
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }


def _class_names(description):
    """Returns the names of the classes, or their numbers if unknown."""
    record = reading.record_of(description["dataset"])
    names = record.class_names if record else description.get("class_names")
    return names or [str(k) for k in range(description["classes"])]


def _card(text, description, repository):
    """Returns the card of the folder, with another use and other files."""
    card = ModelCard(text)
    card.data.library_name = "timm"
    title = registry.title(description["dataset"])
    sections = {
        "Use": f"""\
```python
import timm

model = timm.create_model("hf-hub:{repository}", pretrained=True).eval()
transform = timm.data.create_transform(
    **timm.data.resolve_model_data_config(model), is_training=False
)
logits = model(transform(image)[None])  # of a PIL image
```

`keras_resfam.{description["builder"]}(weights="hf://{repository}")` reads it
too. The network was trained on {title} with [Keras](https://keras.io) 3.""",
        "Files": """\
`config.json` and `model.safetensors` are timm's own layout. `recipe.json` has
every number of the training run.""",
    }
    for name, body in sections.items():
        section = re.compile(rf"^## {name}\n.*?(?=^## |\Z)", re.M | re.S)
        replaced = f"## {name}\n\n{body}\n\n"
        card.text, count = section.subn(lambda _, new=replaced: new, card.text)
        if count != 1:
            raise ValueError(
                f"The card should have one section '{name}'. Received: {count}"
            )
    return f"{str(card).rstrip()}\n"
