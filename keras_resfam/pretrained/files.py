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


def fault(files, pins=None):
    """Returns in words what is wrong with a network's files, or None.

    Args:
        files: dict from names to bytes.
        pins: dict from names to what the contents should be, as `describe`
            tells. Defaults to what the fingerprint says of the other files.
    """
    if pins is None:
        try:
            pins = json.loads(files[FINGERPRINT])["files"]
            pins = pins | {FINGERPRINT: describe(files[FINGERPRINT])}
        except (ValueError, KeyError, TypeError) as error:
            return f"{FINGERPRINT} cannot be read ({error!r})"
    for name in NEEDED:
        if name not in pins:
            return f"{FINGERPRINT} does not tell what {name} should be"
        found = describe(files[name])
        if found != pins[name]:
            return f"{name} should have {pins[name]}, and has {found}"
    return None
