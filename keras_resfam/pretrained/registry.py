"""The registry of trained networks, `registry.json` and `public.json`."""

import dataclasses
import json
from pathlib import Path

import filelock

from keras_resfam._checks import check_choice
from keras_resfam._files import replacing
from keras_resfam.datasets import ALIASES, DATASETS
from keras_resfam.models import families

PATH = Path(__file__).with_name("registry.json")

PUBLIC = Path(__file__).with_name("public.json")
"""The registry of networks that other projects trained and published."""

_NAMESPACE = "keras-resfam"
"""The organization on the Hugging Face Hub that publishes our networks."""


@dataclasses.dataclass(frozen=True, repr=False)
class Network:
    """A trained network.

    Attributes:
        name: str. The name of its folder in `weights/`.
        builder: str. The builder's name.
        arguments: dict. The builder's architecture arguments.
        dataset: str. The data set that it was trained on.
        classes: int. Number of classes.
        input_shape: list. `[height, width, channels]`.
        accuracy: float. The accuracy on the test set, in percent.
        repository: str. `organization/name` on the Hub.
        commit: str. The commit that is loaded, or `None` if the network has
            not been published.
        files: dict from file names to their `"bytes"` and `"sha256"`.
    """

    name: str
    builder: str
    arguments: dict
    dataset: str
    classes: int
    input_shape: list
    accuracy: float
    repository: str
    commit: str
    files: dict

    @property
    def call(self):
        """The expression that builds the network with these weights.

        Its `weights` is the name of the data set, if that selects this
        network, or else the name of the network.
        """
        network = self.builder, self.arguments
        weights = _shorthand(self.name, self.dataset, *network)
        return families.call(*network, weights=weights)

    def __repr__(self):
        where = "not published"
        if self.commit is not None:
            where = f"hf://{self.repository}@{self.commit}"
        measured = f"{self.accuracy:.2f} % on {title(self.dataset)}"
        return f"{self.call}: {measured}, {where}"


@dataclasses.dataclass(frozen=True, repr=False)
class PublicNetwork(Network):
    """A network that another project trained.

    Its accuracy is the one that the authors state. If its commit is `None`,
    the newest revision is loaded and verified by the digest that the Hub
    states. Otherwise it is also verified by the digest in the registry.

    Attributes:
        license: str. The license of the weights, as stated.
        measured_at: int. The image size at which the accuracy was measured.
    """

    license: str
    measured_at: int

    def __repr__(self):
        revision = f"@{self.commit}" if self.commit else ", newest revision"
        return (
            f"{self.call}: {self.accuracy:.2f} % on {title(self.dataset)} at "
            f"{self.measured_at} pixels by its authors' account, "
            f"hf://{self.repository}{revision}, {self.license}"
        )


def title(dataset):
    """Returns the name of a data set as papers print it, such as CIFAR-10."""
    return DATASETS[dataset].title if dataset in DATASETS else dataset


def read():
    """Returns the networks of this project, as a list of `Network`."""
    entries = json.loads(PATH.read_text())
    return [Network(name, **entry) for name, entry in entries.items()]


def read_public():
    """Returns other projects' networks, as a list of `PublicNetwork`."""
    record = DATASETS["imagenet2012"]
    return [
        PublicNetwork(
            name=entry["repository"].partition("/")[2],
            builder=builder,
            arguments=families.defaults(builder),
            dataset=record.name,
            classes=record.classes,
            input_shape=list(record.image_shape),
            **entry,
        )
        for entry in json.loads(PUBLIC.read_text())
        for builder in entry.pop("builders")
    ]


def write(networks):
    """Replaces the registry of this project's networks.

    Args:
        networks: iterable of `Network`.
    """
    entries = {}
    for network in sorted(networks, key=lambda network: network.name):
        entry = dataclasses.asdict(network)
        entries[entry.pop("name")] = entry
    with replacing(PATH) as partial:
        partial.write_text(json.dumps(entries, indent=1) + "\n")


def lock():
    """Returns a lock on the registry, as a context manager.

    Code that reads the registry in order to write it holds this lock, which
    keeps other processes from writing. It is reentrant within a process.
    """
    path = PATH.with_name(f".{PATH.name}.lock")
    return filelock.FileLock(path, is_singleton=True)


def pins(name, sha256):
    """Returns whether a file is in the registry with this digest.

    Args:
        name: str. The name of the file in the folder of a network.
        sha256: str. The SHA-256 of its contents.
    """
    return any(
        network.files.get(name, {}).get("sha256") == sha256
        for network in read()
    )


def repository(name):
    """Returns the Hub repository in which this project publishes a network."""
    return f"{_NAMESPACE}/{name}"


def list_weights(family=None, dataset=None):
    """Lists the trained networks, by family and data set.

    Args:
        family: str or callable. A builder or its name. Defaults to `None`,
            all families.
        dataset: str. A data set's name. Defaults to `None`, all data sets.

    Returns:
        A list of `keras_resfam.pretrained.registry.Network`. Its attributes
        describe a network, among them `name`, `builder`, `arguments`,
        `dataset` and `accuracy` (in percent). It prints as one line.

    Raises:
        ValueError: If the builder or the data set is unknown.

    Example:

    ```python
    for network in keras_resfam.list_weights(dataset="cifar10"):
        print(network)
    ```
    """
    family = getattr(family, "__name__", family)
    if family is not None:
        check_choice("family", family, families.names())
    networks = read() + read_public()
    known = {network.dataset for network in networks} | DATASETS.keys()
    if dataset is not None:
        check_choice("dataset", dataset, sorted(known | ALIASES.keys()))
        dataset = ALIASES.get(dataset, dataset)
    chosen = [
        network
        for network in networks
        if family in (None, network.builder)
        and dataset in (None, network.dataset)
    ]
    return sorted(chosen, key=lambda n: (n.builder, n.dataset, n.name))


def choose(name, family, arguments):
    """Returns the network of an architecture that a name selects.

    Args:
        name: str. The name of a network or of a data set. Of several networks
            trained on a data set, the most accurate is selected.
        family: str. The builder's name.
        arguments: dict. The builder's architecture arguments.

    Returns:
        A `Network`, or `None`.
    """
    wanted = families.architecture(family, arguments)
    name = ALIASES.get(name, name)
    fitting = [
        network
        for network in list_weights(family)
        if name in (network.name, network.dataset)
        and families.architecture(family, network.arguments) == wanted
    ]
    return min(
        fitting,
        key=lambda n: (n.name != name, -n.accuracy, len(n.name), n.name),
        default=None,
    )


def _shorthand(name, dataset, family, arguments):
    """Returns the shortest `weights` that selects a network.

    This is the name of the data set, if it selects the network, or else the
    name of the network.

    Args:
        name: str. The network's name.
        dataset: str. The data set that it was trained on.
        family: str. The builder's name.
        arguments: dict. The builder's architecture arguments.
    """
    selected = choose(dataset, family, arguments)
    if selected is not None and selected.name != name:
        return name
    return next((x for x, y in ALIASES.items() if y == dataset), dataset)
