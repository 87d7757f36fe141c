"""Writes files atomically, and reads and writes JSON."""

import contextlib
import json
import os


@contextlib.contextmanager
def replacing(path):
    """Context manager that replaces a file by a new one, or leaves it as it is.

    It yields a temporary path in the same folder. When the context ends, that
    file replaces `path`. If anything fails, `path` is not changed. The name of
    the temporary file is unique to the process, and has the suffix of `path`,
    by which some writers choose the format. A device or a pipe is not replaced,
    but yielded itself.

    Args:
        path: Path. The file to replace.
    """
    path = path.resolve()  # a link stays, and its target is replaced
    if path.exists() and not path.is_file():
        yield path
        return
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        # Without fsync, a power cut could leave an empty file. On Windows, it
        # needs a file that is open for writing.
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path, contents):
    """Writes a JSON file with indentation, atomically."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(contents, indent=2) + "\n")


def read_json(path):
    """Returns the contents of a JSON file.

    Raises:
        ValueError: If the file is not valid JSON. The message names it.
    """
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} should be a complete JSON file. Received: {error}"
        ) from error
