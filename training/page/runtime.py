"""Downloads onnxruntime-web with npm, verifies and caches it."""

import base64
import hashlib
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

PACKAGE = "onnxruntime-web@1.30.0"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02V"
    "b7QmRMDs1SigqR4CXAfKYQ=="
)
FOLDER = "onnxruntime"  # of a page
# What runs the network on the processor, and what does on a GPU: the module,
# and the binary, which a module of its name loads.
RUNTIMES = {
    "wasm": {
        "module": f"{FOLDER}/ort.wasm.min.mjs",
        "binary": f"{FOLDER}/ort-wasm-simd-threaded.wasm",
    },
    "webgpu": {
        "module": f"{FOLDER}/ort.webgpu.min.mjs",
        "binary": f"{FOLDER}/ort-wasm-simd-threaded.asyncify.wasm",
    },
}


def files():
    """Returns the names of the files that a page needs, in its folder."""
    return [
        name
        for files in RUNTIMES.values()
        for name in (
            files["module"],
            files["binary"],
            files["binary"].removesuffix("wasm") + "mjs",
        )
    ]


def write_runtime(folder):
    """Writes the files of onnxruntime-web that a page needs.

    Args:
        folder: Path of the page, in which `FOLDER` is made.

    Raises:
        ValueError: If npm does not deliver the package, or its hash differs.
    """
    with tarfile.open(package()) as archive:
        (folder / FOLDER).mkdir()
        for name in files():
            inside = name.replace(FOLDER, "package/dist")
            with archive.extractfile(inside) as file:
                (folder / name).write_bytes(file.read())


def package():
    """Returns the path of the package, which is brought if it is not there."""
    path = cache() / (PACKAGE.replace("@", "-") + ".tgz")
    if not path.exists() or integrity(path) != INTEGRITY:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            brought = _pack(folder, path)
            if integrity(brought) != INTEGRITY:
                raise ValueError(
                    f"{PACKAGE} should have the integrity {INTEGRITY}. "
                    f"Received: {integrity(brought)} from npm"
                )
            os.replace(brought, path)
    return path


def _pack(folder, path):
    """Brings the package from npm into a folder.

    Args:
        folder: Path or string.
        path: Path. Where the package is looked for the next time.
    """
    remedy = (
        f"or put the file that `npm pack {PACKAGE}` writes elsewhere at {path}"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            "onnxruntime-web, which runs the network in the browser, is "
            "brought by npm, which is not installed: install Node.js, "
            f"{remedy}."
        )
    command = [npm, "pack", PACKAGE, "--ignore-scripts", "--silent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    files = list(pathlib.Path(folder).glob("*.tgz"))
    if done.returncode or len(files) != 1:
        raise ValueError(
            f"`npm pack {PACKAGE}` should write a file: try again, {remedy}. "
            f"Received: {done.stderr.strip() or done.stdout.strip()}"
        )
    return files[0]


def cache():
    """Returns the user's folder of files that can be had again."""
    folder = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(folder) / "keras_resfam"


def integrity(path):
    """Returns a file's hash as npm writes it."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha512").digest()
    return "sha512-" + base64.b64encode(found).decode()
