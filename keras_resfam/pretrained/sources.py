"""From what `weights=` names to verified values in a model.

The weights of a network are a folder: `weights/<name>/` in a checkout of this
project, a repository on the Hugging Face Hub. Its files are verified before
HDF5 opens one; what is verified is what is opened, since the bytes are read
once. Values go from there into the network layer by layer, by name, when their
types and shapes are those of the fingerprint.
"""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

from keras_resfam._checks import check_path
from keras_resfam.datasets import ALIASES, DATASETS
from keras_resfam.models import families
from keras_resfam.pretrained import (
    dialects,
    fingerprint,
    foreign,
    hdf5,
    recipe,
    registry,
)
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

CHECKOUT = Path(__file__).parents[2]
"""The checkout of this project, where the package is installed from one."""

_CARRIED = Path(__file__).parents[1] / "weights"
"""Where a wheel has put the small networks (see setup.py)."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Verified weights, ready to be loaded.

    Attributes:
        where: str. What messages call them.
        layers: dict. Lists of arrays by layer name.
        dataset: str. What they were trained on, if known.
        preprocessing: str or tuple. The data set by whose channel moments the
            network normalises its images, or they themselves, as a pair of
            tuples: mean and standard deviation, 0..255. If known.
        input_shape: tuple. `(height, width, channels)`, if known.
        checkpoint: `dialects.Checkpoint`. What others call them, if others
            have trained them.
    """

    where: str
    layers: dict
    dataset: str = None
    preprocessing: str | tuple = None
    input_shape: tuple = None
    checkpoint: dialects.Checkpoint = None

    @property
    def classes(self):
        """int. Those of the classifier, or `None` if there is none."""
        top = self.layers.get("predictions")
        return top[0].shape[-1] if top else None

    @property
    def channels(self):
        """int. Those of the images."""
        return self.layers["stem_conv"][0].shape[-2]

    def load_into(self, network):
        """Loads the weights into a network of the architecture.

        Args:
            network: list of its layers, with or without the classifier.

        Raises:
            ValueError: If a layer would not get the values that are its own;
                the text names it. All are then as they were.
        """
        targets = {layer.name: layer for layer in network if layer.weights}
        layers = self.layers
        if "predictions" not in targets:
            layers = {k: v for k, v in layers.items() if k != "predictions"}
        elif "predictions" not in layers:
            raise ValueError(
                "`include_top` should be False with weights that have no "
                f"classifier, as those of {self.where}. "
                "Received: include_top=True"
            )
        with _read_as_weights(self.where):
            if self.checkpoint is not None:
                self.checkpoint.check(targets.values())
            fingerprint.check_names(targets, layers)
        for name, target in targets.items():
            shapes = [values.shape for values in layers[name]]
            found = [tuple(weight.shape) for weight in target.weights]
            if found != shapes:
                raise ValueError(
                    f"Layer '{name}' should have variables of the shapes "
                    f"{shapes} to hold the weights of {self.where}: "
                    "`input_shape` and `classes` should fit them. "
                    f"Received: {found}"
                )
        for name, target in targets.items():
            target.set_weights(layers[name])


@contextlib.contextmanager
def _read_as_weights(where):
    """Has whatever is wrong with a file end in a ValueError that names it."""
    try:
        yield
    except hdf5.ERRORS as error:
        raise ValueError(
            f"The weights of {where} are not those of this network. {error}"
        ) from error


def _read_layers(where, weights, expected=None):
    """The arrays of a `.weights.h5` file, which is of a network of ours.

    Args:
        where: str. What messages call the file.
        weights: bytes.
        expected: dict as `fingerprint.layout` returns it. Defaults to `None`,
            whatever the file has.
    """
    trusted = registry.pins(WEIGHTS, describe(weights)["sha256"])
    read = hdf5.read if trusted else hdf5.read_apart
    with _read_as_weights(where):
        layers = read(weights, expected)
        for name, rank in (("stem_conv", 4), ("predictions", 2)):
            if name in layers and layers[name][0].ndim != rank:
                raise ValueError(
                    f"Layer '{name}' has no kernel of {rank} axes."
                )
        if "stem_conv" not in layers:
            raise ValueError("Layer 'stem_conv' is not in the file.")
        return layers


