"""A wheel, built and installed: it has the small networks with it."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from keras_resfam.pretrained import files, registry, sources

pytestmark = pytest.mark.backend_independent

PROJECT = sources.CHECKOUT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: building writes into the folder of the project."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy)
    step = "training/networks/wheel.py"
    (copy / step).parent.mkdir(parents=True)
    shutil.copy(PROJECT / step, copy / step)
    shutil.copytree(PROJECT / "keras_resfam", copy / "keras_resfam")
    (copy / "weights").symlink_to(PROJECT / "weights")
    build = "import setuptools.build_meta as b; b.build_wheel('dist')"
    subprocess.run(
        [sys.executable, "-c", build],
        cwd=copy,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (path,) = copy.glob("dist/*.whl")
    return path


def test_it_has_the_small_networks(wheel):
    assert wheel.stat().st_size < 40e6
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    carried = {n.split("/")[2] for n in names if "/weights/" in n}
    for name in carried:
        folder = f"keras_resfam/weights/{name}/"
        assert {n for n in names if n.startswith(folder)} == {
            folder + file for file in files.NEEDED
        }
    assert {"dmrnet_8_digits", "dmrnet_56_cifar10_short"} <= carried
    assert carried < {network.name for network in registry.read()}


LOAD = """
import json
import keras_resfam
from keras_resfam.pretrained import fingerprint, sources

assert not (sources.CHECKOUT / "pyproject.toml").exists()
model = keras_resfam.DMRNet(weights="cifar10", classifier_activation=None)
print(json.dumps(fingerprint.logits(model, (32, 32, 3)).tolist()))
try:
    keras_resfam.WideResNet(weights="cifar10")
except keras_resfam.HubError as error:
    print(error)
"""


def test_it_loads_them_without_clone_and_network(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:  # as pip does for pure Python
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    path = [tmp_path / "site", os.environ.get("PYTHONPATH", "")]
    ended = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=tmp_path / "elsewhere",
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "HF_ENDPOINT": "http://127.0.0.1:1",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    logits, *refusal = ended.stdout.splitlines()
    folder = PROJECT / "weights" / "dmrnet_56_cifar10_short"
    published = json.loads((folder / files.FINGERPRINT).read_text())["logits"]
    np.testing.assert_allclose(
        json.loads(logits), published, rtol=1e-4, atol=1e-4
    )
    assert "(73 MB) has not been published" in "\n".join(refusal)
    assert "clone the project" in "\n".join(refusal)
