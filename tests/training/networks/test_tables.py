"""The documents' tables are those of the folders."""

import dataclasses
import json
import re
import shutil

import pytest

from keras_resfam.pretrained import registry, sources
from training import package
from training.networks import tables

pytestmark = pytest.mark.backend_independent

TEXTS = {
    document: (sources.CHECKOUT / document).read_text()
    for document in tables.TABLES
}


@pytest.mark.parametrize("document", TEXTS)
def test_no_table_is_stale(document):
    """If one is, `python training/package.py --table` writes it anew."""
    assert tables.render(document, TEXTS[document]) == TEXTS[document]


def test_figures_are_written_and_words_are_kept():
    text = TEXTS["README.md"]
    damaged = text.replace("| 5.96 % | 9.69 % | 50 /", "| 1 % | 2 % | 3 /")
    assert damaged != text
    assert tables.render("README.md", damaged) == text


@pytest.fixture
def another(tmp_path, monkeypatch):
    """A checkout with one more network, of SVHN."""
    name = "dmrnet_14_svhn_short"
    known = {n.name: n for n in registry.read()}
    for folder in sources.CHECKOUT.glob("weights/*/"):
        (tmp_path / "weights" / folder.name).mkdir(parents=True)
        for file in (
            "recipe.json",
            "result.json",
            "log.csv",
            "fingerprint.json",
        ):
            shutil.copy(
                folder / file, tmp_path / "weights" / folder.name / file
            )
    old = tmp_path / "weights" / "dmrnet_14_cifar10_short"
    new = shutil.copytree(old, old.with_name(name))
    for file, changes in (
        (
            "recipe.json",
            {"name": name, "error": 2.0, "dataset": "svhn_cropped"},
        ),
        ("result.json", {"error": 1.5}),
    ):
        contents = json.loads((new / file).read_text())
        (new / file).write_text(json.dumps(contents | changes))
    for document, text in TEXTS.items():
        (tmp_path / document).write_text(text)
    network = dataclasses.replace(
        known["dmrnet_14_cifar10_short"],
        name=name,
        dataset="svhn_cropped",
    )
    monkeypatch.setattr(sources, "CHECKOUT", tmp_path)
    monkeypatch.setattr(registry, "PATH", tmp_path / "registry.json")
    registry.write([*known.values(), network])
    return tmp_path


def test_a_network_that_is_new_comes_last(another, capsys):
    package.main(["--table"])
    assert capsys.readouterr().out.split() == ["README.md", "weights/README.md"]
    row = (
        '| [`DMRNet(depth=14, weights="svhn_cropped")`]'
        "(weights/dmrnet_14_svhn_short) | 349,402 | 2.00 % | **1.50 %** "
        "| 80 / 400 |\n\n"
    )
    written = (another / "README.md").read_text()
    assert row in written
    assert written.replace(row, "\n") == TEXTS["README.md"]
    row = (
        "| [dmrnet_14_svhn_short](dmrnet_14_svhn_short) | "
        "`dmrnet_14_svhn_short` | 97.5 % | 104 min | "
        "[log](dmrnet_14_svhn_short/log.csv) |\n\n"
    )
    found = (another / "weights" / "README.md").read_text()
    assert re.sub(r"\d+ min", "104 min", row) in re.sub(
        r"97.5 % \| \d+ min", "97.5 % | 104 min", found
    )
    package.main(["--table"])
    assert capsys.readouterr().out.split() == []


@pytest.mark.parametrize("other", ["](x/", "| ](weights/wrn_16"])
def test_a_row_of_another_form(other):
    text = TEXTS["README.md"].replace("](weights/wrn_16", other)
    with pytest.raises(ValueError, match="should have 5 cells and a link"):
        tables.render("README.md", text)


def test_a_document_without_its_table():
    with pytest.raises(ValueError, match="README.md should have a table"):
        tables.render("README.md", "# A title\n")


def test_neither_a_run_nor_the_tables():
    with pytest.raises(SystemExit, match="folder of a run, or `--table`"):
        package.main([])
