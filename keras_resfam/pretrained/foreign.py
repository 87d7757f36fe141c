"""Checkpoints that others have trained: found, verified, and made ours.

A checkpoint is a file of tensors and, beside it, what its authors say of it:
a folder, or a repository on the Hugging Face Hub.
"""

import contextlib
import json
from pathlib import Path

from keras_resfam._checks import are_numbers
from keras_resfam.datasets import DATASETS
from keras_resfam.models import families
from keras_resfam.pretrained import dialects, tensor_files
from keras_resfam.pretrained.files import FINGERPRINT

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The names of the tensors' file on the Hub; the first that is there counts."""

_INDEX = "model.safetensors.index.json"
"""What tells which of several files holds a tensor."""

CONFIGS = ("config.json", "preprocessor_config.json")
"""What tells of it: timm has the first, transformers has both."""

TIMM = {
    "ResNet18": "resnet18",
    "ResNet18CIFAR": "resnet18",  # by another stem
    "ResNet34": "resnet34",
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "WideResNet18": "resnet18",
    "WideResNet34": "resnet34",
    "WideResNet50_2": "wide_resnet50_2",
    "WideResNet101_2": "wide_resnet101_2",
}
"""What timm calls the networks of the ImageNet forms."""

_USUAL = {
    "model_type": "resnet",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
    "global_pool": "avg",
}
"""What configs say of networks that are ours: the tensors alone do not tell."""


_SHAPES = {"in_chans", "num_classes", *_USUAL}
"""What timm's `model_args` may hold: the others change the network."""


def is_checkpoint(path):
    """Whether a path is that of somebody's tensors, or of a folder of them."""
    path = Path(path)
    if path.is_dir():
        ours = (path / FINGERPRINT).exists()
        names = (*WEIGHTS, _INDEX)
        return not ours and any((path / name).is_file() for name in names)
    suffixes = (tensor_files.SAFETENSORS, *tensor_files.PICKLES)
    return path.is_file() and path.name.endswith(suffixes)


def read_files(path, weights=True):
    """Reads the files of a local checkpoint.

    What lies beside a file is taken to belong to it where it has the name
    that the Hub's have.

    Args:
        path: str. A path for which `is_checkpoint`.
        weights: bool. Whether to read the tensors as well. Defaults to
            `True`.

    Returns:
        A dict from names to bytes.
    """
    path = Path(path)
    if path.is_dir():
        names = {file.name for file in path.iterdir()}
        path = path / choose(repr(str(path)), names)
    beside = CONFIGS if path.name in WEIGHTS else ()
    paths = [path.with_name(name) for name in beside]
    paths = [path, *paths] if weights else paths
    return {x.name: x.read_bytes() for x in paths if x.is_file()}


def choose(where, names):
    """The name of the file of tensors among several.

    Raises:
        ValueError: If there is none.
    """
    for name in WEIGHTS:
        if name in names:
            return name
    sharded = " These are divided among several files." * (_INDEX in names)
    raise ValueError(
        "`weights` should be a network of keras_resfam, with its "
        f"{FINGERPRINT}, or a checkpoint with its tensors in one file, "
        f"{' or '.join(WEIGHTS)}.{sharded} Received: weights={where}"
    )


def contents(where, files, family, arguments):
    """Reads what a checkpoint's files hold, if it fits the network asked for.

    Args:
        where: str. What messages call it.
        files: dict from names to bytes.
        family: str. The builder's name.
        arguments: dict. The builder's architecture arguments.

    Returns:
        A dict of attributes of a `pretrained.sources.Source`.

    Raises:
        ValueError: If it does not fit, or is not what it should be.
    """
    with _named(where):
        config = _config(files)
        _check_network(config, family, arguments)
        name = next(x for x in files if x not in CONFIGS)
        checkpoint = dialects.translate(tensor_files.read(name, files[name]))
        return {
            "layers": checkpoint.layers(),
            "preprocessing": _moments(config),
            "input_shape": _input_shape(config),
            "checkpoint": checkpoint,
        }


