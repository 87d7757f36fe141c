"""The start of a command's backend: chosen, without chatter, or refused."""

import contextlib
import os
import re
import sys
import tempfile
from importlib.util import find_spec

BACKENDS = "tensorflow", "jax", "torch"

# A line of TensorFlow's log, and what goes before and behind such lines.
LOG = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] |"
    rb"WARNING: All log messages before absl::InitializeLog\(\)|"
    rb"To enable the following instructions:"
)


def start(name=None):
    """Imports Keras with its backend.

    Networks, recipes and data are channels last here; an `image_data_format`
    in a user's keras.json is for programs of their own.

    Args:
        name: String. One of `BACKENDS`. Defaults to `None`, what
            KERAS_BACKEND or keras.json names, else TensorFlow.

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
        f"extras {extras}, and be named by `--backend` or KERAS_BACKEND if it "
        f"is not tensorflow{installed}. Received: backend={name}"
    )


@contextlib.contextmanager
def quiet():
    """Keeps TensorFlow's start-up log off stderr while it is imported.

    TensorFlow logs through Abseil, which prints what comes before its own
    start at any level. So stderr goes to a file meanwhile, and all of it but
    the log comes back. A TF_CPP_MIN_LOG_LEVEL below 3 leaves the log.
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
