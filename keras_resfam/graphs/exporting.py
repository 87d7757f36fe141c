"""Exports models to formats of other programs, on a backend that can."""

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
# The backends that can export each format, and the packages that they need.
# Other combinations fail: SavedModel on PyTorch, and ONNX and OpenVINO on JAX.
BACKENDS = {
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
    """Exports a model to a file that other programs can run.

    It calls the `export` method of Keras's models. If the current backend
    cannot write the format, a separate process does it with another backend
    that is installed. The exported model takes batches of any size, except for
    LiteRT files that PyTorch writes, which take one image.

    Args:
        model: functional or sequential `keras.Model` with one input. The
            models that `fold_batch_norm` returns run faster.
        path: str or path. An existing file is replaced. A folder must not
            exist yet.
        format: `"onnx"`, `"openvino"` (which also writes a `.bin` file),
            `"litert"`, `"torch"` (for `torch.export.load`) or
            `"tf_saved_model"` (a folder). Defaults to `None`, the format of
            the suffix of `path`: `.onnx`, `.xml`, `.tflite`, `.pt2` or none.

    Raises:
        ValueError: If an argument is invalid.
        ImportError: If a package that the format needs is not installed.
        RuntimeError: If the export fails. Then no file is written.

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
    check_choice("format", format, tuple(BACKENDS))
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
    """Returns the backend to export with: the current one, if it can."""
    needed = BACKENDS[format]
    current = keras.backend.backend()
    missing = {
        backend: [m for m in needed[backend] if not importlib.util.find_spec(m)]
        for backend in sorted(needed, key=lambda name: name != current)
    }
    for backend, modules in missing.items():
        if not modules:
            return backend
    wanted = " or ".join(
        f"{', '.join(modules)} (on {backend})"
        for backend, modules in missing.items()
    )
    raise ImportError(
        f"The format '{format}' needs {wanted}, which is not installed."
    )


def _export_here(model, path, format):
    """Exports a model with the current backend."""
    options = {}
    if format == "torch":
        import torch

        options["dynamic_shapes"] = {0: torch.export.Dim.DYNAMIC}
    (image,) = model.inputs
    # With a signature, a model that was never called can be exported.
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
            f"Keras failed to export {model.name} as '{format}' on "
            f"{keras.backend.backend()}: {error}"
        ) from error


def _export_there(model, path, format, backend):
    """Exports a model in a separate process with another backend."""
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
            f"A process with the backend {backend} failed to export "
            f"{model.name}: {lines[-1]}"
        )


def _main():
    saved, path, format = sys.argv[1:]
    _export_here(keras.saving.load_model(saved, compile=False), path, format)
