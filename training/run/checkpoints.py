"""Checkpoints that survive a kill, a full disk and a damaged file.

A checkpoint is one `.npz` file, named by its step and the start of its
SHA-256. It appears under that name only when it is whole and on the disk, and
the one before stays until then. A file of any other name, a copy of a
checkpoint for instance, is the user's: it is neither read nor removed.
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
    """A run's state cannot be written, or none can be read."""


@contextlib.contextmanager
def writing(what, folder):
    """Turns an error of the disk into one that says how to go on.

    Args:
        what: str. The name of what is written.
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
            "What was written before is intact: remove the cause, for "
            "instance make room, and give the same command to go on."
        ) from error


def save(folder, step, arrays, state):
    """Writes a checkpoint, and removes all but the last two.

    Args:
        folder: Path; made if missing.
        step: int. Later checkpoints have larger ones.
        arrays: list of arrays.
        state: What else to keep; anything that JSON can hold.

    Raises:
        CheckpointError: If the disk refuses. Earlier checkpoints are intact.
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
    """Reads the newest checkpoint that is whole.

    Args:
        folder: Path; need not exist.
        warn: callable that is told, in a line, of a damaged checkpoint.
        mend: bool. Put damaged ones aside, as one of several processes
            does. Defaults to `True`.

    Returns:
        `(arrays, state)` as `save` took them; `None` where none was written.

    Raises:
        CheckpointError: If there are checkpoints, but all are damaged.
    """
    folder = pathlib.Path(folder)
    for path in _newest_first(folder):
        # Another process may have put it aside by now.
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
            f"{path} was not written by train.py ({error!r}). Remove it to go "
            "on from the checkpoint before it."
        ) from error


def clean(folder):
    """Removes what a killed `save` left behind."""
    for partial in _named(pathlib.Path(folder), PARTIAL):
        partial.unlink()


def _newest_first(folder):
    """Returns what has the name of a checkpoint."""
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
    """Puts the new name itself on the disk, where a folder can be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
