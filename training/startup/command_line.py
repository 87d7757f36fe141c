"""What the commands of this folder share."""

import argparse
import contextlib
import os
import signal
import sys

from training.startup import hardware


def add_backend(add):
    """Adds the option that names a backend, by a parser's `add_argument`."""
    add("--backend", choices=["tensorflow", "jax", "torch"])


def choose_backend(name=None):
    """Sets Keras's backend, if one is named, before Keras is imported."""
    if name:
        os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up chatter


def positive(text):
    """An argument's integer of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be at least 1, not {text}")
    return int(text)


def parser(description, **options):
    """A parser of arguments whose help has the lines as they are written."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


@contextlib.contextmanager
def in_a_line(begin):
    """Ends the command in a line, where something is refused or missing.

    Args:
        begin: String. What the line begins with.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        sys.exit(f"{begin}: {error}")


def check_file(option, path):
    """Refuses a place where no file can be written, before there is work.

    Args:
        option: String. What names the file.
        path: Path or `None`.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(
            f"`{option}` should be a file in a folder that exists. "
            f"Received: {option} {path}"
        )


def run(main):
    """Runs a command, in a process that keeps the memory that it frees.

    Ctrl-C ends it in a line, without a traceback.
    """
    hardware.keep_freed_memory()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
