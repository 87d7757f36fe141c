"""The files that make a trained network, and whether they are whole.

A network is a folder: `weights/<name>/` in a checkout of this project, a
repository on the Hugging Face Hub. `NEEDED` are the files that are read.

A training run is not published; beside each of its files of weights it writes
their SHA-256, in a file that `sha256sum -c` reads too.
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
    """The size and SHA-256 of a file's contents, as the registry pins them."""
    sha256 = hashlib.sha256(contents).hexdigest()
    return {"bytes": len(contents), "sha256": sha256}


def own_pins(fingerprint):
    """What a fingerprint says of the files of its network.

    Args:
        fingerprint: bytes.

    Returns:
        A dict as `fault` takes it and `None`, or `None` and in words what is
        wrong.
    """
    try:
        pins = dict(json.loads(fingerprint)["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return None, f"{FINGERPRINT} cannot be read ({error!r})"
    return pins | {FINGERPRINT: describe(fingerprint)}, None


def size_fault(sizes, pins):
    """Returns in words which of a network's files has a wrong size, or None.

    Args:
        sizes: dict from names to numbers of bytes.
        pins: dict, as for `fault`.
    """
    for name in NEEDED:
        pin = pins.get(name)
        if not isinstance(pin, dict) or "bytes" not in pin:
            return f"{FINGERPRINT} does not tell what {name} should be"
        if sizes[name] != pin["bytes"]:
            return (
                f"{name} should have {pin['bytes']} bytes, and has "
                f"{sizes[name]}"
            )
    return None


def fault(files, pins=None):
    """Returns in words what is wrong with a network's files, or None.

    Args:
        files: dict from names to bytes.
        pins: dict from names to what the contents should be, as `describe`
            tells. Defaults to what the fingerprint says of the other files.
    """
    if pins is None:
        pins, wrong = own_pins(files[FINGERPRINT])
        if wrong is not None:
            return wrong
    for name in NEEDED:
        if name not in pins:
            return f"{FINGERPRINT} does not tell what {name} should be"
        found = describe(files[name])
        if found != pins[name]:
            return f"{name} should have {pins[name]}, and has {found}"
    return None


def _digests_of(path):
    """The path of the file with the SHA-256 of a run's weights."""
    return path.with_name(f"{path.name}.sha256")


def note_digest(path, contents):
    """Writes down the SHA-256 that weights will have, before they appear.

    The line of the weights before stays behind it: a kill may leave them.

    Args:
        path: Path of the weights.
        contents: bytes, what they are going to be.
    """
    beside = _digests_of(path)
    lines = [f"{describe(contents)['sha256']}  {path.name}\n"]
    if beside.is_file():
        lines += beside.read_text().splitlines(keepends=True)[:1]
    with replacing(beside) as partial:
        partial.write_text("".join(dict.fromkeys(lines)))


def digest_fault(path, contents):
    """Returns in words what is wrong with a run's weights, or None.

    Args:
        path: Path of the weights.
        contents: bytes, what is read there.
    """
    beside = _digests_of(path)
    if not beside.is_file():
        return None
    known = beside.read_text(errors="replace").split()[::2]
    found = describe(contents)["sha256"]
    if found in known:
        return None
    return f"their SHA-256 is {found}, and not that in {beside}"
