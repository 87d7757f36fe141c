"""The folder of a run, and the names of its files.

recipe.json            the fields of the recipe and the command
checkpoints/           the state, from which the same command continues
log.csv                a row for each evaluation
curves.png             a chart of the log, if Matplotlib is installed
tensorboard/           the log as events, if TensorBoard is installed
best.weights.h5        the weights of the best epoch, with a validation set
epoch_<n>.weights.h5   the weights of an epoch at which the schedule restarts
model.weights.h5       the result, which only a complete run has
*.weights.h5.sha256    the SHA-256 of a file of weights
result.json            what evaluate.py measures
"""

import contextlib
import pathlib

import filelock

from keras_resfam.pretrained.files import RECIPE, WEIGHTS
from training.run.checkpoints import CheckpointError, writing

CHECKPOINTS = "checkpoints"
LOG = "log.csv"
CURVES = "curves.png"
EVENTS = "tensorboard"
BEST_WEIGHTS = "best.weights.h5"
RESULT = "result.json"


def epoch_weights(epoch):
    """Returns the name of the file for the weights of an epoch, from 1."""
    return f"epoch_{epoch}.weights.h5"


def is_run(folder):
    """Returns whether a folder is a run's, and not one of weights/."""
    folder = pathlib.Path(folder)
    return (folder / RECIPE).is_file() and not (folder / "config.json").exists()


def is_complete(folder):
    """Returns whether the run in a folder has come to its end."""
    return (folder / WEIGHTS).exists()


def default_folder(name):
    """Returns runs/<name>, with a number appended if that is complete."""
    folder = pathlib.Path("runs", name)
    number = 1
    while is_complete(folder):
        number += 1
        folder = folder.with_name(f"{name}-{number}")
    return folder


@contextlib.contextmanager
def lock_folder(folder):
    """Context manager that keeps other processes from training in a folder.

    Args:
        folder: Path. The run's folder.

    Raises:
        CheckpointError: If another process trains in it.
    """
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    with writing("a lock", folder):
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise CheckpointError(
                f"Another process trains in {folder}: wait until it has ended, "
                "or give another `--run-dir`."
            ) from error
    try:
        yield
    finally:
        lock.release()
