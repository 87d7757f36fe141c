"""onnxruntime-web, as a page brings it."""

import io
import os
import tarfile

import pytest

from training.page import runtime

pytestmark = pytest.mark.backend_independent


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that gives a package of two bytes a file."""
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in runtime.files():
            inside = name.replace(runtime.FOLDER, "package/dist")
            info = tarfile.TarInfo(inside)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"ab"))
    commands = tmp_path / "bin"
    commands.mkdir()
    npm = commands / "npm"
    npm.write_text(f"#!/bin/sh\ncp {package} given.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "INTEGRITY", runtime.integrity(package))
    return npm


def test_the_runtime_is_brought_once(npm, tmp_path):
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        runtime.write_runtime(folder)
        written = [x for x in folder.rglob("*") if x.is_file()]
        names = {x.relative_to(folder).as_posix() for x in written}
        assert names == set(runtime.files())
        npm.unlink(missing_ok=True)
    (file,) = runtime.cache().iterdir()
    file.write_bytes(b"spoilt")
    npm.write_text("#!/bin/sh\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(ValueError, match="npm pack"):
        runtime.write_runtime(folder)


def test_another_runtime_is_refused(npm, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "INTEGRITY", "sha512-another")
    with pytest.raises(ValueError, match="sha512-another"):
        runtime.write_runtime(tmp_path)
    assert not list(runtime.cache().iterdir())


def test_without_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="install Node.js"):
        runtime.package()
