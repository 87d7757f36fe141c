"""Finds the weights that `weights=` asks for, and verifies them.

The weights of a network are a folder: `weights/<name>/` in a checkout of this
project, or a repository on the Hugging Face Hub. The files are verified before
HDF5 opens one. They are read only once, so the bytes that were verified are
the bytes that are opened. The values are loaded by layer name, after their
types and shapes were compared with the fingerprint.
"""

import dataclasses
import json
import os
from pathlib import Path

from keras_resfam.datasets import ALIASES, DATASETS
from keras_resfam.models import families
from keras_resfam.pretrained import fingerprint, foreign, hdf5, recipe, registry
from keras_resfam.pretrained.errors import HubError
from keras_resfam.pretrained.files import (
    FINGERPRINT,
    NEEDED,
    RECIPE,
    WEIGHTS,
    describe,
    digest_fault,
    fault,
)
from keras_resfam.pretrained.weights import Source, naming_weights

CHECKOUT = Path(__file__).parents[2]
"""The checkout of this project, if the package is imported from one."""

_BUNDLED = Path(__file__).parents[1] / "weights"
"""The folder of the small networks in a wheel (training/networks/wheel.py)."""


def find(weights, family, arguments):
    """Finds and verifies what a builder's `weights=` asks for.

    Args:
        weights: `None`; the name of a data set or of a network of
            `list_weights`; the path of a weights folder, of a training run,
            of a `.weights.h5` file or of another project's checkpoint;
            `"hf://organization/name[@revision]"`; or a `Source`, which is
            returned unchanged.
        family: str. The builder's name.
        arguments: dict. The builder's architecture arguments.

    Returns:
        A `Source`, or `None` for `weights=None`.

    Raises:
        ValueError: If no such weights exist for this architecture.
        keras_resfam.HubError: If the Hub does not deliver them.
    """
    if weights is None or isinstance(weights, Source):
        return weights
    if not isinstance(weights, (str, os.PathLike)):
        raise _weights_error(weights, family)
    text = os.path.expanduser(weights)
    if text.startswith("hf://"):
        address = hub_address(text)
        files = fetch_checkpoint(*address)
        if files is not None:
            return _foreign(repr(text), files, family, arguments)
        files = fetch(*address)
    elif isinstance(weights, str) and weights in names():
        network = _choose(weights, family, arguments)
        if isinstance(network, registry.PublicNetwork):
            return _public(network, family, arguments)
        files = registered_files(network)
    elif _is_run_folder(Path(text)):
        return _read_file(Path(text) / WEIGHTS, family, arguments)
    elif foreign.is_checkpoint(text):
        files = foreign.read_files(text)
        return _foreign(repr(text), files, family, arguments)
    elif os.path.isdir(text):
        files = _read_folder(Path(text))
    elif _is_in_weights_folder(text):
        files = _read_folder(Path(text).parent)
    elif os.path.isfile(text) and text.endswith(".weights.h5"):
        return _read_file(Path(text), family, arguments)
    else:
        raise _weights_error(weights, family, _path_hint(text))
    return _source(repr(text), files, family, arguments)


def hub_address(text):
    """Splits `"hf://repository@revision"` into repository and revision."""
    repository, _, revision = text.removeprefix("hf://").partition("@")
    return repository, revision or "main"


def fetch(repository, revision, pins=None):
    """Fetches a network of this project from the Hub (`hub.fetch`)."""
    # The Hub's client is slow to import, and rarely needed.
    from keras_resfam.pretrained import hub

    return hub.fetch(repository, revision, pins)


def fetch_checkpoint(repository, revision, pins=None, weights=True):
    """Fetches another project's checkpoint (`hub_checkpoints.fetch`)."""
    from keras_resfam.pretrained import hub_checkpoints

    return hub_checkpoints.fetch(repository, revision, pins, weights)