def find(weights, family, arguments):
    """Finds and verifies what a builder's `weights=` asks for.

    Args:
        weights: `None`; a data set's name, or that of a network of
            `list_weights`; the path of a weights folder, of a training run,
            of a `.weights.h5` file or of somebody's checkpoint;
            `"hf://organisation/name"`, with `@revision` behind it or not; or
            a `Source`, which is returned as it is.
        family: str. The builder's name.
        arguments: dict. The builder's architecture arguments.

    Returns:
        A `Source`, or `None` for `weights=None`.

    Raises:
        ValueError: If there are no such weights for the very architecture.
        keras_resfam.HubError: If the Hub does not give them.
    """
    if weights is None or isinstance(weights, Source):
        return weights
    if not isinstance(weights, (str, os.PathLike)):
        raise _refusal(weights, family)
    text = os.path.expanduser(weights)
    if text.startswith("hf://"):
        repository, _, revision = text.removeprefix("hf://").partition("@")
        files = _fetch_checkpoint(repository, revision or "main")
        if files is not None:
            return _foreign(repr(text), files, family, arguments)
        files = _fetch(repository, revision or "main")
    elif isinstance(weights, str) and weights in names():
        network = _choose(weights, family, arguments)
        if isinstance(network, registry.PublicNetwork):
            return _public(network, family, arguments)
        files = _registered_files(network)
    elif _is_run(Path(text)):
        return _read_file(Path(text) / WEIGHTS, family, arguments)
    elif foreign.is_checkpoint(text):
        files = foreign.read_files(text)
        return _foreign(repr(text), files, family, arguments)
    elif os.path.isdir(text):
        files = _read_folder(Path(text))
    elif _is_of_a_folder(text):
        files = _read_folder(Path(text).parent)
    elif os.path.isfile(text) and text.endswith(".weights.h5"):
        return _read_file(Path(text), family, arguments)
    else:
        raise _refusal(weights, family, _what_is_wrong(text))
    return _source(repr(text), files, family, arguments)


def class_names(weights):
    """Returns the names of the classes that weights tell apart.

    Args:
        weights: str or path, as for a builder: a data set's name, that of a
            network of `list_weights`, a path, or
            `"hf://organisation/name[@revision]"`.

    Returns:
        A tuple of str, in the order of the classifier's outputs. A checkpoint
        of 1,000 classes whose config has no names is taken to be ImageNet's.

    Raises:
        ValueError: If there are no such weights, or nothing tells the names.
        keras_resfam.HubError: If the Hub does not tell them.

    Example:

    ```python
    names = keras_resfam.class_names("imagenet")
    keras_resfam.decode_predictions(model.predict(images), names)
    ```
    """
    check_path("weights", weights)
    text = os.path.expanduser(weights)
    files = _descriptions(text)
    if files is not None and RECIPE not in files:
        names = foreign.class_names(repr(text), files)
    elif files is not None:
        names = _names_in(files[RECIPE], repr(text))
    else:
        names = _names_of(text) or _names_registered(text)
    if not names:
        raise ValueError(
            "`weights` should be a data set's name, or weights that tell the "
            f"names of their classes. Received: weights={weights!r}"
        )
    return names


def image_transform(weights):
    """Returns how the authors of a checkpoint resize and crop images.

    Args:
        weights: str or path, as for a builder.

    Returns:
        A dict, empty or with `"crop"` and `"interpolation"`, as
        `keras_resfam.load_images` takes them.

    Raises:
        ValueError: If there are no such weights.
        keras_resfam.HubError: If the Hub does not give their description.
    """
    check_path("weights", weights)
    text = os.path.expanduser(weights)
    for network in registry.read_public():
        if text == network.name:
            text = f"hf://{network.repository}@{network.commit or 'main'}"
    files = _descriptions(text) or {RECIPE: _registered_recipe(text)}
    if RECIPE not in files:
        return foreign.transform(repr(text), files)
    described = json.loads(files[RECIPE] or "{}")
    if described.get("image_size") is None:
        return {}
    return {"crop": 224 / 256, "interpolation": "bilinear"}  # as train.py does