def class_names(where, files):
    """The names of a checkpoint's classes, as a tuple; empty if unknown.

    As timm has it, 1,000 classes without names are ImageNet's.
    """
    with _named(where):
        config = _config(files)
        names = config.get("label_names")
        labels = config.get("id2label")
        if names is None and isinstance(labels, dict):
            names = [labels[key] for key in sorted(labels, key=int)]
        if names is None and config.get("num_classes") == 1000:
            names = DATASETS["imagenet2012"].class_names
        names = names or ()
        if not isinstance(names, (list, tuple)) or not all(
            isinstance(name, str) for name in names
        ):
            raise ValueError(f"Its class names should be a list: {names!r}.")
        return tuple(names)


_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""What transformers calls the filters of Pillow."""


def transform(where, files):
    """How a checkpoint's images are resized and cropped, as its config says.

    Returns:
        A dict that may have "crop" and "interpolation".
    """
    with _named(where):
        config = _config(files)
        known = {
            "crop": config.get("crop_pct"),
            "interpolation": config.get(
                "interpolation", _RESAMPLING.get(config.get("resample"))
            ),
        }
        return {key: value for key, value in known.items() if value is not None}


@contextlib.contextmanager
def _named(where):
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"`weights` should be a checkpoint of the very network. {error} "
            f"Received: weights={where}"
        ) from error


def _config(files):
    """What the files beside the tensors say, in one dict."""
    said = {}
    for name in CONFIGS:
        if name in files:
            said |= _object(name, files[name])
    inner = said.get("pretrained_cfg")  # where newer files of timm have it
    return said | inner if isinstance(inner, dict) else said


def _object(name, contents):
    try:
        found = json.loads(contents)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} cannot be read: it holds no object.")
    return found


def _check_network(config, family, arguments):
    """Refuses networks with the same tensors that compute something else."""
    call = families.call(family, arguments)
    if family not in (*TIMM, "ResNet", "WideResNet"):
        known = ", ".join((*TIMM, "ResNet", "WideResNet"))
        raise ValueError(f"There are some for {known}, and none for {call}.")
    if arguments.get("shortcut") == "identity":
        raise ValueError(
            "Where others have shortcuts without parameters, they put the "
            "channels of zeros elsewhere; there may be one for "
            'shortcut="projection".'
        )
    architecture = config.get("architecture", TIMM.get(family))
    if architecture != TIMM.get(family):
        raise ValueError(f"This is one of {architecture!r}, and not of {call}.")
    changes = config.get("model_args") or {}
    usual = _USUAL | dict.fromkeys(changes.keys() - _SHAPES)
    for key, value in (config | changes).items():
        if key in usual and value != usual[key]:
            raise ValueError(
                f"Its config has {key}={value!r}, and that of the network "
                f"would have {usual[key]!r}."
            )


def _moments(config):
    """Mean and standard deviation of the channels, in 0..255, or `None`."""
    pairs = (("mean", "std"), ("image_mean", "image_std"))
    for mean, std in pairs:
        if mean in config and std in config:
            mean, std = config[mean], config[std]
            break
    else:
        return None
    if not (are_numbers(mean) and are_numbers(std) and min(std) > 0):
        raise ValueError(
            "Its config should have the channels' moments as lists of "
            f"numbers, and has mean={mean!r}, std={std!r}."
        )
    return tuple(tuple(255 * x for x in values) for values in (mean, std))


def _input_shape(config):
    """`(height, width, channels)`, or `None`."""
    size = config.get("input_size")  # transformers has no such thing
    if size is None:
        return None
    if not are_numbers(size) or len(size) != 3:
        raise ValueError(
            "Its config should have (channels, height, width) as `input_size`, "
            f"and has {size!r}."
        )
    return (*size[1:], size[0])
