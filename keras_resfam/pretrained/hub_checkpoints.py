"""Downloads other projects' checkpoints from the Hugging Face Hub.

The Hub states the size and the digest of each file of a revision. A file that
differs is not read, and is removed from the cache. A cached file is named
after its digest, so it can be verified again without a request. Like
`pretrained.hub`, this module is imported only where a file is fetched.
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
    """Returns the files of a checkpoint, from the Hub's cache or the Hub.

    As in `hub.fetch`, a cached revision is read without a request, and a
    damaged file is fetched again once.

    Args:
        repository: str. `organization/name`.
        revision: str. A branch, tag or commit.
        pins: dict from file names to what `files.describe` should return for
            their contents. Defaults to `None`, which trusts the digests that
            the Hub states.
        weights: bool. Whether to fetch the tensors. If `False`, only the
            configs are fetched. Defaults to `True`.

    Returns:
        A dict from file names to bytes, or `None` if the repository holds a
        network of keras_resfam.

    Raises:
        HubError: If the files cannot be fetched, or differ from what the Hub
            or `pins` state.
        ValueError: If the repository holds no checkpoint that can be read.
    """
    with hub.hub_errors(repository, revision):
        if _cached(repository, revision, [FINGERPRINT]):
            return None
        for _ in range(2):
            known = _from_cache(repository, revision, weights)
            wrong = None
            if known is None:
                listed, commit = _list_files(repository, revision)
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
                raise hub.cache_error(repository, revision, wrong)
            hub.remove(known)
    raise hub.download_error(repository, revision, wrong)


def _cached(repository, revision, names):
    """Returns the paths of the files that are in the cache."""
    found = (
        try_to_load_from_cache(repository, name, revision=revision)
        for name in names
    )
    return [Path(path) for path in found if isinstance(path, str)]


def _from_cache(repository, revision, weights):
    """Returns a dict from cached paths to size and digest, or `None`.

    The size is `None`, which means that it is not known.
    """
    paths = _cached(repository, revision, foreign.CONFIGS)
    if weights:
        tensors = _cached(repository, revision, foreign.WEIGHTS)[:1]
        paths = tensors + paths if tensors else []
    # The links in the cache lead to files that are named after their digests.
    # On systems without links, the names are not digests.
    known = {path: (None, path.resolve().name) for path in paths}
    commits = {path.parent.name for path in paths}
    if len(commits) != 1 or not all(
        re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest)
        for _, digest in known.values()
    ):
        return None
    return known


def _list_files(repository, revision):
    """Returns a dict from file names to size and digest, and the commit."""
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
    """Downloads the files, if the Hub states the digests in the registry.

    Returns:
        A pair: a dict from the paths to size and digest, and a str that says
        what is wrong, or `None`.
    """
    names = [name for name in foreign.CONFIGS if name in listed]
    if weights:
        where = f"'hf://{repository}@{revision}'"
        names.insert(0, foreign.choose(where, listed))
    for name, pin in (pins or {}).items():
        if listed.get(name) != (pin["bytes"], pin["sha256"]):
            return {}, f"{name} is not the file in the registry, {pin}"
    known = {}
    for name in names:
        path = hf_hub_download(
            repository, name, revision=revision, library_name="keras_resfam"
        )
        known[Path(path)] = listed[name]
    if {path.parent.name for path in known} - {commit}:
        return known, f"commit {commit} was not served"
    return known, None


def _fault(files, known, pins):
    """Says what is wrong with the files; returns `None` if nothing is."""
    for path, (size, digest) in known.items():
        contents = files[path.name]
        if size not in (None, len(contents)):
            return f"{path.name} should have {size} bytes, not {len(contents)}"
        if _digest(contents, digest) != digest:
            return f"{path.name} does not have the digest {digest}"
        pin = (pins or {}).get(path.name)
        if pin is not None and describe(contents) != pin:
            return f"{path.name} is not the file in the registry, {pin}"
    return None


def _digest(contents, like):
    """Returns the digest of contents, of the same kind as another digest.

    The Hub states the SHA-256 of large files, and git's SHA-1 of small ones.
    """
    if len(like or "") == 40:
        header = b"blob %d\0" % len(contents)
        return hashlib.sha1(
            header + contents, usedforsecurity=False
        ).hexdigest()
    return hashlib.sha256(contents).hexdigest()
