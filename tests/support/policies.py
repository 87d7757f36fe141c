"""The precision that layers are made in, for a while."""

import contextlib

import keras


@contextlib.contextmanager
def dtype_policy(name):
    """Layers that are made within have this policy; then float32 again."""
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")
