"""Finds the names of the classes of trained weights."""

import os
from pathlib import Path

from keras_resfam._checks import check_path
from keras_resfam.datasets import ALIASES, DATASETS
from keras_resfam.pretrained import foreign, recipe, registry, sources
from keras_resfam.pretrained.files import RECIPE


def class_names(weights):
    """Returns the names of the classes of trained weights.

    Args:
        weights: str or path, as for a builder: the name of a data set or of a
            network of `list_weights`, a path, or
            `"hf://organization/name[@revision]"`.

    Returns:
        A tuple of str, in the order of the classifier's outputs. If a
        checkpoint has 1,000 classes and its config has no names, these are
        the names of ImageNet.

    Raises:
        ValueError: If the weights do not exist, or the names of their classes
            are unknown.
        keras_resfam.HubError: If the Hub does not deliver them.

    Example:

    ```python
    names = keras_resfam.class_names("imagenet")
    keras_resfam.decode_predictions(model.predict(images), names)
    ```
    """
    check_path("weights", weights)
    text = os.path.expanduser(weights)
    # As in `find`, a name takes precedence over a path.
    if isinstance(weights, str) and weights in sources.names():
        found = _names_of(text) or _names_registered(text)
    else:
        files = _descriptions(text)
        if RECIPE in files:
            found = _names_in(files[RECIPE], repr(text))
        else:
            found = _names_of(foreign.class_names(repr(text), files))
    if not found:
        raise ValueError(
            "`weights` should be a data set's name, or weights that have the "
            f"names of their classes. Received: weights={weights!r}"
        )
    return found


def _names_in(contents, where):
    """Returns the class names that a recipe.json states."""
    try:
        described = recipe.parse(contents)
    except ValueError as error:
        raise ValueError(
            f"`weights` should have a valid {RECIPE}. {error} "
            f"Received: weights={where}"
        ) from error
    return _names_of(described.get("class_names", described["dataset"]))


def _names_registered(name):
    """Returns the class names of a network or data set in the registry."""
    for network in registry.read() + registry.read_public():
        if name in (network.name, network.dataset):
            if network.dataset in DATASETS:
                return _names_of(network.dataset)
            files = sources.registered_files(network)
            return _names_in(files[RECIPE], repr(name))
    return ()


def _names_of(known):
    """Returns the class names of a data set, or those given, as a tuple."""
    if isinstance(known, str):
        record = DATASETS.get(ALIASES.get(known, known))
        return record.class_names if record is not None else ()
    return tuple(known or ())


def _descriptions(text):
    """Returns the files that describe weights, a dict from names to bytes.

    It is empty if there are none.
    """
    if text.startswith("hf://"):
        address = sources.hub_address(text)
        files = sources.fetch_checkpoint(*address, weights=False)
        return files if files is not None else sources.fetch(*address)
    if foreign.is_checkpoint(text):
        return foreign.read_files(text, weights=False)
    for path in (Path(text, RECIPE), Path(text).parent / RECIPE):
        if os.path.exists(text) and path.is_file():
            return {RECIPE: path.read_bytes()}
    return {}
