"""Files that appear whole or not at all, and are read so."""

import contextlib
import json
import os


@contextlib.contextmanager
def replacing(path):
    """Gives a path beside `path` to write to, and then puts it in its place.

    Until then, and if anything fails, `path` is what it was. The name is this
    process's own, and keeps its suffix, by which some writers choose the
    format.

    Args:
        path: Path.
    """
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        # Or a power cut leaves it empty. Windows wants it open for writing.
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path, contents):
    """Writes a file of JSON that people can read."""
    path.write_text(json.dumps(contents, indent=2) + "\n")


def read_json(path):
    """What a file of JSON holds.

    Raises:
        ValueError: If it holds something else; the text names it.
    """
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} should be a whole file of JSON. Received: {error}"
        ) from error
