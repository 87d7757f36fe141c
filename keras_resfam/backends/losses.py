"""Which of a model's losses come from its weights."""


def split_losses(model, losses):
    """The losses that layers have added, and those of weights.

    Args:
        model: `keras.Model`.
        losses: list. All of them, as a call returns them: Keras puts those of
            trainable weights last, one for each that has a regularizer.

    Returns:
        Two lists.
    """
    penalties = sum(
        weight.regularizer is not None for weight in model.trainable_weights
    )
    of_layers = len(losses) - penalties
    return losses[:of_layers], losses[of_layers:]
