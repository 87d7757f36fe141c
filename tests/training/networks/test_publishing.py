"""A weights folder on the Hub: one commit, the right bytes, or nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import hub
import tiny_run
from keras_resfam import DMRNet, HubError
from keras_resfam.models import families
from keras_resfam.pretrained import fingerprint, hdf5, registry, sources
from keras_resfam.pretrained.files import FINGERPRINT, WEIGHTS, describe
from training import package, publish, train
from training.images import reading as datasets
from training.networks import packaging, publishing

pytestmark = pytest.mark.backend_independent

TOKEN = "hf_a_secret_token"
REPOSITORY = "org/net"


@pytest.fixture
def folder(home, tmp_path):
    """A copy of the folder, to be spoilt."""
    copy = tmp_path / "dmrnet_8_digits"
    shutil.copytree(home / "weights" / "dmrnet_8_digits", copy)
    return copy


@pytest.fixture
def server(tmp_path, monkeypatch):
    with hub.Hub([TOKEN]) as server:
        hub.use(server, tmp_path / "cache", monkeypatch, TOKEN)
        yield server


def commits(server):
    found, commit = [], server.repositories[REPOSITORY].head
    while commit is not None:
        found.append(commit)
        commit = commit.parent
    return found


def files_of(commit):
    files = dict(commit.files)
    files.pop(".gitattributes", None)
    return files


def run(folder, *options):
    publish.main([str(folder), "--repo", REPOSITORY, *options])


def test_one_commit_that_holds_the_folder(folder, server, capsys):
    run(folder)
    made, created = commits(server)
    assert files_of(made) == tiny_run.contents(folder)
    assert not files_of(created)
    assert not server.repositories[REPOSITORY].private
    assert f"hf://{REPOSITORY}@{made.oid}" in capsys.readouterr().out
    (network,) = registry.read()
    assert (network.repository, network.commit) == (REPOSITORY, made.oid)
    for name, data in tiny_run.contents(folder).items():
        assert network.files[name] == describe(data)


def test_the_same_bytes_again_change_nothing(folder, server):
    run(folder, "--revision", "v1")
    before = registry.PATH.read_bytes()
    server.requests.clear()
    run(folder)
    run(folder, "--revision", "v1")
    assert len(commits(server)) == 2
    assert {method for method, _ in server.requests} == {"GET"}
    assert registry.PATH.read_bytes() == before


def test_only_what_differs_is_sent(folder, server):
    run(folder)
    (made, *_) = commits(server)
    server.push(REPOSITORY, made.files | {"log.csv": b"other"})
    server.requests.clear()
    run(folder)
    assert files_of(commits(server)[0]) == tiny_run.contents(folder)
    assert not [path for _, path in server.requests if "lfs" in path]


KERAS_FILES = ("README.md", "config.json", "metadata.json", WEIGHTS)


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    "theirs",
    [
        ["README.md", "model.safetensors"],
        ["README.md"],
        [FINGERPRINT],
        KERAS_FILES,
        [*packaging.FILES, "thesis.pdf"],
        [*packaging.FILES, "more/log.csv"],
    ],
)
def test_a_repository_of_something_else_is_left_alone(
    folder, server, options, theirs
):
    made = server.push(REPOSITORY, {name: b"mine" for name in theirs})
    registered = registry.PATH.read_bytes()
    with pytest.raises(SystemExit, match=f"with .*{sorted(theirs)[-1]}"):
        run(folder, *options)
    assert commits(server)[0].oid == made
    assert registry.PATH.read_bytes() == registered


def test_what_is_sent_is_what_was_checked(folder, server, monkeypatch):
    before, check = tiny_run.contents(folder), packaging.check

    def check_and_change(copy):
        check(copy)
        edit_weights(folder)
        edit_card(folder)

    monkeypatch.setattr(packaging, "check", check_and_change)
    run(folder)
    assert tiny_run.contents(folder) != before
    assert files_of(commits(server)[0]) == before
    (network,) = registry.read()
    assert network.files == {k: describe(v) for k, v in before.items()}


def test_dry_run(folder, server, capsys):
    run(folder, "--dry-run")
    said = capsys.readouterr().out
    assert "org/net, which would be created" in said
    for name, data in tiny_run.contents(folder).items():
        assert f"send {name}" in said
        assert describe(data)["sha256"] in said
    assert not server.repositories
    run(folder)
    run(folder, "--dry-run")
    assert "up to date" in capsys.readouterr().out


def test_private(folder, server, monkeypatch):
    run(folder, "--private")
    assert server.repositories[REPOSITORY].private
    arguments = families.defaults("DMRNet") | {"depth": 8}
    address = f"hf://{REPOSITORY}"
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="HF_TOKEN"):
        sources.find(address, "DMRNet", arguments)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    source = sources.find(address, "DMRNet", arguments)
    layers = hdf5.read((folder / WEIGHTS).read_bytes())
    np.testing.assert_array_equal(
        source.layers["stem_conv"][0], layers["stem_conv"][0]
    )


def test_private_does_not_go_to_a_public_repository(folder, server):
    server.push(REPOSITORY, {})
    with pytest.raises(SystemExit, match="public already"):
        run(folder, "--private")
    assert len(commits(server)) == 1


def test_a_commit_without_its_tag_is_pinned(folder, server):
    with (
        server.fault("500", "/tag/"),
        pytest.raises(SystemExit, match="Published and pinned, not tagged"),
    ):
        run(folder, "--revision", "v1")
    made = server.repositories[REPOSITORY].head
    assert not server.repositories[REPOSITORY].tags
    (network,) = registry.read()
    assert network.commit == made.oid
    run(folder, "--revision", "v1")
    assert server.repositories[REPOSITORY].tags == {"v1": made.oid}


def test_a_tag_stays_where_it_is(folder, server):
    run(folder, "--revision", "v1")
    made = commits(server)[0]
    assert server.repositories[REPOSITORY].tags == {"v1": made.oid}
    server.push(REPOSITORY, made.files | {"log.csv": b"other"})
    with pytest.raises(SystemExit, match="--revision v1"):
        run(folder, "--revision", "v1")
    assert len(commits(server)) == 3
    run(folder, "--revision", "v2")
    assert server.repositories[REPOSITORY].tags["v1"] == made.oid


@pytest.mark.parametrize("name", packaging.FILES)
def test_an_incomplete_folder(folder, server, name):
    (folder / name).unlink()
    with pytest.raises(SystemExit, match=name):
        run(folder)
    assert not server.requests


def test_a_folder_with_something_else(folder, server):
    (folder / "notes.txt").touch()
    with pytest.raises(SystemExit, match="notes.txt"):
        run(folder)
    assert not server.requests


def edit_weights(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def edit_result(folder):
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"error": 0.1}))


def edit_card(folder):
    with open(folder / "README.md", "a") as file:
        file.write("The best there is.")


def edit_logits(folder):
    path = folder / FINGERPRINT
    record = json.loads(path.read_text())
    record["logits"][0][0] += 0.1
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "edit", [edit_weights, edit_result, edit_card, edit_logits]
)
def test_an_edited_folder(folder, server, edit):
    edit(folder)
    with pytest.raises(SystemExit):
        run(folder)
    assert not server.requests


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("refuse", ""),
        ("401", "/api/repos/create"),
        ("403", "/api/repos/create"),
        ("404", "/preupload/"),
        ("403", "/commit/"),
        ("500", "/commit/"),
        ("hang", "/api/models/"),
        ("short", "/preupload/"),
        ("die", "/commit/"),
        ("deaf", "/commit/"),
        ("hang", "/api/repos/create"),
        ("hang", "/preupload/"),
        ("hang", "/lfs/"),
        ("hang", "/commit/"),
    ],
)
def test_faults(folder, server, monkeypatch, kind, path):
    monkeypatch.setattr(publishing, "PATIENCE", 1)
    files = publishing.contents(folder)
    with server.fault(kind, path):
        with pytest.raises(HubError) as info:
            publishing.publish(files, REPOSITORY, folder.name)
    text = str(info.value)
    for word in (f"Repository: {REPOSITORY}", "Cause: ", "Remedy: "):
        assert word in text
    assert TOKEN not in text
    commit = publishing.publish(files, REPOSITORY, folder.name)
    made, *older = commits(server)
    assert commit == made.oid
    assert files_of(made) == tiny_run.contents(folder)
    assert len(older) == 1


def test_the_command_says_what_is_wrong(folder, server):
    registry.write([])
    with server.fault("refuse"), pytest.raises(SystemExit, match="Remedy: "):
        run(folder)
    assert not registry.read()


def test_somebody_else_publishes_meanwhile(folder, server, monkeypatch):
    run(folder)
    made = commits(server)[0]
    server.push(REPOSITORY, {"theirs.txt": b""})
    stale = publishing.Plan(
        REPOSITORY, made.oid, False, tiny_run.contents(folder)
    )
    monkeypatch.setattr(publishing, "plan", lambda *arguments: stale)
    with pytest.raises(SystemExit, match="in the meantime"):
        run(folder)
    assert files_of(commits(server)[0]) == {"theirs.txt": b""}


def test_from_training_to_a_user_of_the_hub(server, tmp_path, monkeypatch):
    checkout = tiny_run.use_checkout(tmp_path / "checkout", monkeypatch)
    trained = checkout / "runs" / "digits"
    quick = ["--epochs", "1", "--batch-size", "16", "--set", "validation=1181"]
    train.main([*quick, "--quiet", "--run-dir", str(trained)])
    package.main([str(trained)])
    folder = checkout / "weights" / "dmrnet_8_digits"
    run(folder)

    monkeypatch.setattr(sources, "CHECKOUT", tmp_path / "none")
    cache = Path(hub.constants.HF_HUB_CACHE)
    assert not cache.exists()
    model = DMRNet(depth=8, weights="digits", classifier_activation=None)
    assert list(cache.rglob(WEIGHTS))
    published = json.loads((folder / FINGERPRINT).read_text())
    np.testing.assert_allclose(
        fingerprint.logits(model, (8, 8, 1)), published["logits"], atol=1e-5
    )
    images, labels = datasets.load("digits", "test")
    result = json.loads((folder / "result.json").read_text())
    answers = model.predict(images.astype("float32"), verbose=0).argmax(axis=1)
    wrong = int((answers != labels).sum())
    assert wrong == round(3.6 * result["error"])
    (network,) = registry.read()
    assert network.accuracy == pytest.approx(result["accuracy"], abs=1e-3)
