"""Arrays of a `.weights.h5` file, by the layer names that Keras notes in it.

HDF5's C library trusts what it reads: one flipped bit in a file's structure
can end the process, and a few kilobytes can name gigabytes. So a file is read
here only if it is one of our own, to the bit: its SHA-256 is pinned in the
registry. Any other is read in a process of its own, which is this very file
run as a script, with limits on its memory and time. If it crashes, that is an
error here and no more. (A check of the structure before the library sees it
would be a second reader of the whole format; and `.weights.h5`, not
safetensors, is what plain Keras opens of a published network.)

Either way the names, types, shapes and storage of all arrays are checked
before a byte of any is read. Keras writes each array whole, uncompressed, so
that together they are no larger than the file: nothing larger is read.

This file imports nothing of keras_resfam or Keras, to start within a moment.
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

# Of the process that reads, beside a few copies of the file: bytes, seconds.
MEMORY = 2**29
_TIME = 60


def read(contents, expected=None):
    """Reads a file that is trusted.

    Args:
        contents: bytes of the file.
        expected: dict from layer names to lists of `[type, shape]`, one for
            each array. Defaults to `None`, whatever the file has.

    Returns:
        A dict from layer names to lists of arrays.

    Raises:
        ValueError: If the file has no names, arrays that are not written as
            Keras writes them, or others than are expected.
        OSError, RuntimeError: and what else h5py raises of a damaged file.
    """
    with h5py.File(io.BytesIO(contents), "r") as file:
        entries = _find(file, len(contents))
        _check(_layout(entries), expected)
        return {
            layer: [_widened(dtype, entry[()]) for dtype, entry in own]
            for layer, own in entries.items()
        }


def read_apart(contents, expected=None):
    """Reads a file that is not trusted, in a process of its own.

    Takes and returns what `read` does.

    Raises:
        ValueError: If it cannot be read so.
    """
    try:
        process = subprocess.run(
            # -P: the folder of this file has modules of common names. -S: the
            # paths of installed packages are passed on instead of sought.
            [sys.executable, "-P", "-S", __file__],
            input=json.dumps(expected).encode() + b"\n" + contents,
            capture_output=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "OPENBLAS_NUM_THREADS": "1",  # or its threads take the memory
            },
            timeout=5 * _TIME,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("The file takes too long to read.") from error
    head, _, values = process.stdout.partition(b"\n")
    if process.returncode or not head:
        raise ValueError(
            "The file's structure is damaged, or asks for more memory or time "
            f"than it is worth: {_ending(process)}."
        )
    told = json.loads(head)
    if "error" in told:
        raise ValueError(told["error"])
    return _unpack(told["layers"], bytearray(values))


def _ending(process):
    """How a process has ended that should have read a file."""
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return f"the process that read it was ended by {name}"
    last = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"the process that read it ended with {last or process.returncode}"


def _unpack(layout, values):
    """Arrays of what a process has sent of them."""
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
    """An array as it is, but of bfloat16 as float32, of the same values."""
    if dtype != "bfloat16":
        return array
    return (array.view("uint16").astype("uint32") << 16).view("float32")


def _find(file, size):
    """Finds a file's arrays, and checks how they are stored.

    Args:
        file: `h5py.File`.
        size: int. The file's bytes.

    Returns:
        A dict from layer names to lists of pairs, the type's name and
        `h5py.Dataset`.
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
                "The file does not tell its layers' names. Save it again with "
                "Keras 3.15 or newer."
            )
        if name in found:
            raise ValueError(f"There are two layers '{name}' in the file.")
        found[name] = [_array(group, key) for key in sorted(group, key=int)]
        total += sum(entry.nbytes for _, entry in found[name])
        if total > size:
            raise ValueError(
                f"The file has {size:,} bytes, and its arrays take more: they "
                "are not in the file, or several times."
            )
    return found


def _layout(entries):
    return {
        layer: [[dtype, list(entry.shape)] for dtype, entry in own]
        for layer, own in entries.items()
    }


def _check(found, expected):
    """Checks types, shapes and names of arrays."""
    if expected is None:
        return
    for layer in [*expected, *found]:
        ours, theirs = expected.get(layer), found.get(layer)
        if ours != theirs:
            raise ValueError(
                f"Layer '{layer}' should have the arrays {ours}. "
                f"Received: {theirs}"
            )


def _own(group, name):
    """A part of a file which is not a link to elsewhere."""
    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError(
            f"'{name}' is not in '{group.name}': the file is no '.weights.h5' "
            "of Keras."
        )
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"'{name}' in '{group.name}' is a link.")
    return group[name]


def _group(parent, name, most):
    group = _own(parent, name)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"'{group.name}' is no group of the file.")
    if len(group) > most:
        raise ValueError(
            f"'{group.name}' should have at most {most:,} parts. "
            f"Received: {len(group):,}"
        )
    return group


def _array(group, key):
    """The type's name and the entry of an array that lies in the file whole.

    HDF5 knows no bfloat16: Keras notes the name.
    """
    entry = _own(group, key)
    if not isinstance(entry, h5py.Dataset) or entry.shape is None:
        raise ValueError(f"'{entry.name}' is no array of the file.")
    dtype = entry.dtype.name
    if entry.dtype.itemsize == 2 and _text(entry, "dtype") == "bfloat16":
        dtype = "bfloat16"
    elif dtype not in _FLOATS:
        raise ValueError(
            f"The values of '{entry.name}' should be of the type "
            f"{', '.join(_FLOATS)} or bfloat16. Received: {dtype}"
        )
    whole = entry.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
    if (
        not whole
        or entry.external
        or entry.id.get_storage_size() != entry.nbytes
    ):
        raise ValueError(
            f"The values of '{entry.name}' are not in the file as Keras writes "
            "them, whole and uncompressed."
        )
    return dtype, entry


def _text(entry, name):
    """An attribute that is a short text, or `None`."""
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
    """Limits this process, where the system can, for a file of some size."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in (
        (resource.RLIMIT_DATA, MEMORY + 4 * size),
        (resource.RLIMIT_CPU, _TIME),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(kind)
        if most == resource.RLIM_INFINITY or limit < most:
            resource.setrlimit(kind, (limit, most))


def main():
    """Reads a file from the standard input, and writes its arrays."""
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


# What h5py raises of damaged files, and what is raised here.
ERRORS = (
    *(ValueError, TypeError, OSError, RuntimeError),
    *(AttributeError, LookupError, MemoryError),
)

if __name__ == "__main__":
    main()
