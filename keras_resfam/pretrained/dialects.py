"""The names that other projects give to the layers of the same networks.

A dialect pairs the name of each of our layers with the name of a PyTorch
module. The dialect of a checkpoint is recognized from its keys. Values are
assigned to layers by name, because the order of the tensors in a file differs
between projects.
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
"""The names of a layer's variables in PyTorch, by those in Keras."""

_ORDER = ("weight", "bias", "running_mean", "running_var")
"""The order of a layer's variables in `layer.weights`."""

_UNUSED = "num_batches_tracked"
"""A variable of PyTorch's batch normalization that Keras does not have."""

_OUR_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
"""How to transpose a kernel from PyTorch's axes to Keras's, by rank."""

_THEIR_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}
"""How to transpose a kernel from Keras's axes to PyTorch's, by rank."""


@dataclasses.dataclass(frozen=True)
class _Dialect:
    """The names of a network's layers in another project.

    Attributes:
        name: str. The name of the dialect.
        outside: tuple of pairs of the name of a layer and the name of its
            module, for the layers outside blocks. If a layer has several
            modules, all are read, and the first is written.
        block: str. The name of a block's module.
        inside: tuple of pairs like `outside`, for the layers inside blocks.
            The names do not include that of the block.
        first: dict. The first number that the project gives to a `"stage"`,
            `"block"` or `"conv"`, if it is not 1.
        unused: str. A regular expression for the keys of tensors that the
            network does not use.
    """

    name: str
    outside: tuple
    block: str
    inside: tuple
    first: dict
    unused: str = ""

    @functools.cached_property
    def pairs(self):
        """The pairs of all layers, with the full names."""
        inside = (
            (f"stage{{stage}}_block{{block}}_{ours}", f"{self.block}.{theirs}")
            for ours, theirs in self.inside
        )
        return (*self.outside, *inside)

    def layer(self, module):
        """Returns the name of a module's layer, or `None`."""
        pairs = ((theirs, ours) for ours, theirs in self.pairs)
        shift = {k: 1 - n for k, n in self.first.items()}
        return _renamed(module, pairs, shift)

    def module(self, layer):
        """Returns the name of a layer's module, or `None`."""
        shift = {k: n - 1 for k, n in self.first.items()}
        return _renamed(layer, self.pairs, shift)


