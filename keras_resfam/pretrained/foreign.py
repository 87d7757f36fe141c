"""Finds, verifies and converts the checkpoints of other projects.

A checkpoint is a file of tensors, with config files that describe it, in a
folder or in a repository on the Hugging Face Hub.
"""

import contextlib
import json
from pathlib import Path

from keras_resfam._checks import are_moments, are_numbers, is_integer
from keras_resfam.models import families
from keras_resfam.pretrained import dialects, tensor_files
from keras_resfam.pretrained.files import FINGERPRINT

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of files of tensors on the Hub. The first that exists is read."""

_INDEX = "model.safetensors.index.json"
"""The index of a checkpoint whose tensors are in several files."""

CONFIGS = ("config.json", "preprocessor_config.json")
"""The files that describe a checkpoint. timm's have the first only."""

TIMM = {
    "ResNet18": "resnet18",
    "ResNet18CIFAR": "resnet18",  # with another stem
    "ResNet34": "resnet34",
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "WideResNet18": "resnet18",
    "WideResNet34": "resnet34",
    "WideResNet50_2": "wide_resnet50_2",
    "WideResNet101_2": "wide_resnet101_2",
}
"""The names of the architectures in timm, by builder."""

_USUAL = {
    "model_type": "resnet",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
    "global_pool": "avg",
}
"""The values in the configs of networks that the builders can build.

Other values change what a network computes, but not its tensors.
"""

INTERPOLATIONS = tuple("nearest lanczos bilinear bicubic box hamming".split())
"""The filters of Pillow, in the order of their numbers."""

_SHAPES = {"in_chans", "num_classes", *_USUAL}
"""The keys that timm's `model_args` may have. Others change the network."""


def is_checkpoint(path):
    """Returns whether a path is a file of tensors, or a folder with one."""
    path = Path(path)
    if path.is_dir():
        ours = (path / FINGERPRINT).exists()
        names = (*WEIGHTS, _INDEX)
        return not ours and any((path / name).is_file() for name in names)
    suffixes = (tensor_files.SAFETENSORS, *tensor_files.PICKLES)
    return path.is_file() and path.name.endswith(suffixes)


def read_files(path, weights=True):
    """Reads the files of a local checkpoint.

    The config files beside a file of tensors are read if the file has one of
    the names that are usual on the Hub.

    Args:
        path: str. A path for which `is_checkpoint` is true.
        weights: bool. Whether to read the tensors as well. Defaults to
            `True`.

    Returns:
        A dict from file names to bytes.
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
    """Returns the name of the file of tensors among several names.

    Args:
        where: str. Names the checkpoint in error messages.
        names: collection of str. The names of the files.

    Raises:
        ValueError: If none of the names is that of a file of tensors.
    """
    for name in WEIGHTS:
        if name in names:
            return name
    sharded = " Its tensors are in several files." * (_INDEX in names)
    raise ValueError(
        f"`weights` should be a network of keras_resfam, with a {FINGERPRINT}, "
        "or a checkpoint with its tensors in one file, "
        f"{' or '.join(WEIGHTS)}.{sharded} Received: weights={where}"
    )


def contents(where, files, family, arguments):
    """Reads a checkpoint, after checking that it fits the network.

    Args:
        where: str. Names the checkpoint in error messages.
        files: dict from file names to bytes.
        family: str. The builder's name.
        arguments: dict. The builder's architecture arguments.

    Returns:
        A dict of attributes of a `pretrained.weights.Source`.

    Raises:
        ValueError: If the checkpoint is invalid, or does not fit the network.
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
            "crops": _crops(config),
            "interpolation": _interpolation(config),
            "class_names": _class_names(config),
        }


def class_names(where, files):
    """Returns the names of a checkpoint's classes.

    As in timm, 1,000 classes without names are those of ImageNet.

    Args:
        where: str. Names the checkpoint in error messages.
        files: dict from file names to bytes.

    Returns:
        A list of str, or the name of a data set, or `None` if the names are
        unknown.
    """
    with _named(where):
        return _class_names(_config(files))


def _class_names(config):
    names = config.get("label_names")
    labels = config.get("id2label")
    if names is None and isinstance(labels, dict):
        names = [labels[key] for key in sorted(labels, key=int)]
    if names is None and config.get("num_classes") == 1000:
        return "imagenet2012"
    if not isinstance(names, (list, type(None))) or not all(
        isinstance(name, str) for name in names or ()
    ):
        raise ValueError(f"Its class names should be a list, not {names!r}.")
    return names


