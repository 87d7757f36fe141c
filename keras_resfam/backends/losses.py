"""Separates a model's losses by their origin."""


def split_losses(model, losses):
    """Separates the losses that layers add from those of regularizers.

    Args:
        model: `keras.Model`.
        losses: list. All losses of a call of the model. Keras puts the losses
            of trainable weights last, one for each that has a regularizer.

    Returns:
        A pair of lists: the losses that layers add, and those of regularizers.
    """
    penalties = sum(
        weight.regularizer is not None for weight in model.trainable_weights
    )
    of_layers = len(losses) - penalties
    return losses[:of_layers], losses[of_layers:]
