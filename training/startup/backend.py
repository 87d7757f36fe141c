"""Imports Keras with the chosen backend, without TensorFlow's log."""

import contextlib
import os
import re
import sys
import tempfile
from importlib.util import find_spec

BACKENDS = "tensorflow", "jax", "torch"

# The lines of TensorFlow's log, and the lines that it prints around them.
LOG = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] |"
    rb"WARNING: All log messages before absl::InitializeLog\(\)|"
    rb"To enable the following instructions:"
)


def start(name=None):
    """Imports Keras with its backend.

    The commands use `channels_last`, whatever `image_data_format` the user's
    keras.json has.

    Args:
        name: str. One of `BACKENDS`. Defaults to `None`, the one that
            KERAS_BACKEND or keras.json names, or else TensorFlow.

    Raises:
        ValueError: If the backend is not installed.
    """
    if name:
        os.environ["KERAS_BACKEND"] = name
    try:
        with quiet():
            import keras
    except ModuleNotFoundError as error:
        missing = error.name.partition(".")[0]
        if missing not in BACKENDS:
            raise
        raise ValueError(_not_installed(missing)) from error
    keras.config.set_image_data_format("channels_last")


def _not_installed(name):
    others = [other for other in BACKENDS if find_spec(other)]
    installed = f"; installed: {', '.join(others)}" if others else ""
    extras = ", ".join(f'".[{backend}]"' for backend in BACKENDS)
    return (
        "the backend should be installed, by `pip install -e` with one of the "
        f"extras {extras}, and chosen by `--backend` or KERAS_BACKEND if it "
        f"is not tensorflow{installed}. Received: backend={name}"
    )


@contextlib.contextmanager
def quiet():
    """Context manager that hides TensorFlow's log while it is imported.

    TensorFlow logs through Abseil, which prints all messages before it is
    initialized, whatever their level. Therefore stderr is redirected to a file,
    and its other lines are printed at the end. With a TF_CPP_MIN_LOG_LEVEL
    below 3, the log is not hidden.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3":
        yield
        return
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not LOG.match(line):
                    os.write(2, line)
