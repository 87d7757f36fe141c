"""The files that make a trained network, and whether they are whole.

A network is a folder: `weights/<name>/` in a checkout of this project, a
repository on the Hugging Face Hub. `NEEDED` are the files that are read.
"""

import hashlib
import json

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
