"""Verified files of somebody's checkpoint on the Hugging Face Hub.

The Hub itself tells the size and the SHA-256 of each file of a revision. What
is not so is not read, and does not stay in the cache, where the name of a file
is what the Hub said. Like `pretrained.hub`, this is imported where something
is fetched.
"""

import hashlib
import re
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    hf_hub_download,
    try_to_load_from_cache,
)

from keras_resfam.pretrained import foreign, hub
from keras_resfam.pretrained.files import FINGERPRINT, describe


def fetch(repository, revision, pins=None, weights=True):
    """Returns a checkpoint's files from the Hub's cache, else from the Hub.

    As in `hub.fetch`, a revision that is in the cache is taken from there
    without a request, and what is not as it should be is, once, fetched again.

    Args:
        repository: str. `organisation/name`.
        revision: str. A branch, tag or commit.
        pins: dict from names to what `files.describe` says of the contents.
            Defaults to `None`, what the Hub says.
        weights: bool. Whether the tensors are wanted, or only what is said of
            them. Defaults to `True`.

    Returns:
        A dict from names to bytes; `None` if the repository holds a network
        of keras_resfam.

    Raises:
        HubError: If they cannot be had, or are not what the Hub says.
        ValueError: If the repository holds no checkpoint that can be read.
    """
    with hub.hub_errors(repository, revision):
        if _cached(repository, revision, [FINGERPRINT]):
            return None
        for _ in range(2):
            known = _from_cache(repository, revision, weights)
            wrong = None
            if known is None:
                listed, commit = _listed(repository, revision)
                if FINGERPRINT in listed:
                    return None
                known, wrong = _download(
                    repository, revision, commit, listed, pins, weights
                )
            if wrong is None:
                files = {path.name: path.read_bytes() for path in known}
                wrong = _fault(files, known, pins)
            if wrong is None:
                return files
            if constants.HF_HUB_OFFLINE:
                raise hub.damaged_in_cache(repository, revision, wrong)
            hub.remove(known)
    raise hub.not_kept(repository, revision, wrong)


def _cached(repository, revision, names):
    """The paths of those of the files that are in the cache."""
    found = (
        try_to_load_from_cache(repository, name, revision=revision)
        for name in names
    )
    return [Path(path) for path in found if isinstance(path, str)]


def _from_cache(repository, revision, weights):
    """The cached files and what the Hub said of them, or `None`."""
    paths = _cached(repository, revision, foreign.CONFIGS)
    if weights:
        tensors = _cached(repository, revision, foreign.WEIGHTS)[:1]
        paths = tensors + paths if tensors else []
    # Where links are not allowed, a file has its own name in the cache.
    known = {path: (None, path.resolve().name) for path in paths}
    commits = {path.parent.name for path in paths}
    if len(commits) != 1 or not all(
        re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest)
        for _, digest in known.values()
    ):
        return None
    return known


def _listed(repository, revision):
    """What the Hub says of the files of a revision, and its commit."""
    info = HfApi(library_name="keras_resfam").model_info(
        repository,
        revision=revision,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )
    listed = {
        x.rfilename: (x.size, x.lfs.sha256 if x.lfs else x.blob_id)
        for x in info.siblings
    }
    is_commit = re.fullmatch("[0-9a-f]{40}", revision)
    return listed, revision if is_commit else info.sha


def _download(repository, revision, commit, listed, pins, weights):
    """Fetches the files, if the registry agrees with the Hub.

    Returns:
        A dict from their paths to size and digest, and in words what is
        wrong, or `None`.
    """
    names = [name for name in foreign.CONFIGS if name in listed]
    if weights:
        where = f"'hf://{repository}@{revision}'"
        names.insert(0, foreign.choose(where, listed))
    for name, pin in (pins or {}).items():
        if listed.get(name) != (pin["bytes"], pin["sha256"]):
            return {}, f"{name} is not that of the registry, {pin}"
    known = {}
    for name in names:
        path = hf_hub_download(
            repository, name, revision=revision, library_name="keras_resfam"
        )
        known[Path(path)] = listed[name]
    if {path.parent.name for path in known} - {commit}:
        return known, f"commit {commit} was asked for, and not served"
    return known, None


def _fault(files, known, pins):
    """Returns in words what is wrong with the files, or `None`."""
    for path, (size, digest) in known.items():
        contents = files[path.name]
        if size not in (None, len(contents)):
            return f"{path.name} should have {size} bytes, not {len(contents)}"
        if _digest(contents, digest) != digest:
            return f"{path.name} should have the digest {digest}, and has not"
        pin = (pins or {}).get(path.name)
        if pin is not None and describe(contents) != pin:
            return f"{path.name} is not that of the registry, {pin}"
    return None


def _digest(contents, like):
    """The SHA-256 of a large file; git's SHA-1 of one that git keeps."""
    if len(like or "") == 40:
        header = b"blob %d\0" % len(contents)
        return hashlib.sha1(
            header + contents, usedforsecurity=False
        ).hexdigest()
    return hashlib.sha256(contents).hexdigest()