def _names_in(contents, where):
    """The class names that a recipe.json tells."""
    try:
        described = recipe.parse(contents)
    except ValueError as error:
        raise ValueError(
            f"`weights` should have a {RECIPE} that tells what they were "
            f"trained on. {error} Received: weights={where}"
        ) from error
    return tuple(described.get("class_names", ())) or _names_of(
        described["dataset"]
    )


def _names_registered(name):
    """The class names of a network, or of a data set, in the registry."""
    for network in registry.read() + registry.read_public():
        if name in (network.name, network.dataset):
            described = _registered_recipe(name)
            if described is None:
                return _names_of(network.dataset)
            return _names_in(described, repr(name))
    return ()


def _registered_recipe(name):
    """The recipe.json of a network of a data set that only it describes."""
    for network in registry.read():
        if name in (network.name, network.dataset):
            if network.dataset not in DATASETS:
                return _registered_files(network)[RECIPE]
    return None


def _names_of(dataset):
    record = DATASETS.get(ALIASES.get(dataset, dataset))
    return record.class_names if record is not None else ()


def _descriptions(text):
    """The files that say what weights are, by name; `None` for a mere name."""
    if text.startswith("hf://"):
        repository, _, revision = text.removeprefix("hf://").partition("@")
        where = repository, revision or "main"
        return _fetch_checkpoint(*where, weights=False) or _fetch(*where)
    if foreign.is_checkpoint(text):
        return foreign.read_files(text, weights=False)
    for path in (Path(text, RECIPE), Path(text).parent / RECIPE):
        if os.path.exists(text) and path.is_file():
            return {RECIPE: path.read_bytes()}
    return None


def _fetch(repository, revision, pins=None):
    # The Hub's client is slow to import, and seldom needed.
    from keras_resfam.pretrained import hub

    return hub.fetch(repository, revision, pins)


def _fetch_checkpoint(repository, revision, pins=None, weights=True):
    from keras_resfam.pretrained import hub_checkpoints

    return hub_checkpoints.fetch(repository, revision, pins, weights)


def _public(network, family, arguments):
    revision = network.commit or "main"
    files = _fetch_checkpoint(network.repository, revision, network.files)
    if files is None:
        raise HubError.about(
            network.repository,
            revision,
            "it holds another network than the registry says.",
            f"name another in `weights`. {_offer(family)}",
        )
    source = _foreign(repr(network.name), files, family, arguments)
    return dataclasses.replace(source, dataset=network.dataset)


def _foreign(where, files, family, arguments):
    return Source(where, **foreign.contents(where, files, family, arguments))


def names():
    """What `weights` may be without being a path: networks and data sets."""
    networks = registry.read() + registry.read_public()
    own = {network.name for network in networks}
    own |= {network.dataset for network in networks}
    return own | DATASETS.keys() | ALIASES.keys()


def _is_run(folder):
    """Whether a path is that of a training run's folder, and not a network's.

    A run has no description of its own in the format that Keras loads.
    """
    files = RECIPE, WEIGHTS
    return all((folder / name).is_file() for name in files) and not any(
        (folder / name).exists() for name in ("config.json", FINGERPRINT)
    )


