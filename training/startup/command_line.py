"""What the command lines share: options, errors, the end of a command."""

import argparse
import contextlib
import os
import shlex
import signal
import sys

from training.startup import hardware
from training.startup.backend import BACKENDS


def parser(description, **options):
    """A parser of arguments that prints its help as it is written."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def add_backend(add):
    """Adds the option that names a backend, by a parser's `add_argument`."""
    add(
        "--backend",
        choices=BACKENDS,
        help="of Keras (default: KERAS_BACKEND, or that of your keras.json, or "
        "tensorflow)",
    )


def add_data_dir(add):
    """Adds the option that says where data sets are."""
    add(
        "--data-dir",
        type=os.path.expanduser,
        metavar="PATH",
        help="a data_dir of TensorFlow Datasets (default: its own); or an .npz "
        "file of uint8 images x_train, x_test and labels y_train, y_test, or "
        "a folder with <data set>.npz; or a folder with train/<class>/*.jpg "
        "and test/<class>/*.jpg. The last three do not need TensorFlow",
    )


def add_network(add):
    """Adds the options that name a trained network."""
    add(
        "network",
        help="a run, or one of its .weights.h5 files; a folder of weights/; a "
        ".keras file, with --dataset; or, with --builder, what the builder "
        "takes as `weights`",
    )
    add("--builder", help="a builder of keras_resfam, such as DMRNet")
    add(
        "--set",
        action="append",
        default=[],
        metavar="ARGUMENT=VALUE",
        help="an argument of the builder, such as depth=14; may be repeated",
    )
    add(
        "--dataset",
        help="the data set of the images (default: the one that the network "
        "was trained on, where its files name it)",
    )


def add_pretrained(add, builder=None, batch_size=32):
    """Adds the options of the examples: a pretrained network, the backend.

    Args:
        add: The parser's `add_argument`.
        builder: String. The default of `--builder`, which is required without.
        batch_size: Integer. The default of `--batch-size`.
    """
    add("network", nargs="?", default="imagenet", help="a builder's `weights`")
    add("--builder", default=builder, required=builder is None)
    add("--set", action="append", default=[], metavar="ARGUMENT=VALUE")
    add("--image-size", type=positive, default=224)
    add("--batch-size", type=positive, default=batch_size)
    add_backend(add)


def positive(text):
    """An argument's integer of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be at least 1, not {text}")
    return int(text)


def share(text):
    """An argument's number above 0 and up to 1."""
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(
            f"should be above 0 and at most 1, not {text}"
        )
    return float(text)


def check_file(option, path):
    """Refuses a path to which no file can be written, before any work.

    Args:
        option: String. The option that names the file.
        path: Path or `None`.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(
            f"`{option}` should be a file in a folder that exists. "
            f"Received: {option} {path}"
        )


def invocation():
    """The command that was given, as a line that a shell takes."""
    module = sys.modules["__main__"].__spec__
    if module is not None and module.name.startswith("training."):
        return shlex.join(["python", "-m", module.name, *sys.argv[1:]])
    return shlex.join(["python", *sys.argv])


@contextlib.contextmanager
def exit_on_error(prefix):
    """Turns an error of the user or the system into one line and an exit.

    Args:
        prefix: String. What the line begins with.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        sys.exit(f"{prefix}: {error}")


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
