"""Turns an architecture into a builder like those of `keras.applications`.

The module of a family defines its architectures: the graph from the normalized
image to the last feature map. This module adds what all builders share: the
common arguments and their checks, normalization, the classifier and weights.
"""

import contextlib
import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import keras
import numpy as np

from keras_resfam._checks import (
    are_moments,
    check_choice,
    check_flag,
    check_integer,
    is_integer,
    plain,
)
from keras_resfam.datasets import DATASETS
from keras_resfam.initializers import undrawn
from keras_resfam.layers import Rescaling
from keras_resfam.models import families
from keras_resfam.models.blocks import channel_axis, full_precision
from keras_resfam.pretrained import sources

_COMMON_DOC = """\
    include_top: bool. Whether to include the classifier. Defaults to `True`.
    weights: str, path or `None`. `None` gives random initial weights. The name
        of a data set, such as `"cifar10"`, selects weights that were trained
        on it for this architecture; `keras_resfam.list_weights()` lists the
        ones that exist. `"hf://organization/repository[@revision]"` loads
        weights from the Hugging Face Hub. A path may be that of a folder of
        weights, of a training run, or of a `.weights.h5` file. Checkpoints of
        torchvision, timm, transformers, RobustBench, pytorchcv and similar
        projects are loaded if they fit: repositories on the Hub, folders,
        `.safetensors` files, and `.pth`, `.pt` or `.bin` files, which need
        torch. The `recipe.json` or `config.json` beside a file states how
        images were normalized. Without it, a warning is given, and the
        moments are those of {title}, unless `include_preprocessing` states
        them. Defaults to `None`.
    input_tensor: KerasTensor of shape `(batch, height, width, channels)`. It
        is used as the image instead of a new input. Defaults to `None`.
    input_shape: tuple. The shape of an image, without the batch axis. Height
        and width are `None` or at least {minimum}. If it has another number of
        channels than the RGB images that the weights were trained on, the
        first kernel and the moments are adapted as in timm: one channel gets
        the sum of the kernels, more channels repeat them, scaled. Such
        networks should be fine-tuned. Defaults to `None`, the shape of the
        images that the weights were trained on, or `{shape}`.
    pooling: `None`, `"avg"` or `"max"`. What the model returns with
        `include_top=False`: the last feature map, or its global average or
        maximum, of shape `(batch, channels)`. Defaults to `None`.
    classes: int. Number of classes. With trained weights and
        `include_top=True`, it has to be that of the weights. Defaults to
        `None`, the number of the weights, or `{classes}`.
    classifier_activation: str, callable or `None`. Activation of the
        classifier. `None` returns logits. With trained weights, it has to be
        `"softmax"` or `None`. Defaults to `"softmax"`.
    include_preprocessing: bool, str or pair. Whether the model normalizes
        images itself. It then takes raw images in `[0, 255]`, uint8 or float.
        `True` uses the channel moments of the weights, or those of {title};
        a str those of the data set of this name; and a pair `(mean, std)` the
        given ones, each a sequence of one number per channel, in the units of
        the raw images (255 times what timm and torchvision state). Without
        weights, `True` scales images with another number of channels to
        `[-1, 1]`. With `False`, the model takes normalized images
        (`keras_resfam.datasets.DATASETS` has the moments). The moments are
        part of the model's configuration, not of its weights. Keras's
        `load_weights` raises an error if the moments differ, but
        `set_weights` cannot detect it. Defaults to `True`.
    name: str. The model's name. Defaults to `None`, the name of the builder in
        lower case.

Returns:
    A functional `keras.Model`. It takes images of shape
    `(batch, height, width, channels)`, or with the channels first if
    `keras.config.image_data_format()` is `"channels_first"`. It returns
    `(batch, classes)`, or what `pooling` selects with `include_top=False`.

Raises:
    ValueError: If an argument is invalid, or the weights do not exist or do
        not fit.
    keras_resfam.HubError: If the Hub does not deliver the weights. It is an
        `OSError`.

Example:

```python
model = keras_resfam.{name}()  # random weights
backbone = keras_resfam.{name}(include_top=False, pooling="avg")
keras_resfam.list_weights("{name}")  # trained weights
```
"""


def image_classifier(dataset="cifar10"):
    """Returns a decorator that turns an architecture into a builder.

    An architecture is a function that takes the normalized image, and
    arguments with defaults. It checks them, builds the graph, and returns the
    last feature map and its `Layers`. The builder takes the same arguments,
    followed by those that all builders share.

    Args:
        dataset: str. The data set whose image shape, number of classes and
            channel moments are the defaults. Defaults to `"cifar10"`.
    """
    record = DATASETS[dataset]

    def decorate(architecture):
        own = list(inspect.signature(architecture).parameters.values())[1:]
        common = list(inspect.signature(_build).parameters.values())[3:]
        signature = inspect.Signature(own + common)

        @functools.wraps(architecture)
        def builder(*args, **kwargs):
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                name = architecture.__name__
                raise TypeError(f"{name}() {error}") from None
            bound.apply_defaults()
            options = {k: plain(v) for k, v in bound.arguments.items()}
            arguments = {p.name: options.pop(p.name) for p in own}
            return _build(architecture, arguments, record, **options)

        builder.__signature__ = signature
        builder.__doc__ = _document(architecture, record)
        return families.register(builder)

    return decorate


