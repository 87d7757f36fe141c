"""What the commands of this folder share."""

import os


def choose_backend(name=None):
    """Sets Keras's backend, if one is named, before Keras is imported."""
    if name:
        os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up chatter


def refusals():
    """The errors that a command ends with in a line, without a traceback."""
    from keras_resfam.download import HubError

    return ValueError, HubError