def _renamed(name, pairs, shift):
    """Renames a layer or module by the first pair whose pattern it matches.

    Args:
        name: str. The name.
        pairs: iterable of pairs of templates, such as `"block{block}"`.
        shift: dict from the names of numbers to what is added to them.
    """
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
    """Returns the regular expression that matches what a template makes."""
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
    _Dialect(  # also torchvision, chenyaofo and kuangliu
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
    _Dialect(  # from xternalz; also TRADES
        "robustbench",
        outside=(
            ("stem_conv", "conv1"),
            ("head_bn", "bn1"),
            ("predictions", "fc"),
        ),
        block="block{stage}.layer.{block}",
        inside=(*_CONVS, ("shortcut_conv", "convShortcut")),
        first={"block": 0},
        unused=r"sub_block1\..*",  # TRADES creates it but does not call it
    ),
    _Dialect(  # networks with batch normalization before convolutions
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
    _Dialect(  # networks with batch normalization after convolutions
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
    """The tensors of another project's file, by the names of our layers.

    Attributes:
        dialect: `_Dialect`. The names that the file has.
        values: dict from pairs, the name of a layer and PyTorch's name of its
            variable, to arrays with the axes in Keras's order.
        keys: dict from these pairs to the keys in the file.
        unknown: list of the keys that no layer has.
    """

    dialect: _Dialect
    values: dict
    keys: dict
    unknown: list

    def layers(self):
        """Returns the arguments of `set_weights`, by layer name."""
        layers = {}
        for name, part in sorted(self.values, key=lambda x: _ORDER.index(x[1])):
            layers.setdefault(name, []).append(self.values[name, part])
        return layers

    def check(self, layers):
        """Checks that values and variables match one to one.

        Args:
            layers: iterable of the network's layers. If no classifier is among
                them, the values of the classifier are ignored.

        Raises:
            ValueError: If they do not match. The message has the first key
                without a variable, the first missing key, and the first key
                of another shape.
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
            _first("The network has no layer for", self.unknown + unused),
            _first("The checkpoint does not have", missing),
            _first("Wrong shape of", [self.keys[x] for x in others]),
        ]
        if others:
            shapes = self.values[others[0]].shape, wanted[others[0]]
            found, needed = (_reordered(x, _THEIR_AXES) for x in shapes)
            faults.append(f"It should be {needed}, but is {found}.")
        if any(faults):
            raise ValueError(" ".join(filter(None, faults)))


def _first(text, keys):
    """Returns a sentence about the first of some keys, or an empty string."""
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    return f"{text} '{keys[0]}'{more}." if keys else ""


def _reordered(shape, axes):
    return tuple(shape[k] for k in axes.get(len(shape), range(len(shape))))


def translate(state):
    """Recognizes the dialect of a file, and translates the names of tensors.

    Args:
        state: dict from names to arrays.

    Returns:
        A `Checkpoint`.

    Raises:
        ValueError: If no dialect has these names, or if a tensor cannot be a
            variable of a layer.
    """
    if state and all(key.startswith("module.") for key in state):
        # PyTorch adds this prefix in training on several devices.
        state = {key.removeprefix("module."): x for key, x in state.items()}
    modules = {key.rpartition(".")[0] for key in state}
    dialect = max(
        _DIALECTS, key=lambda x: sum(map(bool, map(x.layer, modules)))
    )
    checkpoint = Checkpoint(dialect, {}, {}, [])
    for key, value in state.items():
        module, _, part = key.rpartition(".")
        name = dialect.layer(module)
        if name and part == _UNUSED or re.fullmatch(dialect.unused, key):
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
            f"same variable of the layer '{place[0]}'."
        )
    if value.dtype.kind != "f":
        raise ValueError(
            f"'{key}' should hold floating-point numbers, but holds "
            f"{value.dtype}."
        )
    axes = _OUR_AXES.get(value.ndim)
    checkpoint.keys[place] = key
    checkpoint.values[place] = value.transpose(axes) if axes else value


def _check_ends(checkpoint, state):
    """Checks the kernels that determine the channels and the classes."""
    stem, top = ("stem_conv", "weight"), ("predictions", "weight")
    if stem not in checkpoint.keys:
        names = dict.fromkeys(dialect.name for dialect in _DIALECTS)
        raise ValueError(
            "It should have a kernel of the first convolution, such as "
            f"'conv1.weight', with the names of {', '.join(names)}. "
            + _first("It has", list(state))
        )
    for place, rank in ((stem, 4), (top, 2)):
        if place in checkpoint.keys and checkpoint.values[place].ndim != rank:
            raise ValueError(
                f"'{checkpoint.keys[place]}' should have {rank} axes, but has "
                f"{checkpoint.values[place].ndim}."
            )


def to_torch_state_dict(model, layout=None):
    """Returns a network's weights with the names of a PyTorch project.

    The same network of that project can load them: a ResNet of timm,
    torchvision or transformers for our ImageNet form of the same name, or a
    wide residual network of RobustBench or pytorchcv for `WideResNet`. A
    builder's `weights` argument can load them too, from a file.

    Args:
        model: `keras.Model`. A network of keras_resfam, or a model that
            contains one.
        layout: `"timm"`, `"robustbench"`, `"pytorchcv"`, `"transformers"` or
            `None`. The project whose names are used. timm's names are also
            those of torchvision, and RobustBench's are also those of xternalz.
            Defaults to `None`, which selects the first of these that has a
            name for every layer.

    Returns:
        A dict from names to NumPy arrays, with the axes in PyTorch's order.
        It does not have `num_batches_tracked`, which `load_state_dict` does
        not need.

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
    dialect, unnamed = _choose_dialect(layout, layers)
    if unnamed is not None:
        raise ValueError(
            f"`layout` should be one of {', '.join(names)} that has a name for "
            f"the layer '{unnamed}'. Received: layout={layout!r}"
        )
    return {
        f"{dialect.module(layer.name)}.{_PARTS[variable.name]}": _in_torch_axes(
            value
        )
        for layer in layers
        for variable, value in zip(
            layer.weights, layer.get_weights(), strict=True
        )
    }


def _choose_dialect(layout, layers):
    """Returns the first dialect that has a name for every layer, and `None`.

    If there is no such dialect, it returns the first one of the layout, and
    the name of a layer that it has no name for.
    """
    found = []
    for dialect in _DIALECTS:
        if layout not in (None, dialect.name):
            continue
        unnamed = [
            layer.name
            for layer in layers
            if not dialect.module(layer.name)
            or not all(variable.name in _PARTS for variable in layer.weights)
        ]
        found.append((dialect, unnamed[0] if unnamed else None))
    return next((x for x in found if x[1] is None), found[0])


def _in_torch_axes(value):
    axes = _THEIR_AXES.get(value.ndim)
    return np.ascontiguousarray(value.transpose(axes) if axes else value)
