"""Verifies the files of a trained network.

A network is a folder: `weights/<name>/` in a checkout of this project, or a
repository on the Hugging Face Hub. `NEEDED` names the files that are read.

A training run writes a second file beside each file of weights, which has
their SHA-256. `sha256sum -c` can read it too.
"""

import hashlib
import json

from keras_resfam._files import replacing

WEIGHTS = "model.weights.h5"

FINGERPRINT = "fingerprint.json"

RECIPE = "recipe.json"

# The Hub counts a repository's downloads by requests for config.json.
NEEDED = ("config.json", RECIPE, FINGERPRINT, WEIGHTS)


def describe(contents):
    """Returns the size and SHA-256 of a file's contents, as in the registry.

    Args:
        contents: bytes.

    Returns:
        A dict of `"bytes"` (int) and `"sha256"` (str).
    """
    sha256 = hashlib.sha256(contents).hexdigest()
    return {"bytes": len(contents), "sha256": sha256}


def own_pins(fingerprint):
    """Returns the sizes and digests of files that a fingerprint states.

    Args:
        fingerprint: bytes. The contents of the fingerprint's file.

    Returns:
        A pair: the `pins` argument of `fault`, and `None`. If the fingerprint
        cannot be read: `None`, and a str that says what is wrong.
    """
    try:
        pins = dict(json.loads(fingerprint)["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return None, f"{FINGERPRINT} cannot be read ({error!r})"
    return pins | {FINGERPRINT: describe(fingerprint)}, None


def size_fault(sizes, pins):
    """Says which of a network's files has a wrong size.

    Args:
        sizes: dict from file names to numbers of bytes.
        pins: dict, as for `fault`.

    Returns:
        A str, or `None` if all sizes are right.
    """
    for name in NEEDED:
        pin = pins.get(name)
        if not isinstance(pin, dict) or "bytes" not in pin:
            return f"{FINGERPRINT} does not state what {name} should be"
        if sizes[name] != pin["bytes"]:
            return (
                f"{name} should have {pin['bytes']} bytes, but has "
                f"{sizes[name]}"
            )
    return None


def fault(files, pins=None):
    """Says what is wrong with the files of a network.

    Args:
        files: dict from file names to their contents, bytes.
        pins: dict from file names to what `describe` should return for their
            contents. Defaults to `None`, which takes these from the
            fingerprint among the files.

    Returns:
        A str, or `None` if nothing is wrong.
    """
    if pins is None:
        pins, wrong = own_pins(files[FINGERPRINT])
        if wrong is not None:
            return wrong
    for name in NEEDED:
        if name not in pins:
            return f"{FINGERPRINT} does not state what {name} should be"
        found = describe(files[name])
        if found != pins[name]:
            return f"{name} should have {pins[name]}, but has {found}"
    return None


def _digest_path(path):
    """Returns the path of the file with the SHA-256 of a run's weights."""
    return path.with_name(f"{path.name}.sha256")


def note_digest(path, contents):
    """Writes the SHA-256 of weights to a file, before they are written.

    The digest of the previous weights stays in the file as a second line,
    because a killed process may leave the previous weights in place.

    Args:
        path: Path of the weights.
        contents: bytes. The weights that will be written.
    """
    beside = _digest_path(path)
    lines = [f"{describe(contents)['sha256']}  {path.name}\n"]
    if beside.is_file():
        lines += beside.read_text().splitlines(keepends=True)[:1]
    with replacing(beside) as partial:
        partial.write_text("".join(dict.fromkeys(lines)))


def digest_fault(path, contents):
    """Says whether the weights of a run have another SHA-256 than was noted.

    Args:
        path: Path of the weights.
        contents: bytes. The weights that were read.

    Returns:
        A str, or `None` if the digest is right or none was noted.
    """
    beside = _digest_path(path)
    if not beside.is_file():
        return None
    known = beside.read_text(errors="replace").split()[::2]
    found = describe(contents)["sha256"]
    if found in known:
        return None
    return f"their SHA-256 is {found}, which is not in {beside}"
