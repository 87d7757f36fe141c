"""Verified files of a repository on the Hugging Face Hub.

Their sizes and SHA-256 are checked before anything else reads them; what is
not as it should be does not stay in the Hub's cache.

The Hub's client is slow to import: `pretrained.sources` imports this module
where something is fetched.
"""

import contextlib
import json
import re
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    errors,
    hf_hub_download,
    try_to_load_from_cache,
)

from keras_resfam.pretrained.errors import HubError
from keras_resfam.pretrained.files import NEEDED, fault


def fetch(repository, revision, pins=None):
    """Returns a repository's files from the Hub's cache, else from the Hub.

    A revision that is in the cache is taken from there, without a request,
    also where it is a branch or a tag. What is not as it should be is removed
    from the cache and, once, fetched again.

    Args:
        repository: str. `organisation/name`.
        revision: str. A branch, tag or commit.
        pins: dict, as for `fault`. Defaults to `None`.

    Returns:
        A dict from the names in `NEEDED` to bytes.

    Raises:
        HubError: If they cannot be had, or are not as they should be.
        ValueError: If the repository's name is not one.
    """
    with hub_errors(repository, revision):
        for _ in range(2):
            paths, commit = _cached(repository, revision)
            if paths is None:
                paths, commit = _download(repository, revision)
            files = {path.name: path.read_bytes() for path in paths}
            wrong = fault(files, pins)
            if {path.parent.name for path in paths} != {commit}:
                wrong = f"commit {commit} was asked for, and not served"
            if wrong is None:
                return files
            if constants.HF_HUB_OFFLINE:
                raise HubError.about(
                    repository,
                    revision,
                    f"the copy in the cache is damaged: {wrong}.",
                    "unset HF_HUB_OFFLINE, and it is fetched again.",
                )
            _remove(paths)
    raise HubError.about(
        repository,
        revision,
        f"{wrong}. It was not kept.",
        "try again; if it happens again, the copy on the Hub or a proxy on "
        "the way is broken.",
    )


def _cached(repository, revision):
    """The paths of the cached files and their commit, or `(None, None)`."""
    paths = [
        try_to_load_from_cache(repository, name, revision=revision)
        for name in NEEDED
    ]
    if not all(isinstance(path, str) for path in paths):
        return None, None
    commits = {Path(path).parent.name for path in paths}
    if len(commits) > 1:  # another process moved the branch meanwhile
        return None, None
    return list(map(Path, paths)), commits.pop()


def _download(repository, revision):
    """Fetches the files; returns their paths and the revision's commit."""
    # First a question that fails at once where downloads wait and repeat. It
    # also tells which commit a branch or a tag is.
    info = HfApi(library_name="keras_resfam").model_info(
        repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    paths = [
        hf_hub_download(
            repository, name, revision=revision, library_name="keras_resfam"
        )
        for name in NEEDED
    ]
    is_commit = re.fullmatch("[0-9a-f]{40}", revision)
    return list(map(Path, paths)), revision if is_commit else info.sha


def _remove(paths):
    """Removes files, and what they are links to."""
    for path in paths:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def hub_errors(repository, revision):
    """Turns errors of the Hub's client into one that says what to do.

    The client's own is not chained to it, since it holds the request and with
    it the user's token.

    Raises:
        HubError: for whatever went wrong on the way.
        ValueError: If the repository's name is not one.
    """
    try:
        yield
    except HubError:  # an OSError that says it already
        raise
    except (errors.HFValidationError, errors.BadRequestError) as error:
        raise ValueError(
            "A repository is 'organisation/name', and a revision a branch, "
            f"tag or commit: {error} "
            f"Received: repository={repository!r}, revision={revision!r}"
        ) from None
    except (
        OSError,
        RuntimeError,  # the client's wrapper of what fails in its threads
        json.JSONDecodeError,  # an answer that is not the Hub's, or not whole
        errors.HTTPError,
        errors.XetDownloadError,
    ) as error:
        cause, remedy = _explain(error)
        raise HubError.about(repository, revision, cause, remedy) from None


_LOG_IN = (
    "give the token of an account that has it: `hf auth login`, or HF_TOKEN"
)
_BY_STATUS = {
    401: (
        "there is no such repository, or it is private and the token is "
        "missing or wrong",
        f"check the name; if access is needed, {_LOG_IN}",
    ),
    403: ("access is denied", f"ask the owners for access, and {_LOG_IN}"),
    404: (
        "a file is missing",
        "name a repository and revision that hold a network of keras_resfam: "
        + ", ".join(NEEDED),
    ),
    412: (
        "somebody else has published there meanwhile",
        "look at what is there, and publish again",
    ),
    429: (
        "there were too many requests",
        f"wait some minutes and try again; more are allowed if you {_LOG_IN}",
    ),
}


def _explain(error):
    """Returns the cause and the remedy of an error of the Hub's client."""
    if isinstance(error, (errors.LocalEntryNotFoundError, RuntimeError)):
        error = error.__cause__ or error
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        cause = (
            "HF_HUB_OFFLINE is set, and not all files are in the cache, "
            f"{constants.HF_HUB_CACHE}"
        )
        return f"{cause}.", "unset HF_HUB_OFFLINE and try again."
    if isinstance(error, errors.GatedRepoError):
        cause, remedy = _BY_STATUS[403]
    elif isinstance(error, errors.RevisionNotFoundError):
        cause = "the repository has no such revision"
        remedy = "name a branch, tag or commit that it has"
    elif isinstance(error, errors.RepositoryNotFoundError):
        cause, remedy = _BY_STATUS[401]
    elif status is not None:
        usual = "the Hub has trouble", "try again later"
        cause, remedy = _BY_STATUS.get(status, usual)
    elif isinstance(error, errors.HTTPError):
        cause = f"{constants.ENDPOINT} cannot be reached, or hung up"
        remedy = (
            "check the network, HF_ENDPOINT and proxies, and try again; in a "
            "checkout of keras_resfam, weights/ needs no network"
        )
    elif getattr(error, "errno", None) is not None:
        cause = f"the cache, {constants.HF_HUB_CACHE}, cannot be used"
        remedy = "make it writable, make room, or name another by HF_HOME"
    else:
        cause, remedy = "the answer did not come through whole", "try again"
    said = " ".join(str(error).split())
    return f"{cause} ({type(error).__name__}: {said}).", f"{remedy}."
