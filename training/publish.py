"""Publishes a weights folder on the Hugging Face Hub, as one commit.

    python training/publish.py weights/<name> --dry-run
    python training/publish.py weights/<name>
    python training/publish.py --space ORG/NAME site

The command needs a token that may write (`hf auth login`, or HF_TOKEN). It
prints the commit, and pins it in the registry of keras_resfam. To publish the
same bytes again changes nothing. With `--space` it publishes a page that
demo.py has written as a static Space, likewise in one commit.
"""

import dataclasses
import pathlib
import shutil
import sys
import tempfile

if not __package__:  # run as a file, with its own folder on the path
    sys.path[0] = str(pathlib.Path(__file__).parents[1])

from training.startup import backend, command_line


def parse_arguments(arguments=None):
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "folder",
        type=pathlib.Path,
        help="weights/<name>; with --space, what demo.py has written",
    )
    parser.add_argument(
        "--space", metavar="ORG/NAME", help="publish a page as a static Space"
    )
    parser.add_argument(
        "--repo",
        metavar="ORG/NAME",
        help="the repository (default: <name>, in the project's organisation)",
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="make a new repository private",
    )
    parser.add_argument(
        "--revision", metavar="TAG", help="a tag for the commit"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be sent, and send nothing",
    )
    options = parser.parse_args(arguments)
    if options.space and (options.repo or options.revision):
        parser.error("--space does not go with --repo and --revision")
    return options


def main(arguments=None):
    options = parse_arguments(arguments)
    if options.space:
        publish_page(options)
        return
    folder = options.folder.resolve()
    tag = options.revision
    with (
        tempfile.TemporaryDirectory() as parent,
        command_line.exit_on_error("Not published"),
    ):
        backend.start()
        from keras_resfam.pretrained import registry
        from training.networks import packaging, publishing

        repository = options.repo or registry.repository(folder.name)
        # What is checked is what is sent, whatever becomes of the folder.
        folder = copied(folder, pathlib.Path(parent))
        packaging.check(folder)
        entry = packaging.entry(folder, repository)
        for name, described in entry.files.items():
            print(f"{described['sha256']}  {described['bytes']:>10,}  {name}")
        if options.dry_run:
            print(publishing.plan(folder, repository))
            return
        commit = publishing.publish(folder, repository, options.private, tag)
    with command_line.exit_on_error(f"Published as {commit}, not pinned"):
        packaging.register(dataclasses.replace(entry, commit=commit))
    print(f"Published and pinned: hf://{repository}@{commit}")
    if tag:
        with command_line.exit_on_error("Published and pinned, not tagged"):
            publishing.put_tag(repository, tag, commit)


def publish_page(options):
    """Publishes a page as a Space, or shows what would be sent."""
    folder, address = options.folder.resolve(), options.space
    with command_line.exit_on_error("Not published"):
        backend.start()
        from training.page import space

        for name in space.contents(folder):
            print(name)
        if not options.dry_run:
            commit = space.publish(folder, address, options.private)
            print(f"Published: spaces/{address}@{commit}")


def copied(folder, parent):
    """Copies a folder to another place; returns the copy."""
    if not folder.is_dir():
        raise ValueError(
            "`folder` should be a folder of weights/. "
            f"Received: {folder}, which is none"
        )
    return shutil.copytree(folder, parent / folder.name)


if __name__ == "__main__":
    command_line.run(main)