def _crops(config):
    """Returns the shares of images that are kept, by image size.

    timm's configs may have another share for the size of the evaluation.

    Returns:
        A dict from `(height, width)`, or `None` for other sizes, to the share.
    """
    crops = {None: config.get("crop_pct")}
    if config.get("test_input_size") is not None:
        height, width, _ = _shape(config, "test_input_size")
        crops[height, width] = config.get("test_crop_pct")
    crops = {size: crop for size, crop in crops.items() if crop is not None}
    for crop in crops.values():
        if not are_numbers([crop]) or not 0 < crop <= 1:
            raise ValueError(
                "The crop shares in its config should be numbers above 0, and "
                f"at most 1, but one is {crop!r}."
            )
    return crops


def _interpolation(config):
    """Returns the name of the filter by which images are resized, or `None`."""
    found = config.get("interpolation") or config.get("resample")
    if is_integer(found, 0) and found < len(INTERPOLATIONS):
        found = INTERPOLATIONS[found]  # transformers has Pillow's numbers
    if found not in (None, *INTERPOLATIONS):
        raise ValueError(
            f"Its config should have one of {', '.join(INTERPOLATIONS)} as "
            f"`interpolation`, but has {found!r}."
        )
    return found


@contextlib.contextmanager
def _named(where):
    """Adds the name of the checkpoint to errors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"`weights` should be a checkpoint of this network. {error} "
            f"Received: weights={where}"
        ) from error


def _config(files):
    """Returns the contents of all config files as one dict."""
    config = {}
    for name in CONFIGS:
        if name in files:
            config |= _object(name, files[name])
    inner = config.get("pretrained_cfg")  # newer timm has the values in here
    return config | inner if isinstance(inner, dict) else config


def _object(name, contents):
    try:
        found = json.loads(contents)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} cannot be read: it is not a JSON object.")
    return found


def _check_network(config, family, arguments):
    """Raises an error if the network of a config computes something else.

    The tensors alone do not show this.
    """
    call = families.call(family, arguments)
    if family not in (*TIMM, "ResNet", "WideResNet"):
        known = ", ".join((*TIMM, "ResNet", "WideResNet"))
        raise ValueError(f"Only {known} can load one. {call} cannot.")
    if arguments.get("shortcut") == "identity":
        raise ValueError(
            "Other projects pad the channels of shortcuts without parameters "
            "differently. Only a network built with "
            'shortcut="projection" can load one.'
        )
    architecture = config.get("architecture", TIMM.get(family))
    if architecture != TIMM.get(family):
        raise ValueError(f"It is a checkpoint of {architecture!r}, not {call}.")
    changes = config.get("model_args") or {}
    if not isinstance(changes, dict):
        raise ValueError(
            "Its config should have an object as `model_args`, but has "
            f"{changes!r}."
        )
    usual = _USUAL | dict.fromkeys(changes.keys() - _SHAPES)
    for key, value in (config | changes).items():
        if key in usual and value != usual[key]:
            raise ValueError(
                f"Its config has {key}={value!r}, but this network has "
                f"{usual[key]!r}."
            )


def _moments(config):
    """Returns the channels' means and standard deviations, or `None`.

    They are those of pixels in 0..255.
    """
    pairs = (("mean", "std"), ("image_mean", "image_std"))
    for mean, std in pairs:
        if mean in config and std in config:
            mean, std = config[mean], config[std]
            break
    else:
        return None
    if not are_moments((mean, std)):
        raise ValueError(
            "Its config should have the mean and std of the channels as lists "
            f"of as many numbers, but has mean={mean!r}, std={std!r}."
        )
    return tuple(tuple(255 * x for x in values) for values in (mean, std))


def _input_shape(config):
    """Returns `(height, width, channels)`, or `None`."""
    if config.get("input_size") is None:  # it is in timm's configs only
        return None
    return _shape(config, "input_size")


def _shape(config, key):
    size = config[key]
    if not are_numbers(size) or len(size) != 3:
        raise ValueError(
            f"Its config should have (channels, height, width) as `{key}`, "
            f"but has {size!r}."
        )
    return (*size[1:], size[0])
