"""Which trained networks there are: what `registry.json` says."""

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
"""What others have trained and published."""

_NAMESPACE = "keras-resfam"
"""The organisation on the Hugging Face Hub under which they are published."""


@dataclasses.dataclass(frozen=True, repr=False)
class Network:
    """A trained network.

    Attributes:
        name: str. Its folder in `weights/`.
        builder: str. The builder's name.
        arguments: dict. The builder's architecture arguments.
        dataset: str. What it was trained on.
        classes: int. Number of classes.
        input_shape: list. `[height, width, channels]`.
        accuracy: float, in percent, on the test split.
        repository: str. `organisation/name` on the Hub.
        commit: str. The commit that is loaded; `None` if it has not been
            published.
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

        It has the data set's name where that means this very network.
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
    """A network that others have trained.

    Its accuracy is what they state. Where its commit is `None`, the newest
    revision is loaded, verified by the SHA-256 that the Hub itself states;
    otherwise by that of the registry as well.

    Attributes:
        licence: str. The licence of the weights, as stated.
        measured_at: int. The image size at which the accuracy was measured.
    """

    licence: str
    measured_at: int

    def __repr__(self):
        revision = f"@{self.commit}" if self.commit else ", newest revision"
        return (
            f"{self.call}: {self.accuracy:.2f} % on {title(self.dataset)} at "
            f"{self.measured_at} pixels by its authors' account, "
            f"hf://{self.repository}{revision}, {self.licence}"
        )


def title(dataset):
    """The name of a data set as papers print it."""
    return DATASETS[dataset].title if dataset in DATASETS else dataset


def read():
    """Returns all networks of the registry, as a list of `Network`."""
    entries = json.loads(PATH.read_text())
    return [Network(name, **entry) for name, entry in entries.items()]


def read_public():
    """Returns the networks of others, as a list of `PublicNetwork`."""
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
    """Writes the registry, whole or not at all.

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
    """A context manager that keeps other processes from registering meanwhile.

    Who reads the registry in order to write it holds this lock. It is
    reentrant within a process.
    """
    path = PATH.with_name(f".{PATH.name}.lock")
    return filelock.FileLock(path, is_singleton=True)


def pins(name, sha256):
    """Whether a file is one that the registry knows, to the bit.

    Args:
        name: str. The file's name in the folder of a network.
        sha256: str. Its digest.
    """
    return any(
        network.files.get(name, {}).get("sha256") == sha256
        for network in read()
    )


def repository(name):
    """The repository on the Hub in which the project publishes a network."""
    return f"{_NAMESPACE}/{name}"


def list_weights(family=None, dataset=None):
    """Lists the trained networks, by family and data set.

    Args:
        family: str or callable. A builder or its name. Defaults to `None`,
            all of them.
        dataset: str. A data set's name. Defaults to `None`, all of them.

    Returns:
        A list of `keras_resfam.pretrained.registry.Network`. The attributes of
        one are all that is known of it, and it prints as one line.

    Raises:
        ValueError: If there is no such builder or data set.

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
    """The network meant by a name, for the very architecture asked for.

    Args:
        name: str. Of a network, or of a data set: then, of several, the most
            accurate is meant.
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
    """What `weights` can be for a network: its data set, where that means it.

    Args:
        name: str. The network's name.
        dataset: str. What it was trained on.
        family: str. The builder's name.
        arguments: dict. The builder's architecture arguments.
    """
    meant = choose(dataset, family, arguments)
    if meant is not None and meant.name != name:
        return name
    return next((x for x, y in ALIASES.items() if y == dataset), dataset)
