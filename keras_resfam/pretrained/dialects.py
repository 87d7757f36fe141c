"""What others call the layers of the same networks.

A dialect pairs the name of a layer of ours with that of the module whose
values it takes. Checkpoints are told apart by their keys, and values go from
module to layer by name: the order in which a file has them is that of
somebody's code, and differs.
"""

import dataclasses
import functools
import re

import numpy as np

from keras_resfam import graphs
from keras_resfam._checks import check_choice
from keras_resfam.graphs.copies import checked

_PARTS = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""What PyTorch calls the variables of a layer."""

_ORDER = ("weight", "bias", "running_mean", "running_var")

_UNUSED = "num_batches_tracked"

_OUR_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
"""The axes of a kernel, as numbers of PyTorch's; channels come last here."""

_THEIR_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}


@dataclasses.dataclass(frozen=True)
class _Dialect:
    """How the layers of a network are called in somebody's code.

    Attributes:
        name: str.
        outside: tuple of pairs: the name of a layer, and of the module. Of
            several modules of a layer, the first is the one written.
        block: str. The name of a block.
        inside: tuple of pairs, as `outside`: names behind those of the block.
        first: dict. What is counted from another number than 1.
        dead: str. A regular expression for the keys that belong to no part of
            the network.
    """

    name: str
    outside: tuple
    block: str
    inside: tuple
    first: dict
    dead: str = ""

    @functools.cached_property
    def pairs(self):
        """All pairs of names."""
        inside = (
            (f"stage{{stage}}_block{{block}}_{ours}", f"{self.block}.{theirs}")
            for ours, theirs in self.inside
        )
        return (*self.outside, *inside)

    def layer(self, module):
        """Our name of a module of theirs, or `None`."""
        pairs = ((theirs, ours) for ours, theirs in self.pairs)
        shift = {k: 1 - n for k, n in self.first.items()}
        return _renamed(module, pairs, shift)

    def module(self, layer):
        """Their name of a layer of ours, or `None`."""
        shift = {k: n - 1 for k, n in self.first.items()}
        return _renamed(layer, self.pairs, shift)


def _renamed(name, pairs, shift):
    for known, wanted in pairs:
        found = _pattern(known).fullmatch(name)
        if found:
            numbers = {
                k: int(text) + shift.get(k, 0)
                for k, text in found.groupdict().items()
            }
            return wanted.format(**numbers)
    return None


@functools.cache
def _pattern(template):
    number = r"(?P<\1>\\d+)"
    return re.compile(re.sub(r"\\{(\w+)\\}", number, re.escape(template)))


_CONVS = (("conv{conv}", "conv{conv}"), ("bn{conv}", "bn{conv}"))

_UNIT = (
    ("conv{conv}", "body.conv{conv}.conv"),
    ("bn{conv}", "body.conv{conv}.bn"),
    ("shortcut_conv", "identity_conv.conv"),
    ("shortcut_bn", "identity_conv.bn"),
)

