"""Files are written completely, or not at all."""

import os
import pathlib

import pytest

from keras_resfam._files import read_json, replacing, write_json

pytestmark = pytest.mark.backend_independent


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_json(path, {"error": 1.5})

    def fill_the_disk(self, text):
        self.write_bytes(text.encode()[:5])
        raise OSError("No space left on device")

    with monkeypatch.context() as context:
        context.setattr(pathlib.Path, "write_text", fill_the_disk)
        with pytest.raises(OSError, match="No space"):
            write_json(path, {"error": 2.5})
    assert read_json(path) == {"error": 1.5}
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.touch()
    link.symlink_to(target)
    write_json(link, [1])
    assert link.is_symlink()
    assert read_json(target) == [1]


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with replacing(tmp_path / "pipe") as path:
        assert path == tmp_path / "pipe"
    assert path.is_fifo()
