"""Downloads networks of this project from the Hugging Face Hub.

The sizes and SHA-256 of the files are checked before they are read. A file
that differs is removed from the Hub's cache.

The Hub's client is slow to import, so `pretrained.sources` imports this module
only where a file is fetched.
"""

import functools
import json
import re
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    errors,
    get_token,
    hf_hub_download,
    try_to_load_from_cache,
)

from keras_resfam.pretrained.errors import HubError
from keras_resfam.pretrained.files import (
    FINGERPRINT,
    NEEDED,
    fault,
    own_pins,
    size_fault,
)

_LARGEST_FINGERPRINT = 2**24  # bytes; that of ResNet-1202 has 1 MB


def fetch(repository, revision, pins=None):
    """Returns the files of a repository, from the Hub's cache or the Hub.

    A cached revision is read without a request, even if it is a branch or a
    tag. A damaged file is removed from the cache and fetched again once.

    Args:
        repository: str. `organization/name`.
        revision: str. A branch, tag or commit.
        pins: dict, as for `fault`. Defaults to `None`.

    Returns:
        A dict from the names in `NEEDED` to bytes.

    Raises:
        HubError: If the files cannot be fetched, or differ from the pins.
        ValueError: If the name of the repository or the revision is invalid.
    """
    with hub_errors(repository, revision):
        for _ in range(2):
            wrong = None
            paths, commit = _cached(repository, revision)
            if paths is None:
                paths, commit, wrong = _download(repository, revision, pins)
            if wrong is None:
                files = {path.name: path.read_bytes() for path in paths}
                wrong = fault(files, pins)
            if {path.parent.name for path in paths} - {commit}:
                wrong = f"commit {commit} was not served"
            if wrong is None:
                return files
            if constants.HF_HUB_OFFLINE:
                raise cache_error(repository, revision, wrong)
            remove(paths)
    raise download_error(repository, revision, wrong)


def cache_error(repository, revision, wrong):
    """Returns the error for damaged files that offline mode cannot replace."""
    return HubError.about(
        repository,
        revision,
        f"the copy in the cache is damaged: {wrong}.",
        "unset HF_HUB_OFFLINE, so that it is fetched again.",
    )


def download_error(repository, revision, wrong):
    """Returns the error for files that are wrong after a second download."""
    return HubError.about(
        repository,
        revision,
        f"{wrong}. It was not kept.",
        "try again; if it happens again, the copy on the Hub or a proxy is "
        "broken.",
    )


def _cached(repository, revision):
    """Returns the cached files' paths and commit, or `(None, None)`."""
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


def _download(repository, revision, pins):
    """Downloads the files, if the Hub states the sizes that are expected.

    Returns:
        A tuple: the paths of the downloaded files, the revision's commit, and
        a str that says what is wrong with the sizes, or `None`.
    """
    # This request fails at once if the Hub cannot be reached, where downloads
    # would wait and retry. It also returns the commit of a branch or a tag.
    info = HfApi(library_name="keras_resfam").model_info(
        repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    is_commit = re.fullmatch("[0-9a-f]{40}", revision)
    commit = revision if is_commit else info.sha
    get = functools.partial(
        hf_hub_download,
        repository,
        revision=revision,
        library_name="keras_resfam",
    )
    stated = {name: get(name, dry_run=True).file_size for name in NEEDED}
    fetched, wrong = [], None
    if pins is None:
        if stated[FINGERPRINT] > _LARGEST_FINGERPRINT:
            return [], commit, f"{FINGERPRINT} is too large"
        fetched = [Path(get(FINGERPRINT))]
        pins, wrong = own_pins(fetched[0].read_bytes())
    wrong = wrong or size_fault(stated, pins)
    if wrong is None:
        fetched = [Path(get(name)) for name in NEEDED]
    return fetched, commit, wrong


def remove(paths):
    """Removes files from the cache, both the links and their targets.

    A link may lead out of the cache, to a file of the user. Then the link is
    removed, and the target is kept.

    Args:
        paths: iterable of Path. Files in the cache's `snapshots/`.
    """
    for path in paths:
        repository = path.parents[2].resolve()
        own = repository / "blobs", repository / "snapshots"
        while path.is_symlink() or path.exists():
            folder = path.parent.resolve()
            if not any(folder.is_relative_to(part) for part in own):
                break
            next_path = folder / path.readlink() if path.is_symlink() else path
            path.unlink()
            path = next_path


class hub_errors:
    """Context manager that turns errors of the Hub's client into a `HubError`.

    The client's error holds the request, and with it the user's token. The
    error that is raised instead does not refer to it, and its traceback does
    not either.

    Args:
        repository: str. `organization/name`.
        revision: str. A branch, tag or commit.

    Raises:
        HubError: If the client fails.
        ValueError: If the name of the repository or the revision is invalid.
    """

    def __init__(self, repository, revision):
        self.repository, self.revision = repository, revision

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        translated = self._translate(error)
        del error, traceback
        if translated is None:
            return False
        try:
            raise translated from None
        except type(translated):
            translated.__context__ = None  # Python has set the client's error
            raise

    def _translate(self, error):
        """Returns the error to raise instead, or `None`."""
        where = self.repository, self.revision
        if isinstance(error, HubError):  # an OSError, but clear already
            return None
        if isinstance(error, _REFUSED):
            return ValueError(
                "A repository should be 'organization/name', and a revision a "
                f"branch, tag or commit: {_without_secrets(str(error))} "
                f"Received: repository={where[0]!r}, revision={where[1]!r}"
            )
        if isinstance(error, _FAILED):
            cause_and_remedy = map(_without_secrets, _explain(error))
            return HubError.about(*where, *cause_and_remedy)
        return None


_REFUSED = errors.HFValidationError, errors.BadRequestError

_FAILED = (
    OSError,
    RuntimeError,  # wraps errors in the client's threads
    json.JSONDecodeError,  # an incomplete answer, or not the Hub's
    *(TypeError, AttributeError, LookupError),  # an answer of another shape
    UnicodeError,  # a token with invalid characters
    errors.HTTPError,
    errors.XetDownloadError,
)


def _without_secrets(text):
    """Removes the token, and the users and passwords of URLs, from a text."""
    user = constants.ENDPOINT.partition("://")[2].rpartition("@")[0]
    for secret in filter(None, (get_token(), user, user.partition(":")[2])):
        text = text.replace(secret, "…")
    return re.sub(r"://[^/?#\s]*@", "://", text)


_LOG_IN = "log in to an account that has access, by `hf auth login` or HF_TOKEN"
_BY_STATUS = {
    401: (
        "the repository does not exist, or it is private and the token is "
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
        "somebody else has published to the repository in the meantime",
        "look at their commit, and publish again",
    ),
    429: (
        "there were too many requests",
        f"wait some minutes and try again, or {_LOG_IN}",
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
        cause = f"{constants.ENDPOINT} cannot be reached, or disconnected"
        remedy = (
            "check the network, HF_ENDPOINT and proxies, and try again; a "
            "clone of keras_resfam has the weights and needs no network"
        )
    elif isinstance(error, UnicodeError):
        # The message of this error has characters of the token.
        cause = "the token has invalid characters"
        return f"{cause}.", f"{_LOG_IN}."
    elif getattr(error, "errno", None) is not None:
        cause = f"the cache, {constants.HF_HUB_CACHE}, cannot be used"
        remedy = "make it writable, free disk space, or set HF_HOME to another"
    else:
        cause, remedy = "the answer is incomplete or invalid", "try again"
    said = " ".join(str(error).split())
    return f"{cause} ({type(error).__name__}: {said}).", f"{remedy}."
