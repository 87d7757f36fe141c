"""A run folder such as train.py leaves, without training."""

import json

import keras
import numpy as np

import keras_resfam
from keras_resfam.pretrained import registry, sources

COMMANDS = (
    "python training/train.py",
    "python training/train.py --backend torch --data-dir /somewhere/data",
)


def use_checkout(path, patch):
    """Lets the project have its `weights/` and registry in a new folder."""
    path.mkdir(exist_ok=True)
    (path / "pyproject.toml").touch()
    patch.setattr(sources, "CHECKOUT", path)
    patch.setattr(registry, "PATH", path / "registry.json")
    registry.write([])
    return path


def network(builder="DMRNet", arguments=None, **options):
    """A small network for digits, with values unlike the initial ones."""
    build = getattr(keras_resfam, builder)
    model = build(
        **(arguments or {"depth": 8}),
        **{
            "classes": 10,
            "input_shape": (8, 8, 1),
            "include_preprocessing": "digits",
        }
        | options,
    )
    shake(model)
    return model


def shake(model):
    """Changes every value, so that none is what a new network has."""
    draw = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights(
            [
                w * draw.uniform(0.8, 1.2, w.shape) + 0.01
                for w in layer.get_weights()
            ]
        )


def contents(folder):
    """The files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make(
    folder,
    builder="DMRNet",
    arguments=None,
    name="tiny",
    classes=10,
    input_shape=(8, 8, 1),
    preprocessing="digits",
):
    """Writes a run folder; returns its path."""
    keras.utils.set_random_seed(0)
    arguments = arguments or {"depth": 8}
    model = network(
        builder,
        arguments,
        classes=classes,
        input_shape=input_shape,
        include_preprocessing=preprocessing,
    )
    folder.mkdir(parents=True)
    model.save_weights(folder / "model.weights.h5")
    recipe = {
        "name": name,
        "source": "this project",
        "error": 2.25,
        "note": "in 200 epochs",
        "builder": builder,
        "arguments": arguments,
        "dataset": "digits",
        "test_split": "test",
        "classes": classes,
        "input_shape": list(input_shape),
        "preprocessing": preprocessing,
        "epochs": 1,
        "seed": 0,
        "command": COMMANDS[0],
        "continued": [{"epoch": 1, "batch": 5, "command": COMMANDS[1]}],
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "log.csv").write_text("epoch,loss,val_accuracy\n1,0.5,0.975\n")
    return folder
