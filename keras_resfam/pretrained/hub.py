"""Verified files of a repository on the Hugging Face Hub.

Their sizes and SHA-256 are checked before anything else reads them; what is
not as it should be does not stay in the Hub's cache.

The Hub's client is slow to import: `pretrained.sources` imports this module
where something is fetched.
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

_LARGEST_FINGERPRINT = 2**24  # bytes; a ResNet of 1,202 layers takes 1 MB


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
            wrong = None
            paths, commit = _cached(repository, revision)
            if paths is None:
                paths, commit, wrong = _download(repository, revision, pins)
            if wrong is None:
                files = {path.name: path.read_bytes() for path in paths}
                wrong = fault(files, pins)
            if {path.parent.name for path in paths} - {commit}:
                wrong = f"commit {commit} was asked for, and not served"
            if wrong is None:
                return files
            if constants.HF_HUB_OFFLINE:
                raise damaged_in_cache(repository, revision, wrong)
            remove(paths)
    raise not_kept(repository, revision, wrong)


def damaged_in_cache(repository, revision, wrong):
    """The error for files that cannot be fetched again offline."""
    return HubError.about(
        repository,
        revision,
        f"the copy in the cache is damaged: {wrong}.",
        "unset HF_HUB_OFFLINE, and it is fetched again.",
    )


def not_kept(repository, revision, wrong):
    """The error for files that are wrong a second time."""
    return HubError.about(
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


def _download(repository, revision, pins):
    """Fetches the files, if the Hub states the sizes that they should have.

    Returns:
        The paths of what was fetched, the revision's commit, and in words
        what is wrong with the sizes, or `None`.
    """
    # First a question that fails at once where downloads wait and repeat. It
    # also tells which commit a branch or a tag is.
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
            return [], commit, f"{FINGERPRINT} is larger than any is"
        fetched = [Path(get(FINGERPRINT))]
        pins, wrong = own_pins(fetched[0].read_bytes())
    wrong = wrong or size_fault(stated, pins)
    if wrong is None:
        fetched = [Path(get(name)) for name in NEEDED]
    return fetched, commit, wrong


def remove(paths):
    """Removes files from the cache: its links, and what is in its `blobs/`.

    A link may lead out of the cache, to a file of the user's: it goes, and
    what it leads to stays.
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
    """Turns errors of the Hub's client into one that says what to do.

    A context manager. The client's own error holds the request, and with it
    the user's token: neither the error that is raised nor its traceback leads
    to it.

    Raises:
        HubError: for whatever went wrong on the way.
        ValueError: If the repository's name is not one.
    """

    def __init__(self, repository, revision):
        self.repository, self.revision = repository, revision

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        told = self._tell(error)
        del error, traceback
        if told is None:
            return False
        try:
            raise told from None
        except type(told):
            told.__context__ = None  # which Python has set to the client's
            raise

    def _tell(self, error):
        """The error to raise instead, or `None`."""
        where = self.repository, self.revision
        if isinstance(error, HubError):  # an OSError that says it already
            return None
        if isinstance(error, _REFUSED):
            return ValueError(
                "A repository is 'organisation/name', and a revision a branch, "
                f"tag or commit: {_without_secrets(str(error))} "
                f"Received: repository={where[0]!r}, revision={where[1]!r}"
            )
        if isinstance(error, _FAILED):
            told = map(_without_secrets, _explain(error))
            return HubError.about(*where, *told)
        return None


_REFUSED = errors.HFValidationError, errors.BadRequestError

_FAILED = (
    OSError,
    RuntimeError,  # the client's wrapper of what fails in its threads
    json.JSONDecodeError,  # an answer that is not the Hub's, or not whole
    *(TypeError, AttributeError, LookupError),  # an answer of another shape
    UnicodeError,  # a token that no header can hold
    errors.HTTPError,
    errors.XetDownloadError,
)


def _without_secrets(text):
    """A text without the token, and without what URLs have of passwords."""
    user = constants.ENDPOINT.partition("://")[2].rpartition("@")[0]
    for secret in filter(None, (get_token(), user, user.partition(":")[2])):
        text = text.replace(secret, "…")
    return re.sub(r"://[^/?#\s]*@", "://", text)


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
    elif isinstance(error, UnicodeError):
        # Its text has the token's characters.
        cause = "the token has characters that no token has"
        return f"{cause}.", f"{_LOG_IN}."
    elif getattr(error, "errno", None) is not None:
        cause = f"the cache, {constants.HF_HUB_CACHE}, cannot be used"
        remedy = "make it writable, make room, or name another by HF_HOME"
    else:
        cause, remedy = "the answer did not come through whole", "try again"
    said = " ".join(str(error).split())
    return f"{cause} ({type(error).__name__}: {said}).", f"{remedy}."
