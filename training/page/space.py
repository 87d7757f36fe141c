"""A page that demo.py has written, as a static Space on the Hub."""

import json
import pathlib

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from keras_resfam._files import read_json
from keras_resfam.pretrained import registry
from keras_resfam.pretrained.hub import hub_errors
from training.networks.publishing import client
from training.page.site import NETWORK

# What the Hub puts into a new Space.
NEW = {".gitattributes", "README.md", "index.html", "style.css"}
KEPT = {".gitattributes"}


def contents(folder):
    """Returns the files of a Space, from their names to their bytes or paths.

    Args:
        folder: Path.

    Raises:
        ValueError: If demo.py has not written the folder.
    """
    if not (folder / NETWORK).is_file():
        raise ValueError(
            "`folder` should be one that demo.py has written. Received: "
            f"{folder}, without {NETWORK}"
        )
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file()
    }
    return {"README.md": _card(read_json(folder / NETWORK)).encode()} | files


def _card(record):
    """Returns the README of a Space, whose front matter the Hub reads."""
    # What JSON calls a string is one in YAML too.
    title = json.dumps(record["title"])
    # The Hub shows the Space on the page of the network that it names.
    names = [f"- {name}\n" for name in _published(record["title"])]
    models = "".join(["models:\n", *names] if names else [])
    return (
        f"---\ntitle: {title}\nsdk: static\napp_file: index.html\n"
        "license: apache-2.0\ntags:\n- keras_resfam\n"
        f"{models}"
        # Isolated from other origins, WebAssembly may have threads.
        "custom_headers:\n"
        "  cross-origin-embedder-policy: require-corp\n"
        "  cross-origin-opener-policy: same-origin\n"
        "  cross-origin-resource-policy: cross-origin\n---\n\n"
        f"{record['about']} The page runs it in the browser: click blocks "
        "away, and see what they were worth.\n"
    )


def _published(name):
    """Returns the repository of a network by name, in a list, if published."""
    return [
        known.repository
        for known in registry.read()
        if known.name == name and known.commit
    ]


def publish(folder, space, private=False):
    """Makes a static Space equal to a folder, in one commit.

    Args:
        folder: Path. What demo.py has written.
        space: str. `organization/name`; created if it is not there.
        private: bool. Whether it has to be private, if it is new.

    Returns:
        The commit.

    Raises:
        ValueError: If the folder or the Space has something else.
        HubError: If the Hub does not accept it.
    """
    api, files = client(), contents(folder)
    with hub_errors(space, "main"):
        api.create_repo(
            space,
            repo_type="space",
            space_sdk="static",
            private=private,
            exist_ok=True,
        )
        info = api.space_info(space)
        known = {file.rfilename for file in info.siblings}
        if not known <= NEW and NETWORK not in known:
            raise ValueError(
                "`--space` should be new, or have a page that this command has "
                "published, since other files would be removed. Received: "
                f"--space {space} with {', '.join(sorted(known - NEW))}"
            )
        stale = sorted(known - set(files) - KEPT)
        return api.create_commit(
            space,
            repo_type="space",
            operations=[
                *(CommitOperationAdd(k, v) for k, v in files.items()),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=f"Publish {folder.name}",
            parent_commit=info.sha,
        ).oid
