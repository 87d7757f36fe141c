"""A network's files on the Hugging Face Hub, as one commit."""

import dataclasses
import hashlib

from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    RepoFile,
    constants,
    errors,
    get_session,
    set_client_factory,
)

from keras_resfam.pretrained.files import describe
from keras_resfam.pretrained.hub import hub_errors
from training.networks.packaging import FILES

BRANCH = "main"
PATIENCE = 60  # seconds to wait for a server


@dataclasses.dataclass(frozen=True)
class Plan:
    """The changes that make a repository equal to the files of a network.

    Attributes:
        repository: str.
        head: str. The last commit of its branch; `None` if there is no
            such repository.
        private: bool. Whether the repository is.
        send: dict from the names of files to send to their contents.
    """

    repository: str
    head: str | None
    private: bool
    send: dict

    def __str__(self):
        if not self.send:
            return f"{self.repository} is up to date: {self.head}"
        new = "" if self.head else ", which would be created"
        size = sum(map(len, self.send.values()))
        return "\n".join(
            [
                f"One commit of {size:,} bytes to {self.repository}{new}:",
                *(f"  send {name}" for name in self.send),
            ]
        )


def contents(folder):
    """Returns the files of a weights folder, a dict from names to bytes."""
    return {name: (folder / name).read_bytes() for name in FILES}


def plan(contents, repository):
    """Compares the files of a network with those of a repository.

    Args:
        contents: dict from names to bytes.
        repository: str. `organization/name`.

    Returns:
        `Plan`.

    Raises:
        ValueError: If the repository has other files.
        HubError: If the Hub does not answer.
    """
    api = client()
    with hub_errors(repository, BRANCH):
        try:
            info = api.model_info(
                repository, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        except errors.RepositoryNotFoundError:
            return Plan(repository, None, False, contents)
        known = {
            file.path: file.lfs.sha256 if file.lfs else file.blob_id
            for file in api.list_repo_tree(
                repository, revision=info.sha, recursive=True
            )
            if isinstance(file, RepoFile) and file.path != ".gitattributes"
        }
    if known and set(known) != set(contents):
        raise ValueError(
            "The repository should be new, empty, or of a network that this "
            "command has published, with its files and no others. Received: "
            f"{repository} with {', '.join(sorted(known))}"
        )
    send = {
        name: data
        for name, data in contents.items()
        if known.get(name) not in _identifiers(data)
    }
    return Plan(repository, info.sha, info.private, send)


def client():
    """Returns the Hub's client, which gives up on a server that is silent.

    By default, it waits forever for the answer to what it sends.
    """
    usual = get_session()

    def factory():
        return type(usual)(
            event_hooks=usual.event_hooks,
            follow_redirects=True,
            timeout=PATIENCE,
        )

    set_client_factory(factory)
    return HfApi()


def _identifiers(contents):
    """Returns what the Hub may call a file: by LFS or by git."""
    header = f"blob {len(contents)}\0".encode()
    git = hashlib.sha1(header + contents, usedforsecurity=False)
    return describe(contents)["sha256"], git.hexdigest()


def publish(contents, repository, name, private=False, tag=None):
    """Makes a repository equal to a network's files, in one commit.

    Args:
        contents: dict from names to bytes.
        repository: str. `organization/name`; created if it is not there.
        name: str. The network's, for the commit's message.
        private: bool. Whether the repository should be private.
        tag: str. The tag that the commit will get, or `None`.

    Returns:
        The commit that holds the files.

    Raises:
        ValueError: If the repository is public and should be private, or if
            another commit has the tag.
        HubError: If the Hub does not accept it. The repository is then
            unchanged, new and empty, or complete.
    """
    api = client()
    wanted = plan(contents, repository)
    with hub_errors(repository, tag or BRANCH):
        if wanted.head is None:
            api.create_repo(repository, private=private)
        elif private and not wanted.private:
            raise ValueError(
                f"{repository} is public already. Received: --private"
            )
        on = _tags(api, repository).get(tag) if wanted.head else None
        if on and (on != wanted.head or wanted.send):
            raise ValueError(
                f"A tag should stay where it is; this one is on {on}. "
                f"Received: --revision {tag}"
            )
        commit = wanted.head
        if wanted.send:
            commit = api.create_commit(
                repository,
                operations=[
                    CommitOperationAdd(k, v) for k, v in wanted.send.items()
                ],
                commit_message=f"Publish {name}",
                parent_commit=wanted.head,
            ).oid
    return commit


def put_tag(repository, tag, commit):
    """Gives a commit a tag, unless it has it."""
    api = client()
    with hub_errors(repository, tag):
        if _tags(api, repository).get(tag) != commit:
            api.create_tag(repository, tag=tag, revision=commit)


def _tags(api, repository):
    """Returns the commits of a repository's tags."""
    refs = api.list_repo_refs(repository)
    return {ref.name: ref.target_commit for ref in refs.tags}
