"""The command that makes a page; tests/training/page/ has the page."""

import pathlib

import keras
import pytest

from keras_resfam.pretrained import sources
from training import demo
from training.page import runtime, site

FOLDER = sources.CHECKOUT / "weights" / "dmrnet_8_digits"
on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch writes the networks"
)


def test_another_backend_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(SystemExit, match="KERAS_BACKEND=jax"):
        demo.main([str(FOLDER), "--out", str(tmp_path / "site")])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_replaced_is_kept(tmp_path, monkeypatch):
    (tmp_path / "old.html").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError), site.new_folder(pathlib.Path(".")):
        pass  # the working folder cannot be moved
    assert [x.name for x in tmp_path.iterdir()] == ["old.html"]


def test_a_folder_is_replaced_by_a_new_one(tmp_path):
    folder = tmp_path / "site"
    for name in ("old.html", "new.html"):
        with site.new_folder(folder) as fresh:
            (fresh / name).touch()
        assert [x.name for x in folder.iterdir()] == [name]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_study_without_records_is_refused(tmp_path):
    (tmp_path / "lesions.csv").touch()
    with pytest.raises(ValueError, match="lesions.csv has no records"):
        site.read_study(tmp_path, {"dataset": "digits"})


@on_torch
def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="--out"):
        demo.main([str(FOLDER), "--out", str(tmp_path)])
    assert [x.name for x in tmp_path.iterdir()] == ["thesis.tex"]


@on_torch
def test_nothing_is_left_of_a_page_that_fails(tmp_path, monkeypatch):
    def fail(folder):
        raise ValueError("no runtime")

    monkeypatch.setattr(runtime, "write_runtime", fail)
    with pytest.raises(SystemExit, match="no runtime"):
        demo.main([str(FOLDER), "--out", str(tmp_path / "site")])
    assert not list(tmp_path.iterdir())