_DIALECTS = (
    _Dialect(  # torchvision's too, chenyaofo's and kuangliu's
        "timm",
        outside=(
            ("stem_conv", "conv1"),
            ("stem_bn", "bn1"),
            ("predictions", "fc"),
            ("predictions", "linear"),
        ),
        block="layer{stage}.{block}",
        inside=(
            *_CONVS,
            ("shortcut_conv", "downsample.0"),
            ("shortcut_bn", "downsample.1"),
            ("shortcut_conv", "shortcut.0"),
            ("shortcut_bn", "shortcut.1"),
        ),
        first={"block": 0},
    ),
    _Dialect(  # xternalz's, from whom RobustBench and TRADES have it
        "robustbench",
        outside=(
            ("stem_conv", "conv1"),
            ("head_bn", "bn1"),
            ("predictions", "fc"),
        ),
        block="block{stage}.layer.{block}",
        inside=(*_CONVS, ("shortcut_conv", "convShortcut")),
        first={"block": 0},
        dead=r"sub_block1\..*",  # TRADES makes it, and does not call it
    ),
    _Dialect(  # of networks with BN before the convolutions
        "pytorchcv",
        outside=(
            ("stem_conv", "features.init_block"),
            ("head_bn", "features.post_activ.bn"),
            ("predictions", "output"),
        ),
        block="features.stage{stage}.unit{block}",
        inside=(("shortcut_conv", "identity_conv"), *_UNIT),
        first={},
    ),
    _Dialect(  # and behind them
        "pytorchcv",
        outside=(
            ("stem_conv", "features.init_block.conv"),
            ("stem_bn", "features.init_block.bn"),
            ("predictions", "output"),
        ),
        block="features.stage{stage}.unit{block}",
        inside=_UNIT,
        first={},
    ),
    _Dialect(
        "transformers",
        outside=(
            ("stem_conv", "resnet.embedder.embedder.convolution"),
            ("stem_bn", "resnet.embedder.embedder.normalization"),
            ("predictions", "classifier.1"),
        ),
        block="resnet.encoder.stages.{stage}.layers.{block}",
        inside=(
            ("conv{conv}", "layer.{conv}.convolution"),
            ("bn{conv}", "layer.{conv}.normalization"),
            ("shortcut_conv", "shortcut.convolution"),
            ("shortcut_bn", "shortcut.normalization"),
        ),
        first={"stage": 0, "block": 0, "conv": 0},
    ),
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Somebody's tensors by the names of our layers.

    Attributes:
        dialect: `Dialect`.
        values: dict from pairs, of a layer's name and of what PyTorch calls
            its variable, to arrays with the axes in Keras's order.
        keys: dict from these pairs to the names in the file.
        unknown: list of the names that are no layer's.
    """

    dialect: _Dialect
    values: dict
    keys: dict
    unknown: list

    def layers(self):
        """Lists of arrays by layer name, in the order of Keras's weights."""
        layers = {}
        for name, part in sorted(self.values, key=lambda x: _ORDER.index(x[1])):
            layers.setdefault(name, []).append(self.values[name, part])
        return layers

    def check(self, layers):
        """Checks that each value has a variable, and each variable a value.

        Args:
            layers: iterable of the network's layers. Without a classifier
                among them, the values of the classifier are left.

        Raises:
            ValueError: If not. The text has the first key that has no place,
                the first that is missing, and the first of another shape.
        """
        wanted = {
            (layer.name, _PARTS[variable.name]): tuple(variable.shape)
            for layer in layers
            for variable in layer.weights
        }
        top = "predictions" in {name for name, _ in wanted}
        given = [x for x in self.values if top or x[0] != "predictions"]
        unused = [self.keys[x] for x in given if x not in wanted]
        missing = [
            f"{self.dialect.module(name) or name}.{part}"
            for name, part in wanted
            if (name, part) not in self.values
        ]
        others = [
            x
            for x in given
            if wanted.get(x) not in (None, self.values[x].shape)
        ]
        faults = [
            _first("The network has no place for", self.unknown + unused),
            _first("There is no", missing),
            _first("Of another shape is", [self.keys[x] for x in others]),
        ]
        if others:
            shapes = self.values[others[0]].shape, wanted[others[0]]
            found, needed = (_reordered(x, _THEIR_AXES) for x in shapes)
            faults.append(f"It should be {needed}, and is {found}.")
        if any(faults):
            raise ValueError(" ".join(filter(None, faults)))


def _first(text, keys):
    """A sentence on the first of some keys; nothing if there are none."""
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    return f"{text} '{keys[0]}'{more}." if keys else ""


def _reordered(shape, axes):
    return tuple(shape[k] for k in axes.get(len(shape), range(len(shape))))


def translate(state):
    """Finds whose names the tensors of a file have, and makes them ours.

    Args:
        state: dict from names to arrays.

    Returns:
        A `Checkpoint`.

    Raises:
        ValueError: If the tensors are of no known dialect, or cannot be the
            values of layers.
    """
    if state and all(key.startswith("module.") for key in state):
        # They come from a network that was trained on several devices.
        state = {key.removeprefix("module."): x for key, x in state.items()}
    modules = {key.rpartition(".")[0] for key in state}
    dialect = max(
        _DIALECTS, key=lambda x: sum(map(bool, map(x.layer, modules)))
    )
    checkpoint = Checkpoint(dialect, {}, {}, [])
    for key, value in state.items():
        module, _, part = key.rpartition(".")
        name = dialect.layer(module)
        if name and part == _UNUSED or re.fullmatch(dialect.dead, key):
            continue
        if name is None or part not in _ORDER:
            checkpoint.unknown.append(key)
        else:
            _add(checkpoint, (name, part), key, value)
    _check_ends(checkpoint, state)
    return checkpoint


def _add(checkpoint, place, key, value):
    if place in checkpoint.keys:
        raise ValueError(
            f"Both '{checkpoint.keys[place]}' and '{key}' are values of the "
            f"layer '{place[0]}'."
        )
    if value.dtype.kind != "f":
        raise ValueError(
            f"'{key}' should hold floating-point numbers, and holds "
            f"{value.dtype}."
        )
    axes = _OUR_AXES.get(value.ndim)
    checkpoint.keys[place] = key
    checkpoint.values[place] = value.transpose(axes) if axes else value


def _check_ends(checkpoint, state):
    """Checks what tells the channels of the images, and the classes."""
    stem, top = ("stem_conv", "weight"), ("predictions", "weight")
    if stem not in checkpoint.keys:
        names = dict.fromkeys(dialect.name for dialect in _DIALECTS)
        raise ValueError(
            "There is no kernel of the first convolution, such as "
            f"'conv1.weight', by the names of {', '.join(names)}. "
            + _first("There is", list(state))
        )
    for place, rank in ((stem, 4), (top, 2)):
        if place in checkpoint.keys and checkpoint.values[place].ndim != rank:
            raise ValueError(
                f"'{checkpoint.keys[place]}' should have {rank} axes, and has "
                f"{checkpoint.values[place].ndim}."
            )


def to_torch_state_dict(model, layout=None):
    """Returns a network's values by the names that PyTorch's users know.

    The network there has to be the same: timm's, torchvision's and
    transformers' ResNets for our ImageNet forms of the same names,
    RobustBench's and pytorchcv's wide ones for `WideResNet`. A builder's
    `weights=` reads what is saved of them, and gives the same network again.

    Args:
        model: `keras.Model`. A network of keras_resfam, or one that holds it.
        layout: `"timm"`, `"robustbench"`, `"pytorchcv"`, `"transformers"` or
            `None`. Whose names: timm's are torchvision's, and RobustBench's
            are xternalz's. Defaults to `None`, the first of them that have
            a name for every layer.

    Returns:
        A dict from names to NumPy arrays, whose axes are in PyTorch's order.
        There is no `num_batches_tracked`, without which `load_state_dict`
        does.

    Raises:
        ValueError: If `model` is neither functional nor sequential, or if the
            layout has no name for a layer.

    Example:

    ```python
    from safetensors.numpy import save_file

    model = keras_resfam.WideResNet(28, 10, weights="cifar10")
    state = keras_resfam.to_torch_state_dict(model, "robustbench")
    save_file(state, "wrn_28_10.safetensors")
    ```
    """
    names = tuple(dict.fromkeys(dialect.name for dialect in _DIALECTS))
    check_choice("layout", layout, (None, *names))
    layers = [
        layer
        for layer in graphs.layers_within(checked(model))
        if layer.weights and not graphs.is_graph(layer)
    ]
    dialect, stranger = _fitting(layout, layers)
    if stranger is not None:
        raise ValueError(
            f"`layout` should be that of {', '.join(names)} which has a name "
            f"for the layer '{stranger}'. Received: layout={layout!r}"
        )
    return {
        f"{dialect.module(layer.name)}.{_PARTS[variable.name]}": _theirs(value)
        for layer in layers
        for variable, value in zip(
            layer.weights, layer.get_weights(), strict=True
        )
    }


def _fitting(layout, layers):
    """The first dialect that names all layers, else the first and a layer's
    name that it has no name for."""
    found = []
    for dialect in _DIALECTS:
        if layout not in (None, dialect.name):
            continue
        strangers = [
            layer.name
            for layer in layers
            if not dialect.module(layer.name)
            or not all(variable.name in _PARTS for variable in layer.weights)
        ]
        found.append((dialect, strangers[0] if strangers else None))
    return next((x for x in found if x[1] is None), found[0])


def _theirs(value):
    axes = _THEIR_AXES.get(value.ndim)
    return np.ascontiguousarray(value.transpose(axes) if axes else value)