def _public(network, family, arguments):
    revision = network.commit or "main"
    files = fetch_checkpoint(network.repository, revision, network.files)
    if files is None:
        raise HubError.about(
            network.repository,
            revision,
            "it holds another network than the registry states.",
            f"pass other weights. {_available(family)}",
        )
    source = _foreign(repr(network.name), files, family, arguments)
    return dataclasses.replace(
        source,
        dataset=network.dataset,
        class_names=source.class_names or network.dataset,
    )


def _foreign(where, files, family, arguments):
    return Source(where, **foreign.contents(where, files, family, arguments))


def names():
    """Returns the set of names that `weights` accepts, besides paths."""
    networks = registry.read() + registry.read_public()
    own = {network.name for network in networks}
    own |= {network.dataset for network in networks}
    return own | DATASETS.keys() | ALIASES.keys()


def _is_run_folder(folder):
    """Returns whether a folder is that of a training run.

    Unlike the folder of a packaged network, it has no `config.json`, which
    Keras loads, and no fingerprint.
    """
    files = RECIPE, WEIGHTS
    return all((folder / name).is_file() for name in files) and not any(
        (folder / name).exists() for name in ("config.json", FINGERPRINT)
    )


def _is_in_weights_folder(path):
    """Returns whether a path is the file of weights in a weights folder."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, FINGERPRINT)
    return name == WEIGHTS and all(map(os.path.isfile, (path, beside)))


def _path_hint(path):
    """Returns a sentence that says why weights cannot be read from a path."""
    if os.path.isfile(path):
        if path.endswith(".keras"):
            return f"Load '{path}' with `keras.saving.load_model`. "
    elif os.path.basename(path) != path or path.endswith(".weights.h5"):
        return f"The file or folder '{path}' does not exist. "
    return ""


def _weights_error(weights, family, wrong=""):
    return ValueError(
        "`weights` should be None, the name of a data set or network, the "
        "path of a weights folder or of a '.weights.h5' file, or "
        f"'hf://organization/name[@revision]'. {wrong}{_available(family)} "
        f"Received: weights={weights!r}"
    )


def _available(family):
    calls = sorted({n.call for n in registry.list_weights(family)})
    return (
        f"Weights for {family}: {', '.join(calls) or 'none'}. "
        "`keras_resfam.list_weights()` lists the weights of all families."
    )


def _choose(name, family, arguments):
    """Returns the network of an architecture that a name selects."""
    network = registry.choose(name, family, arguments)
    if network is None:
        raise ValueError(
            "`weights` should be those of a trained network. None exist for "
            f"{families.call(family, arguments, weights=name)}. "
            f"{_available(family)} Received: weights={name!r}"
        )
    return network


def registered_files(network):
    """Reads a network's files from the checkout, the package or the Hub."""
    folders = [_BUNDLED / network.name]
    if (CHECKOUT / "pyproject.toml").is_file():
        folders.insert(0, CHECKOUT / "weights" / network.name)
    for folder in folders:
        if folder.is_dir():
            return _read_folder(folder, network.files)
    if network.commit is None:
        megabytes = network.files[WEIGHTS]["bytes"] / 1e6
        raise HubError.about(
            network.repository,
            "none",
            f"'{network.name}' ({megabytes:.0f} MB) has not been published, "
            "and this installation has the small networks only.",
            "clone the project and install it with `pip install -e`, or pass "
            f"the path of its folder weights/{network.name} as `weights`.",
        )
    return fetch(network.repository, network.commit, network.files)


def _read_layers(where, weights, expected=None):
    """Reads the arrays of a `.weights.h5` file of a network of keras_resfam.

    Args:
        where: str. Names the file in error messages.
        weights: bytes. The contents of the file.
        expected: dict as `fingerprint.layout` returns it. Defaults to `None`,
            which accepts all arrays that the file has.

    Returns:
        A dict from layer names to lists of arrays.
    """
    trusted = registry.pins(WEIGHTS, describe(weights)["sha256"])
    read = hdf5.read if trusted else hdf5.read_apart
    with naming_weights(where):
        layers = read(weights, expected)
        for name, rank in (("stem_conv", 4), ("predictions", 2)):
            if name in layers and layers[name][0].ndim != rank:
                raise ValueError(
                    f"Layer '{name}' has no kernel of {rank} axes."
                )
        if "stem_conv" not in layers:
            raise ValueError("Layer 'stem_conv' is not in the file.")
        return layers


