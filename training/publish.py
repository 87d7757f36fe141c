"""Publishes a weights folder on the Hugging Face Hub, as one commit.

    python training/publish.py weights/<name> --dry-run
    python training/publish.py weights/<name>
    python training/publish.py weights/<name> --timm ORG/NAME
    python training/publish.py --space ORG/NAME site

The command needs a token that may write (`hf auth login`, or HF_TOKEN). It
prints the commit, and pins it in the registry of keras_resfam. Publishing the
same bytes again changes nothing. With `--timm`, it publishes the network in the
form that timm loads, if timm has such a network, in a separate repository that
is not pinned. With `--space`, it publishes a page that demo.py has written as a
static Space. Each of these is one commit too.
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
        "--timm",
        metavar="ORG/NAME",
        help="publish the network to this repository as timm loads it",
    )
    parser.add_argument(
        "--repo",
        metavar="ORG/NAME",
        help="the repository (default: <name>, in the project's organization)",
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
    if options.timm and (options.repo or options.space):
        parser.error("--timm does not go with --repo and --space")
    return options


def main(arguments=None):
    options = parse_arguments(arguments)
    if options.space:
        publish_page(options)
    else:
        publish_network(options)


def publish_network(options):
    """Publishes a network, or shows what would be sent."""
    tag = options.revision
    with (
        tempfile.TemporaryDirectory() as parent,
        command_line.exit_on_error("Not published"),
    ):
        backend.start()
        from keras_resfam.pretrained.files import describe
        from training.networks import packaging, publishing

        # The copy is what is checked and sent, even if the folder changes.
        folder = copied(options.folder.resolve(), pathlib.Path(parent))
        packaging.check(folder)
        repository, files = form(folder, options)
        for name, data in files.items():
            described = describe(data)
            print(f"{described['sha256']}  {described['bytes']:>10,}  {name}")
        if options.dry_run:
            print(publishing.plan(files, repository))
            return
        entry = packaging.entry(folder, repository)
        commit = publishing.publish(
            files, repository, folder.name, options.private, tag
        )
    done = "Published"
    if not options.timm:
        with command_line.exit_on_error(f"Published as {commit}, not pinned"):
            packaging.register(dataclasses.replace(entry, commit=commit))
        done = "Published and pinned"
    print(f"{done}: hf://{repository}@{commit}")
    if tag:
        with command_line.exit_on_error(f"{done}, not tagged"):
            publishing.put_tag(repository, tag, commit)


def form(folder, options):
    """Returns a network's repository and files, in Keras's or timm's form."""
    from keras_resfam.pretrained import registry
    from training.networks import publishing, timm_form

    if options.timm:
        return options.timm, timm_form.contents(folder, options.timm)
    repository = options.repo or registry.repository(folder.name)
    return repository, publishing.contents(folder)


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
            f"Received: {folder}, which is not a folder"
        )
    return shutil.copytree(folder, parent / folder.name)


if __name__ == "__main__":
    command_line.run(main)