def _document(architecture, record):
    """Returns the architecture's docstring, with the shared arguments added."""
    if architecture.__doc__ is None:  # python -OO
        return None
    doc = inspect.cleandoc(architecture.__doc__)
    if "\nArgs:\n" not in doc:
        doc += "\n\nArgs:"
    return f"{doc}\n" + _COMMON_DOC.format(
        name=architecture.__name__,
        minimum=_minimum_size(record),
        shape=record.image_shape,
        classes=record.classes,
        title=record.title,
    )


def _build(
    architecture,
    arguments,
    defaults,
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool | str | Sequence[Sequence[float]] = True,
    name: str | None = None,
):
    check_flag("include_top", include_top)
    check_choice("pooling", pooling, (None, "avg", "max"))
    _check_name(name)
    family = architecture.__name__
    source = sources.find(weights, family, arguments)
    classes = _resolve_classes(classes, source, include_top, defaults)
    _check_activation(classifier_activation, source, include_top)
    inputs, image = _make_inputs(input_tensor, input_shape, source, defaults)
    channels = image.shape[channel_axis()]
    if source is not None and channels != source.channels:
        source = source.with_channels(channels)

    x = _normalize(image, include_preprocessing, source, defaults, include_top)
    # Weights that will be loaded do not need random initial values.
    with undrawn() if source is not None else contextlib.nullcontext():
        x, layers = architecture(x, **arguments)
        x = _add_head(
            layers, x, include_top, pooling, classes, classifier_activation
        )
    model = _create_model(inputs, x, name or _unique_name(family))

    if source is not None:
        users = keras.Model(inputs, image).layers
        source.load_into([x for x in model.layers if x not in users])
    return model


def _add_head(layers, x, include_top, pooling, classes, activation):
    """Adds the classifier, or the pooling, to the last feature map."""
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        return layers.dense(
            x, classes, activation=activation, name="predictions"
        )
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    return x


def _create_model(inputs, outputs, name):
    try:
        return keras.Model(inputs, outputs, name=name)
    except RecursionError:
        raise RecursionError(
            "Keras walks through the layers of a network recursively, and this "
            f"network exceeds the limit of {sys.getrecursionlimit()} calls. "
            "Before you build or load it, raise the limit, for example with "
            "sys.setrecursionlimit(20000)."
        ) from None


def _check_name(name):
    if name is not None and (
        not isinstance(name, str) or not name or "/" in name
    ):
        raise ValueError(
            "`name` should be a string that is not empty and has no '/', or "
            f"None. Received: name={name!r}"
        )


def _unique_name(family):
    """Returns `dmrnet`, `dmrnet_1`, ..., as Keras names its layers."""
    uid = keras.backend.get_uid(family.lower())
    return family.lower() + (f"_{uid - 1}" if uid > 1 else "")


def _resolve_classes(classes, source, include_top, defaults):
    trained = source.classes if source is not None else None
    if classes is None:
        return trained or defaults.classes
    check_integer("classes", classes)
    if include_top and trained not in (None, classes):
        raise ValueError(
            f"`classes` should be {trained} with `include_top=True` and these "
            "weights. For other classes, use `include_top=False` and add a "
            f"classifier. Received: classes={classes!r}"
        )
    return classes


def _check_activation(activation, source, include_top):
    try:
        resolved = keras.activations.get(activation)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`classifier_activation` should be None, a callable or the name "
            "of a Keras activation. "
            f"Received: classifier_activation={activation!r}"
        ) from error
    trained_for = (keras.activations.linear, keras.activations.softmax)
    if source is not None and include_top and resolved not in trained_for:
        raise ValueError(
            "`classifier_activation` should be None or 'softmax' with trained "
            f"weights. Received: classifier_activation={activation!r}"
        )


def _minimum_size(record):
    """Returns the smallest image size that a network of a data set takes.

    Smaller images would shrink to one pixel before the last stage.
    """
    return 32 if record.image_shape[0] > 32 else 4