def _read_folder(folder, pins=None):
    missing = [n for n in NEEDED if not (folder / n).is_file()]
    if missing:
        raise ValueError(
            "`weights` should be the path of a weights folder, which has "
            f"{', '.join(NEEDED)}, or of a '.weights.h5' file. "
            f"{', '.join(missing)} not found. Received: weights='{folder}'"
        )
    files = {name: (folder / name).read_bytes() for name in NEEDED}
    wrong = fault(files, pins)
    if wrong is not None:
        raise ValueError(
            f"The weights in '{folder}' differ from the published ones: "
            f"{wrong}. Restore them; in a checkout, `git restore {folder}` "
            f"does. Received: weights='{folder}'"
        )
    return files


def _read_file(path, family, arguments):
    """Returns the `Source` of a file and the recipe.json beside it."""
    where = repr(str(path))
    weights = path.read_bytes()
    wrong = digest_fault(path, weights)
    if wrong is not None:
        raise ValueError(
            f"The weights in '{path}' differ from those that training wrote: "
            f"{wrong}. "
            f"Received: weights={where}"
        )
    layers, known = _read_layers(where, weights), {}
    beside = path.with_name(RECIPE)
    if beside.is_file():
        try:
            described = recipe.parse(beside.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"`weights` should be in a folder with a valid {RECIPE}, or "
                f"without one. {beside} is invalid: {error} "
                f"Received: weights={where}"
            ) from error
        known = _attributes(described)
        _check_network(where, _architecture(described), family, arguments)
    return Source(where, layers, **known)


def _architecture(described):
    """Returns the builder's name and the arguments in a recipe.json."""
    return described["builder"], described["arguments"]


def _check_network(where, found, family, arguments):
    """Raises an error if weights are those of another architecture."""
    if found[0] != family or families.architecture(
        *found
    ) != families.architecture(family, arguments):
        raise ValueError(
            "`weights` should be those of "
            f"{families.call(family, arguments)}, but are those of "
            f"{families.call(*found)}. Received: weights={where}"
        )


def _attributes(described):
    """Returns the attributes of a `Source` that a recipe.json states."""
    dataset = described["dataset"]
    # Fine-tuned networks keep the moments of the data set that they were
    # first trained on.
    moments = described.get("preprocessing", dataset)
    if isinstance(moments, list):
        moments = tuple(map(tuple, moments))
    elif moments not in DATASETS:
        moments = None
    # Networks trained on photographs are measured on 224 of 256 pixels.
    cuts = described.get("image_size") is not None
    return {
        "dataset": dataset,
        "preprocessing": moments,
        "input_shape": tuple(described["input_shape"]),
        "crops": {None: 224 / 256} if cuts else {},
        "interpolation": "bilinear" if cuts else None,
        "class_names": described.get(
            "class_names", dataset if dataset in DATASETS else None
        ),
    }


def _source(where, files, family, arguments):
    """Returns the `Source` of a network's files, after checking them."""
    try:
        described = recipe.parse(files[RECIPE])
        variables = json.loads(files[FINGERPRINT])["variables"]
        expected = fingerprint.layout(variables)
    except (*hdf5.ERRORS, RecursionError) as error:
        raise ValueError(
            "`weights` should be those of a network of keras_resfam, but "
            f"{RECIPE} or {FINGERPRINT} is invalid ({error!r}). "
            f"Received: weights={where}"
        ) from error
    _check_network(where, _architecture(described), family, arguments)
    layers = _read_layers(where, files[WEIGHTS], expected)
    return Source(where, layers, **_attributes(described))
