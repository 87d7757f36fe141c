"""Reads the arrays of a `.weights.h5` file by the names of the layers.

HDF5's C library trusts what it reads. One flipped bit in the structure of a
file can crash the process, and a file of a few kilobytes can declare arrays of
gigabytes. A file is therefore read in this process only if its SHA-256 is in
the registry. Any other file is read in a separate process with limits on its
memory and time, which runs this module as a script. If that process crashes,
an error is raised here. (To check the structure without the library would take
a second reader of the whole format. Safetensors would be safer, but plain
Keras loads published networks from `.weights.h5` files.)

In both cases, the names, types, shapes and storage of all arrays are checked
before any values are read. Keras writes each array contiguous and uncompressed,
so all arrays together are no larger than the file. Larger ones are refused.

This module does not import keras_resfam or Keras, so that the script starts
quickly.
"""

import io
import json
import os
import signal
import subprocess
import sys

import h5py
import numpy as np

MOST_LAYERS = 20_000
_MOST_VARIABLES = 16  # of a layer; Keras's own have up to 5
_LONGEST_NAME = 1000
_FLOATS = "float16", "float32", "float64"

# The limits of the process that reads a file.
_MEMORY = 2**29  # bytes, in addition to a few copies of the file
_TIME = 60  # seconds


def read(contents, expected=None):
    """Reads a trusted file in this process.

    Args:
        contents: bytes. The contents of the file.
        expected: dict from layer names to lists of `[type, shape]`, one for
            each array that the file should have. Defaults to `None`, which
            accepts all arrays.

    Returns:
        A dict from layer names to lists of arrays.

    Raises:
        ValueError: If the file lacks the names of layers, stores arrays in
            another way than Keras, or has other arrays than `expected`.
        OSError, RuntimeError: If the file is damaged. `ERRORS` lists all types
            of errors that h5py may raise.
    """
    with h5py.File(io.BytesIO(contents), "r") as file:
        entries = _find(file, len(contents))
        _check(_layout(entries), expected)
        return {
            layer: [_widened(dtype, entry[()]) for dtype, entry in own]
            for layer, own in entries.items()
        }


def read_apart(contents, expected=None):
    """Reads an untrusted file in a separate process.

    The arguments and the result are those of `read`.

    Raises:
        ValueError: If the file cannot be read.
    """
    try:
        process = subprocess.run(
            # -P keeps the folder of this file off the path, because modules in
            # it have common names. -S saves the time to set up the paths of
            # installed packages, which PYTHONPATH passes on.
            [sys.executable, "-P", "-S", __file__],
            input=json.dumps(expected).encode() + b"\n" + contents,
            capture_output=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "OPENBLAS_NUM_THREADS": "1",  # more threads need more memory
            },
            timeout=5 * _TIME,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("The file takes too long to read.") from error
    head, _, values = process.stdout.partition(b"\n")
    if process.returncode or not head:
        raise ValueError(
            "The structure of the file is damaged, or reading it takes too "
            f"much memory or time: {_exit_reason(process)}."
        )
    answer = json.loads(head)
    if "error" in answer:
        raise ValueError(answer["error"])
    return _unpack(answer["layers"], bytearray(values))


def _exit_reason(process):
    """Says how the process that should have read a file has ended."""
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return f"the process that read it was ended by {name}"
    last = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"the process that read it ended with {last or process.returncode}"


def _unpack(layout, values):
    """Returns the arrays whose bytes the separate process has sent."""
    layers, start = {}, 0
    for layer, variables in layout.items():
        layers[layer] = []
        for dtype, shape in variables:
            stored = np.dtype("uint16" if dtype == "bfloat16" else dtype)
            count = int(np.prod(shape))
            array = np.frombuffer(values, stored, count, start).reshape(shape)
            layers[layer].append(_widened(dtype, array))
            start += array.nbytes
    return layers


def _widened(dtype, array):
    """Converts bfloat16, which NumPy lacks, to float32; keeps other types."""
    if dtype != "bfloat16":
        return array
    return (array.view("uint16").astype("uint32") << 16).view("float32")


