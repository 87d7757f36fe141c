"""Checkpoints that survive a kill, a full disk and a damaged file.

A checkpoint is one `.npz` file, whose name has its step and the start of its
SHA-256. It gets this name when it is complete and on the disk, and the one
before it stays until then. A file with another name, such as a copy, belongs to
the user and is neither read nor removed.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import zipfile
import zlib

import numpy as np

KEEP = 2
WHOLE = re.compile(r"(\d{8,})-([0-9a-f]{16})\.npz")
DAMAGED = re.compile(r"\d{8,}-[0-9a-f]{16}\.damaged")
PARTIAL = re.compile(r"\d{8,}\.partial")


class CheckpointError(OSError):
    """Raised when the state of a run cannot be written or read."""


@contextlib.contextmanager
def writing(what, folder):
    """Context manager that turns disk errors into one with a remedy.

    Args:
        what: str. What is written, for the error message.
        folder: Path.

    Raises:
        CheckpointError: Instead of an OSError.
    """
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"Could not write {what} to {folder}: {error.strerror or error}. "
            "Earlier files are intact. Remove the cause, such as a full disk, "
            "and give the same command to continue."
        ) from error


def save(folder, step, arrays, state):
    """Writes a checkpoint, and removes all but the last two.

    Args:
        folder: Path. It is created if it is missing.
        step: int. Later checkpoints have larger steps.
        arrays: list of arrays.
        state: Other values to save, which JSON can represent.

    Raises:
        CheckpointError: If it cannot be written. Earlier checkpoints are
            intact.
    """
    folder = pathlib.Path(folder)
    partial = folder / f"{step:08d}.partial"
    with writing(f"a checkpoint for step {step}", folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                named = {str(i): array for i, array in enumerate(arrays)}
                np.savez(file, state=json.dumps(state), **named)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, folder / f"{step:08d}-{_digest(partial)}.npz")
            _sync_folder(folder)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        whole = [path for path in _newest_first(folder) if path.is_file()]
        for old in whole[KEEP:]:
            old.unlink()


def load(folder, warn=print, mend=True):
    """Reads the newest checkpoint that is intact.

    Args:
        folder: Path. It may not exist.
        warn: callable. Takes a line about a damaged checkpoint. Defaults to
            `print`.
        mend: bool. Whether to rename damaged checkpoints. One of several
            processes does. Defaults to `True`.

    Returns:
        A pair, the arguments `arrays` and `state` of `save`; or `None` if there
        is no checkpoint.

    Raises:
        CheckpointError: If there are checkpoints, but all are damaged.
    """
    folder = pathlib.Path(folder)
    for path in _newest_first(folder):
        # Another process may have renamed it.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and WHOLE.fullmatch(path.name)[2] == _digest(
                path
            ):
                return _read(path)
            if mend:
                path.rename(path.with_suffix(".damaged"))
                warn(f"Checkpoint {path} is damaged; trying the one before it.")
    if _newest_first(folder) or _named(folder, DAMAGED):
        raise CheckpointError(
            f"Every checkpoint in {folder} is damaged. Remove the run's "
            "folder to start it over."
        )
    return None


def _read(path):
    try:
        with np.load(path) as file:
            count = len(file.files) - 1
            arrays = [file[str(i)] for i in range(count)]
            return arrays, json.loads(str(file["state"]))
    except (
        *(ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error),
        *(TypeError, AttributeError, MemoryError, RecursionError),
    ) as error:
        raise CheckpointError(
            f"{path} was not written by train.py ({error!r}). Remove it to use "
            "the checkpoint before it."
        ) from error


def clean(folder):
    """Removes the partial files that a killed `save` has left."""
    for partial in _named(pathlib.Path(folder), PARTIAL):
        partial.unlink()


def _newest_first(folder):
    """Returns the paths that have the name of a checkpoint."""
    found = _named(folder, WHOLE)
    return sorted(
        found, key=lambda path: int(path.name.partition("-")[0]), reverse=True
    )


def _named(folder, pattern):
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if pattern.fullmatch(path.name)]


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sync_folder(folder):
    """Writes the new name to the disk, if the system can open folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
