"""Files that other programs run, on whatever backend makes them rightly."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import keras

from keras_resfam._checks import check_choice, check_path
from keras_resfam.graphs.copies import checked

SUFFIXES = {
    ".onnx": "onnx",
    ".pt2": "torch",
    ".tflite": "litert",
    ".xml": "openvino",
    "": "tf_saved_model",
}
# The backends whose exports are right, and what each needs to be installed.
# Keras has more, which fail: SavedModel on PyTorch, ONNX and OpenVINO on JAX.
ROADS = {
    "onnx": {
        "torch": ("torch", "onnx", "onnxscript"),
        "tensorflow": ("tensorflow", "tf2onnx"),
    },
    "torch": {"torch": ("torch",)},
    "litert": {
        "tensorflow": ("tensorflow",),
        "torch": ("torch", "litert_torch"),
    },
    "openvino": {
        "torch": ("torch", "openvino"),
        "tensorflow": ("tensorflow", "openvino"),
    },
    "tf_saved_model": {
        "tensorflow": ("tensorflow",),
        "jax": ("jax", "tensorflow"),
    },
}


def export(model, path, format=None):
    """Writes a model as a file that other programs run.

    As the `export` of Keras's models does, and where the backend at hand does
    not make such files, on another one that is installed: a process of its own
    loads the model there. A batch may be of any size, but in LiteRT's files
    from PyTorch, which take one image.

    Args:
        model: functional or sequential `keras.Model` of one input. What
            `fold_batch_norm` returns runs faster.
        path: str or path. A file of that name is replaced; a folder has to be
            a new one.
        format: `"onnx"`, `"openvino"` (which writes a `.bin` file besides),
            `"litert"`, `"torch"` (for `torch.export.load`) or
            `"tf_saved_model"`, a folder. Defaults to `None`: what the suffix
            of `path` says, `.onnx`, `.xml`, `.tflite`, `.pt2` or none.

    Raises:
        ValueError: If an argument is not allowed.
        ImportError: If what the format needs is not installed.
        RuntimeError: If the export fails; nothing is written then.

    Example:

    ```python
    model = keras_resfam.DMRNet(depth=8, weights="digits")
    fast = keras_resfam.fold_batch_norm(model)
    keras_resfam.export(fast, "dmrnet.onnx")
    ```
    """
    check_path("path", path)
    path = Path(path)
    if format is None:
        check_choice("path.suffix", path.suffix, tuple(SUFFIXES))
        format = SUFFIXES[path.suffix]
    check_choice("format", format, tuple(ROADS))
    suffix = {name: suffix for suffix, name in SUFFIXES.items()}[format]
    taken = path.is_dir() if suffix else path.exists()
    if path.suffix != suffix or taken or not path.parent.is_dir():
        kind = f"a file that ends in '{suffix}'" if suffix else "a new folder"
        raise ValueError(
            f"`path` should be {kind}, in a folder that exists, for the format "
            f"'{format}'. Received: path={path}"
        )
    if len(checked(model).inputs) != 1:
        raise ValueError(
            f"`model` should have one input. Received: model={model.name} with "
            f"inputs={model.inputs}"
        )
    backend = _backend_for(format)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder) / path.name
        if backend == keras.backend.backend():
            _export_here(model, str(target), format)
        else:
            _export_there(model, target, format, backend)
        for part in Path(folder).iterdir():
            shutil.move(part, path.parent / part.name)


def _backend_for(format):
    """The backend to export on: the one at hand, if it can."""
    roads = ROADS[format]
    here = keras.backend.backend()
    missing = {
        backend: [m for m in roads[backend] if not importlib.util.find_spec(m)]
        for backend in sorted(roads, key=lambda name: name != here)
    }
    for backend, modules in missing.items():
        if not modules:
            return backend
    wanted = " or ".join(
        f"{', '.join(modules)} (on {backend})"
        for backend, modules in missing.items()
    )
    raise ImportError(
        f"The format '{format}' needs {wanted}, not installed here."
    )


def _export_here(model, path, format):
    """By Keras's own export."""
    options = {}
    if format == "torch":
        import torch

        options["dynamic_shapes"] = {0: torch.export.Dim.DYNAMIC}
    (image,) = model.inputs
    # Given, so that the model need not have been called.
    signature = [keras.InputSpec(image.dtype, image.shape, name=image.name)]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            model.export(
                path,
                format=format,
                verbose=False,
                input_signature=signature,
                **options,
            )
    except Exception as error:
        raise RuntimeError(
            f"Keras should export {model.name} as '{format}' on "
            f"{keras.backend.backend()}. Received: {error}"
        ) from error


def _export_there(model, path, format, backend):
    """In a process of another backend, which loads the model from a file."""
    with tempfile.TemporaryDirectory() as folder:
        saved = os.path.join(folder, "model.keras")
        model.save(saved)
        code = f"from {__name__} import _main; _main()"
        paths = os.pathsep.join(filter(None, sys.path))
        child = subprocess.run(
            [sys.executable, "-c", code, saved, str(path), format],
            env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )
    if child.returncode:
        lines = child.stderr.strip().splitlines() or ["nothing"]
        raise RuntimeError(
            f"A process with the backend {backend} should export {model.name}. "
            f"Received: {lines[-1]}"
        )


def _main():
    saved, path, format = sys.argv[1:]
    _export_here(keras.saving.load_model(saved, compile=False), path, format)
