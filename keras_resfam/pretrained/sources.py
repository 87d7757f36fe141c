"""Finds the weights that `weights=` asks for, and loads them into a model.

The weights of a network are a folder: `weights/<name>/` in a checkout of this
project, or a repository on the Hugging Face Hub. The files are verified before
HDF5 opens one. They are read only once, so the bytes that were verified are
the bytes that are opened. The values are loaded by layer name, after their
types and shapes were compared with the fingerprint.
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
from keras_resfam.pretrained.channels import RGB, adapt_kernel, adapt_moments
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
"""The checkout of this project, if the package is imported from one."""

_BUNDLED = Path(__file__).parents[1] / "weights"
"""The folder of the small networks in a wheel (training/networks/wheel.py)."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Verified weights, ready to be loaded.

    Attributes:
        where: str. Names the weights in error messages.
        layers: dict from layer names to lists of arrays.
        dataset: str. The data set that they were trained on, or `None` if it
            is unknown.
        preprocessing: str or tuple. The channel moments by which the network
            normalizes images: the name of a data set, or a pair of tuples,
            the means and the standard deviations of pixels in 0..255. `None`
            if they are unknown.
        input_shape: tuple. `(height, width, channels)`, or `None` if it is
            unknown.
        crops: dict from image sizes, `(height, width)`, to the share of
            photographs that is kept; that of `None` is for all other sizes.
        interpolation: str. The filter by which photographs are resized, or
            `None` if it is unknown.
        class_names: list of str, or the name of a data set. `None` if they
            are unknown.
        checkpoint: `dialects.Checkpoint`. The checkpoint of another project
            that the values are from, or `None`.
    """

    where: str
    layers: dict
    dataset: str = None
    preprocessing: str | tuple = None
    input_shape: tuple = None
    crops: dict = dataclasses.field(default_factory=dict)
    interpolation: str = None
    class_names: str | list = None
    checkpoint: dialects.Checkpoint = None

    @property
    def classes(self):
        """int. Number of classes, or `None` without a classifier."""
        top = self.layers.get("predictions")
        return top[0].shape[-1] if top else None

    @property
    def channels(self):
        """int. Number of channels of the images."""
        return self.layers["stem_conv"][0].shape[-2]

    def data_config(self, size, include_top):
        """Returns the `data_config` of a `keras_resfam.layers.Rescaling`.

        Args:
            size: tuple. `(height, width)` of the network's images.
            include_top: bool. Whether the network has the classifier.
        """
        known = {
            "crop": self.crops.get(size, self.crops.get(None)),
            "interpolation": self.interpolation,
            "class_names": self.class_names if include_top else None,
        }
        return {key: value for key, value in known.items() if value}

    def with_channels(self, channels):
        """Returns the weights for images with another number of channels.

        Args:
            channels: int.

        Raises:
            ValueError: If the weights are not for images with three channels.
        """
        if self.channels != RGB:
            own = f"{self.channels} channel{'s' * (self.channels > 1)}"
            raise ValueError(
                f"`input_shape` should have {own}, like the images of the "
                f"weights {self.where}. Only weights for RGB images are "
                f"adapted to other channels. Received: {channels} channels"
            )
        kernel, *others = self.layers["stem_conv"]
        kernel = adapt_kernel(kernel, channels)
        checkpoint, moments = self.checkpoint, self.preprocessing
        if checkpoint is not None:
            values = {**checkpoint.values, ("stem_conv", "weight"): kernel}
            checkpoint = dataclasses.replace(checkpoint, values=values)
        if isinstance(moments, str):
            moments = DATASETS[moments].mean, DATASETS[moments].std
        if moments is not None:
            moments = tuple(adapt_moments(x, channels) for x in moments)
        shape = self.input_shape
        return dataclasses.replace(
            self,
            layers={**self.layers, "stem_conv": [kernel, *others]},
            checkpoint=checkpoint,
            preprocessing=moments,
            input_shape=shape and (*shape[:2], channels),
        )

    def load_into(self, network):
        """Loads the weights into a network.

        Args:
            network: list of the layers of the network, with or without the
                classifier.

        Raises:
            ValueError: If the values do not fit the layers. The message names
                the first layer. No layer is changed then.
        """
        targets = {layer.name: layer for layer in network if layer.weights}
        layers = self.layers
        if "predictions" not in targets:
            layers = {k: v for k, v in layers.items() if k != "predictions"}
        elif "predictions" not in layers:
            raise ValueError(
                "`include_top` should be False with weights that have no "
                f"classifier, such as those of {self.where}. "
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
    """Turns any error about a file into a ValueError that names the file."""
    try:
        yield
    except hdf5.ERRORS as error:
        raise ValueError(
            f"The weights of {where} do not fit this network. {error}"
        ) from error


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
        address = _hub_address(text)
        files = _fetch_checkpoint(*address)
        if files is not None:
            return _foreign(repr(text), files, family, arguments)
        files = _fetch(*address)
    elif isinstance(weights, str) and weights in names():
        network = _choose(weights, family, arguments)
        if isinstance(network, registry.PublicNetwork):
            return _public(network, family, arguments)
        files = _registered_files(network)
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
    if isinstance(weights, str) and weights in names():
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
            return _names_in(_registered_files(network)[RECIPE], repr(name))
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
        address = _hub_address(text)
        return _fetch_checkpoint(*address, weights=False) or _fetch(*address)
    if foreign.is_checkpoint(text):
        return foreign.read_files(text, weights=False)
    for path in (Path(text, RECIPE), Path(text).parent / RECIPE):
        if os.path.exists(text) and path.is_file():
            return {RECIPE: path.read_bytes()}
    return {}


def _hub_address(text):
    """Splits `"hf://repository@revision"` into repository and revision."""
    repository, _, revision = text.removeprefix("hf://").partition("@")
    return repository, revision or "main"


def _fetch(repository, revision, pins=None):
    # The Hub's client is slow to import, and rarely needed.
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


def _registered_files(network):
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