def _is_of_a_folder(path):
    """Whether a path is that of the weights in a weights folder."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, FINGERPRINT)
    return name == WEIGHTS and all(map(os.path.isfile, (path, beside)))


def _what_is_wrong(path):
    """A sentence on a path that weights cannot be read from."""
    if os.path.isfile(path):
        if path.endswith(".keras"):
            return f"`keras.saving.load_model` reads '{path}'. "
    elif os.path.basename(path) != path or path.endswith(".weights.h5"):
        return f"There is no file or folder '{path}'. "
    return ""


def _refusal(weights, family, wrong=""):
    return ValueError(
        "`weights` should be None, the data set of trained weights, the path "
        "of a weights folder or of a '.weights.h5' file, or "
        f"'hf://organisation/name[@revision]'. {wrong}{_offer(family)} "
        f"Received: weights={weights!r}"
    )


def _offer(family):
    calls = sorted({n.call for n in registry.list_weights(family)})
    return (
        f"For {family} there are: {', '.join(calls) or 'none'}. "
        "`keras_resfam.list_weights()` lists those of all families."
    )


def _choose(name, family, arguments):
    """The network meant by a name, for the very architecture asked for."""
    network = registry.choose(name, family, arguments)
    if network is None:
        raise ValueError(
            "`weights` should be those of trained networks. There are none "
            f"for {families.call(family, arguments, weights=name)}. "
            f"{_offer(family)} Received: weights={name!r}"
        )
    return network


def _registered_files(network):
    """A network's files: from the checkout, the package, else the Hub."""
    folders = [_CARRIED / network.name]
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
            f"'{network.name}' ({megabytes:.0f} MB) is not in this "
            "installation, which has the small networks only, and has not been "
            "published.",
            "clone the project and install it with `pip install -e`, or pass "
            f"the path of its folder weights/{network.name} as `weights`.",
        )
    return _fetch(network.repository, network.commit, network.files)


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
            f"The weights in '{folder}' are not as they were published: "
            f"{wrong}. Restore them, in a checkout with "
            f"`git restore {folder}`. Received: weights='{folder}'"
        )
    return files


def _read_file(path, family, arguments):
    """The `Source` of a file, with what the run that it lies in says of it."""
    where = repr(str(path))
    weights = path.read_bytes()
    wrong = digest_fault(path, weights)
    if wrong is not None:
        raise ValueError(
            f"The weights in '{path}' are not as training wrote them: {wrong}. "
            f"Received: weights={where}"
        )
    layers, known = _read_layers(where, weights), {}
    beside = path.with_name(RECIPE)
    if beside.is_file():
        try:
            described = recipe.parse(beside.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"`weights` should lie beside the {RECIPE} of their run, or "
                f"beside none; {beside} does not tell what they were trained "
                f"on. {error} Received: weights={where}"
            ) from error
        known = _known(described)
        _check_network(where, _built(described), family, arguments)
    return Source(where, layers, **known)


def _built(described):
    """The builder and the arguments of the network that a recipe.json is of."""
    return described["builder"], described["arguments"]


def _check_network(where, built, family, arguments):
    """Refuses weights of another network than the one asked for."""
    if built[0] != family or families.architecture(
        *built
    ) != families.architecture(family, arguments):
        raise ValueError(
            "`weights` should be those of the very network, "
            f"{families.call(family, arguments)}; these are those of "
            f"{families.call(*built)}. Received: weights={where}"
        )


def _known(described):
    """What a recipe.json tells of weights, as the attributes of a `Source`."""
    dataset = described["dataset"]
    # Fine-tuned networks keep the moments of what they started from.
    moments = described.get("preprocessing", dataset)
    if isinstance(moments, list):
        moments = tuple(map(tuple, moments))
    elif moments not in DATASETS:
        moments = None
    return {
        "dataset": dataset,
        "preprocessing": moments,
        "input_shape": tuple(described["input_shape"]),
    }


def _source(where, files, family, arguments):
    """Makes a `Source` of a network's files, if it is the one asked for."""
    try:
        described = recipe.parse(files[RECIPE])
        variables = json.loads(files[FINGERPRINT])["variables"]
        expected = fingerprint.layout(variables)
    except (*hdf5.ERRORS, RecursionError) as error:
        raise ValueError(
            "`weights` should be those of a network of keras_resfam; "
            f"{RECIPE} and {FINGERPRINT} do not tell which "
            f"({error!r}). Received: weights={where}"
        ) from error
    _check_network(where, _built(described), family, arguments)
    layers = _read_layers(where, files[WEIGHTS], expected)
    return Source(where, layers, **_known(described))