def _find(file, size):
    """Finds a file's arrays, and checks how they are stored.

    Args:
        file: `h5py.File`.
        size: int. The size of the file in bytes.

    Returns:
        A dict from layer names to lists of pairs, the name of the type and
        the `h5py.Dataset`.
    """
    found, total = {}, 0
    layers = _group(file, "layers", MOST_LAYERS)
    for part in layers:
        group = _group(
            _group(layers, part, MOST_LAYERS), "vars", _MOST_VARIABLES
        )
        if not len(group):
            continue
        name = _text(group, "name")
        if name is None:
            raise ValueError(
                "The file does not have the names of its layers. Save it again "
                "with Keras 3.15 or newer."
            )
        if name in found:
            raise ValueError(f"The file has two layers '{name}'.")
        found[name] = [_array(group, key) for key in sorted(group, key=int)]
        total += sum(entry.nbytes for _, entry in found[name])
        if total > size:
            raise ValueError(
                f"The file has {size:,} bytes, but its arrays have more. They "
                "are not in the file, or share their bytes."
            )
    return found


def _layout(entries):
    return {
        layer: [[dtype, list(entry.shape)] for dtype, entry in own]
        for layer, own in entries.items()
    }


def _check(found, expected):
    """Checks the types, shapes and names of arrays."""
    if expected is None:
        return
    for layer in [*expected, *found]:
        ours, theirs = expected.get(layer), found.get(layer)
        if ours != theirs:
            raise ValueError(
                f"Layer '{layer}' should have the arrays {ours}. "
                f"Received: {theirs}"
            )


def _member(group, name):
    """Returns a member of a group, after checking that it is not a link."""
    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError(
            f"'{name}' is not in '{group.name}': Keras has not written this "
            "file as a '.weights.h5'."
        )
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"'{name}' in '{group.name}' is a link.")
    return group[name]


def _group(parent, name, most):
    group = _member(parent, name)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"'{group.name}' is not a group.")
    if len(group) > most:
        raise ValueError(
            f"'{group.name}' should have at most {most:,} members. "
            f"Received: {len(group):,}"
        )
    return group


def _array(group, key):
    """Returns the type's name and the dataset of an array, after checks.

    HDF5 has no bfloat16. Keras stores the name of the type as an attribute.
    """
    entry = _member(group, key)
    if not isinstance(entry, h5py.Dataset) or entry.shape is None:
        raise ValueError(f"'{entry.name}' is not an array.")
    dtype = entry.dtype.name
    if entry.dtype.itemsize == 2 and _text(entry, "dtype") == "bfloat16":
        dtype = "bfloat16"
    elif dtype not in _FLOATS:
        raise ValueError(
            f"The values of '{entry.name}' should have the type "
            f"{', '.join(_FLOATS)} or bfloat16. Received: {dtype}"
        )
    whole = entry.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
    if (
        not whole
        or entry.external
        or entry.id.get_storage_size() != entry.nbytes
    ):
        raise ValueError(
            f"The values of '{entry.name}' should be in the file, contiguous "
            "and uncompressed, as Keras writes them."
        )
    return dtype, entry


def _text(entry, name):
    """Returns an attribute that is a short string, or `None`."""
    if name not in entry.attrs:
        return None
    attribute = entry.attrs.get_id(name)
    kind = h5py.check_string_dtype(attribute.dtype)
    if attribute.shape != () or kind is None:
        return None
    text = entry.attrs[name]
    return (
        text if isinstance(text, str) and len(text) <= _LONGEST_NAME else None
    )


def _limit(size):
    """Limits the memory and time of this process, if the system can.

    Args:
        size: int. The size of the file that it reads, in bytes.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in (
        (resource.RLIMIT_DATA, _MEMORY + 4 * size),
        (resource.RLIMIT_CPU, _TIME),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(kind)
        if most == resource.RLIM_INFINITY or limit < most:
            resource.setrlimit(kind, (limit, most))


def main():
    """Reads a file from standard input, and writes its arrays to the output."""
    expected = json.loads(sys.stdin.buffer.readline())
    contents = sys.stdin.buffer.read()
    _limit(len(contents))
    out = sys.stdout.buffer
    try:
        with h5py.File(io.BytesIO(contents), "r") as file:
            entries = _find(file, len(contents))
            layout = _layout(entries)
            _check(layout, expected)
            arrays = [e[()] for own in entries.values() for _, e in own]
    except ERRORS as error:
        out.write(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    out.write(json.dumps({"layers": layout}).encode() + b"\n")
    for array in arrays:
        native = array.dtype.newbyteorder("=")
        out.write(array.astype(native, copy=False).tobytes())


# The errors that h5py raises for damaged files, and those raised here.
ERRORS = (
    *(ValueError, TypeError, OSError, RuntimeError),
    *(AttributeError, LookupError, MemoryError),
)

if __name__ == "__main__":
    main()