def _make_inputs(input_tensor, input_shape, source, defaults):
    """Returns the model's inputs and the image tensor."""
    if input_tensor is None:
        if input_shape is None:
            input_shape = source.input_shape if source is not None else None
            input_shape = input_shape or defaults.image_shape
            if channel_axis() == 1:
                input_shape = (input_shape[-1], *input_shape[:-1])
        _check_shape("input_shape", input_shape, input_shape, defaults)
        x = keras.Input(tuple(input_shape), name="image")
        return x, x
    inputs = None
    if keras.backend.is_keras_tensor(input_tensor):
        inputs = keras.utils.get_source_inputs(input_tensor)
    if not isinstance(inputs, list):  # not a tensor, or not from a layer
        raise ValueError(
            "`input_tensor` should be a KerasTensor, which keras.Input and "
            f"layers return. Received: input_tensor={input_tensor!r}"
        )
    shape = tuple(input_tensor.shape[1:])
    if input_shape is not None:
        _check_shape("input_shape", input_shape, input_shape, defaults)
    if input_shape is not None and tuple(input_shape) != shape:
        raise ValueError(
            f"`input_shape` should be that of `input_tensor`, {shape}, or "
            f"None. Received: input_shape={input_shape!r}"
        )
    _check_shape("input_tensor.shape", shape, input_tensor.shape, defaults)
    return inputs[0] if len(inputs) == 1 else inputs, input_tensor


def _check_shape(argument, shape, received, defaults):
    minimum = _minimum_size(defaults)

    def fits(sizes, channels):
        return is_integer(channels, 1) and all(
            size is None or is_integer(size, minimum) for size in sizes
        )

    order = "(height, width, channels)"
    valid = isinstance(shape, (tuple, list)) and len(shape) == 3
    if channel_axis() == 1:
        order = "(channels, height, width)"
        valid = valid and fits(shape[1:], shape[0])
    else:
        valid = valid and fits(shape[:-1], shape[-1])
    if not valid:
        raise ValueError(
            f"`{argument}` should be {order} without the batch axis, with "
            f"height and width None or at least {minimum}, and at least one "
            f"channel. Received: {argument}={received!r}"
        )


def _warn_if_guessed(source, taken):
    """Warns if it is unknown how images were normalized for the weights."""
    if source is not None and not (source.dataset or source.preprocessing):
        warnings.warn(
            "It is unknown how images were normalized for the weights of "
            f"{source.where}, so {taken}. Pass the name of the data set as "
            "`include_preprocessing`, or keep the recipe.json of the run (or "
            "the config.json of the checkpoint) beside the file.",
            stacklevel=5,  # the call of the builder
        )


def _moments(include_preprocessing, source, defaults, channels):
    """Returns the channels' means and standard deviations, and a text.

    Both are those of pixels in 0..255. The text says in a warning which
    moments are used.
    """
    moments = source.preprocessing if source is not None else None
    if include_preprocessing is not True:
        moments = _check_preprocessing(include_preprocessing)
    if isinstance(moments, tuple):
        (mean, std), title = moments, "as given"
    else:
        record = DATASETS.get(moments, defaults)
        mean, std, title = record.mean, record.std, record.title
    if len(mean) == channels:
        return mean, std, f"the moments of {title} are used"
    if moments is None:  # unknown images
        half = [127.5] * channels
        return half, half, "[0, 255] is scaled to [-1, 1]"
    raise ValueError(
        f"`include_preprocessing` should have a mean and a standard deviation "
        f"for each channel of the images, {channels} in number. Received: "
        f"include_preprocessing={include_preprocessing!r}, which has "
        f"{len(mean)}"
    )


def _check_preprocessing(given):
    """Returns a data set's name, or a pair of sequences of numbers."""
    if isinstance(given, (tuple, list)):
        pair = [x.tolist() if isinstance(x, np.ndarray) else x for x in given]
        if are_moments(pair):
            return tuple(pair)
        raise ValueError(
            "`include_preprocessing` should be True, False, a data set's name "
            "or a pair of sequences of numbers, the means and the standard "
            "deviations of the channels, where the latter are above 0. "
            f"Received: include_preprocessing={given!r}"
        )
    check_choice("include_preprocessing", given, (True, False, *DATASETS))
    return given


def _normalize(x, include_preprocessing, source, defaults, include_top):
    if include_preprocessing is False:
        return x
    axis = channel_axis()
    mean, std, taken = _moments(
        include_preprocessing, source, defaults, x.shape[axis]
    )
    if include_preprocessing is True:
        _warn_if_guessed(source, taken)
    # With as many axes as an image, the scale applies to the channel axis.
    shape = [1, 1, 1]
    shape[axis if axis < 0 else axis - 1] = len(mean)
    scale, mean = 1 / np.reshape(std, shape), np.reshape(mean, shape)
    known = None
    if source is not None:
        size = x.shape[1:3] if axis < 0 else x.shape[2:]
        known = source.data_config(size, include_top)
    return Rescaling(
        scale.tolist(),
        (-mean * scale).tolist(),
        known,
        dtype=full_precision(),
        name="normalization",
    )(x)
