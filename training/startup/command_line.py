"""What commands share: options, errors, and how they end."""

import argparse
import contextlib
import os
import shlex
import signal
import sys

from training.startup import hardware
from training.startup.backend import BACKENDS


def parser(description, **options):
    """Returns a parser that keeps the line breaks of its description.

    It takes no abbreviated options, because commands are stored in files.
    """
    return argparse.ArgumentParser(
        allow_abbrev=False,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def add_backend(add):
    """Adds the option for the backend.

    Args:
        add: callable. The parser's `add_argument`, here and below.
    """
    add(
        "--backend",
        choices=BACKENDS,
        help="of Keras (default: KERAS_BACKEND, or that of your keras.json, or "
        "tensorflow)",
    )


def add_data_dir(add):
    """Adds the option for the place of data sets."""
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
        add: callable. The parser's `add_argument`.
        builder: str. The default of `--builder`. Defaults to `None`, which
            makes the option required.
        batch_size: int. The default of `--batch-size`. Defaults to `32`.
    """
    add("network", nargs="?", default="imagenet", help="a builder's `weights`")
    add("--builder", default=builder, required=builder is None)
    add("--set", action="append", default=[], metavar="ARGUMENT=VALUE")
    add("--image-size", type=positive, default=224)
    add("--batch-size", type=positive, default=batch_size)
    add_backend(add)


def at_least(minimum):
    """Returns the argument type of integers of at least `minimum`."""

    def integer(text):
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(
                f"should be at least {minimum}. Received: {text}"
            )
        return int(text)

    return integer


positive = at_least(1)


def share(text):
    """The argument type of numbers in `(0, 1]`."""
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(
            f"should be above 0 and at most 1. Received: {text}"
        )
    return float(text)


def check_file(option, path):
    """Checks that a file can be written to a path.

    Args:
        option: str. The option that names the file.
        path: Path or `None`.

    Raises:
        ValueError: If the path is a folder, or in a folder that does not exist.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(
            f"`{option}` should be a file in a folder that exists. "
            f"Received: {option} {path}"
        )


def invocation():
    """Returns the command of this process, quoted for a shell."""
    module = sys.modules["__main__"].__spec__
    if module is not None and module.name.startswith("training."):
        return shlex.join(["python", "-m", module.name, *sys.argv[1:]])
    return shlex.join(["python", *sys.argv])


@contextlib.contextmanager
def exit_on_error(prefix):
    """Context manager that exits with a line for errors of user or system.

    Args:
        prefix: str. The start of the line.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        sys.exit(f"{prefix}: {error}")


def run(main):
    """Runs a command in a process that keeps freed memory.

    After Ctrl-C, it prints a line without a traceback.
    """
    hardware.keep_freed_memory()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
