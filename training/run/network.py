"""Builds the network of a recipe, and the form in which it is trained."""

import keras_resfam
from keras_resfam import graphs
from keras_resfam.analysis import drop_blocks
from keras_resfam.models import families
from training.images import reading


def preprocessing_of(recipe, source, channels):
    """Returns the network's `include_preprocessing`.

    It names the data set whose channel moments normalize the images: the one
    of the weights that training starts from (`source`, a `sources.Source` or
    `None`), else the recipe's, else ImageNet for color images.
    """
    if source is not None:
        return source.preprocessing or True
    record = reading.record_of(recipe.dataset)
    if record is not None:
        return record.name
    return "imagenet2012" if channels == 3 else True


def color_of_zero(network):
    """Returns the color that a network normalizes to zero, by channel."""
    mean, _ = graphs.image_moments(network)
    return mean


def build_network(
    builder, arguments, classes, input_shape, preprocessing, source=None
):
    """Builds the network of a recipe, which returns logits.

    Args:
        builder, arguments: The recipe's.
        classes: int.
        input_shape: tuple.
        preprocessing: The result of `preprocessing_of`.
        source: `sources.Source`. The initial weights, except for the
            classifier. Defaults to `None`, random weights.
    """
    known = families.defaults(builder)
    if not arguments.keys() <= known.keys():
        raise ValueError(
            f"A recipe's `arguments` should be those of {builder}: "
            f"{', '.join(known) or 'none'}. Received: arguments={arguments}"
        )
    build = families.get(builder)
    network = build(
        **arguments,
        weights=None,
        classes=classes,
        input_shape=input_shape,
        include_preprocessing=preprocessing,
        classifier_activation=None,
    )
    if source is not None:
        trained = build(**arguments, weights=source, include_top=False)
        for layer in trained.layers:
            network.get_layer(layer.name).set_weights(layer.get_weights())
    return network


def training_form(network, recipe, seed):
    """Returns the form of the network that is trained, on the same weights."""
    if recipe.drop_blocks is not None:
        network = with_blocks_dropped(network, recipe, seed)
    return compiled(network) if recipe.compiled else network


def compiled(network):
    """Returns the network as one program, if one can train it."""
    for layer in network.layers:
        if getattr(layer, "seed_generator", None) is not None:
            raise ValueError(
                "A recipe's `compiled` should be False for networks that draw "
                "random numbers in training. Received: compiled=True for one "
                f"with the {type(layer).__name__} '{layer.name}'"
            )
    return keras_resfam.compiled(network)


def with_blocks_dropped(network, recipe, seed):
    """Returns the network that trains on some of its blocks at a time."""
    unknown = recipe.drop_blocks.keys() - {"active", "survival", "scale"}
    if unknown:
        raise ValueError(
            "A recipe's `drop_blocks` should have active or survival, and "
            f"scale. Received: drop_blocks={recipe.drop_blocks}"
        )
    if recipe.drop_blocks.get("scale") == "inference":
        raise ValueError(
            "A recipe's `drop_blocks` should scale in training or not at all: "
            "the network is saved, and measured later, without scales. "
            f"Received: drop_blocks={recipe.drop_blocks}"
        )
    return drop_blocks(network, **recipe.drop_blocks, seed=seed)
