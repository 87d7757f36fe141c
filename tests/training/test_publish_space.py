"""A page as a static Space on the Hub: one commit, or nothing."""

import dataclasses
import json

import pytest
import yaml

import hub
from keras_resfam import HubError
from keras_resfam.pretrained import registry
from training import publish
from training.networks import publishing
from training.page import space

pytestmark = pytest.mark.backend_independent

TOKEN = "hf_a_secret_token"
SPACE = "org/page"
NAME = f"spaces/{SPACE}"


@pytest.fixture
def server(tmp_path, monkeypatch):
    with hub.Hub([TOKEN]) as server:
        hub.use(server, tmp_path / "cache", monkeypatch, TOKEN)
        yield server


@pytest.fixture
def site(tmp_path):
    """What demo.py writes, in small."""
    folder = tmp_path / "site"
    (folder / "parts").mkdir(parents=True)
    record = {"title": 'a: "b"', "about": "A network."}
    (folder / "network.json").write_text(json.dumps(record))
    (folder / "index.html").write_text("<!DOCTYPE html>")
    (folder / "parts" / "head.onnx").write_bytes(b"\x08\x01")
    return folder


def run(site, *options):
    publish.main(["--space", SPACE, str(site), *options])


def files_of(server):
    files = dict(server.repositories[NAME].head.files)
    files.pop(".gitattributes")
    return files


def test_one_commit_that_holds_the_page(site, server, capsys):
    run(site)
    files = files_of(server)
    card = files.pop("README.md").decode()
    assert card.startswith('---\ntitle: "a: \\"b\\""\nsdk: static\n')
    assert files == {
        path.relative_to(site).as_posix(): path.read_bytes()
        for path in site.rglob("*")
        if path.is_file()
    }
    assert server.sdks == {NAME: "static"}
    head = server.repositories[NAME].head
    assert f"spaces/{SPACE}@{head.oid}" in capsys.readouterr().out
    assert head.parent.parent is None  # the first is of the new Space


def test_the_card_names_the_network_once_it_is_published(site, monkeypatch):
    (known, *_) = registry.read()
    path = site / "network.json"
    path.write_text(json.dumps({"title": known.name, "about": "A network."}))

    def models():
        card = space.contents(site)["README.md"].decode()
        front = yaml.safe_load(card.split("---")[1])
        assert (
            front["custom_headers"]["cross-origin-embedder-policy"]
            == "require-corp"
        )
        return front.get("models")

    for commit, expected in ((None, None), ("1" * 40, [known.repository])):
        network = dataclasses.replace(known, commit=commit)
        monkeypatch.setattr(registry, "read", lambda found=network: [found])
        assert models() == expected


def test_what_is_gone_from_the_page_is_removed(site, server):
    run(site)
    (site / "parts" / "head.onnx").rename(site / "parts" / "block0.onnx")
    run(site)
    assert "parts/block0.onnx" in files_of(server)
    assert "parts/head.onnx" not in files_of(server)


def test_a_space_of_something_else_is_left_alone(site, server):
    server.push(NAME, {".gitattributes": b"", "app.py": b""})
    with pytest.raises(SystemExit, match="app.py"):
        run(site)
    assert set(files_of(server)) == {"app.py"}


def test_another_folder_is_refused(server, tmp_path):
    with pytest.raises(SystemExit, match="network.json"):
        run(tmp_path)
    assert not server.requests


def test_a_dry_run_sends_nothing(site, server, capsys):
    run(site, "--dry-run")
    assert "parts/head.onnx" in capsys.readouterr().out
    assert not server.requests


@pytest.mark.parametrize(
    ("kind", "path"),
    [("500", "/preupload/"), ("500", "/commit/"), ("hang", "/commit/")],
)
def test_faults(site, server, monkeypatch, kind, path):
    monkeypatch.setattr(publishing, "PATIENCE", 1)
    with server.fault(kind, path), pytest.raises(HubError, match="Remedy"):
        space.publish(site, SPACE)
    assert not files_of(server)
    run(site)
    assert "network.json" in files_of(server)
