"""Reads files of named tensors, as PyTorch users publish them.

The safetensors library reads `.safetensors` files, and checks their headers.
A `.pth`, `.pt` or `.bin` file is a pickle. torch reads it with
`weights_only=True`, so that no code in it is run.
"""

import io
import json

import numpy as np

SAFETENSORS = ".safetensors"

PICKLES = (".pth", ".pt", ".bin")

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # NumPy has no bfloat16, the upper half of a float32
    "I64": "<i8",  # counts of batches
    "I32": "<i4",
}

_WRAPPERS = ("state_dict", "model", "net")
"""The keys of the tensors in files that also hold other objects."""


def read(name, contents):
    """Reads the tensors of a file.

    Args:
        name: str. The file's name. Its suffix determines the format.
        contents: bytes. The contents of the file.

    Returns:
        A dict from names to arrays.

    Raises:
        ValueError: If the file is damaged, or has another format.
        ImportError: If torch is needed to read it, and is not installed.
    """
    if name.endswith(SAFETENSORS):
        return _read_safetensors(contents)
    return _read_pickle(contents)


def _read_safetensors(contents):
    import safetensors  # rarely needed

    try:
        tensors = safetensors.deserialize(contents)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"It is damaged, or not a safetensors file: {error}."
        ) from error
    size = int.from_bytes(contents[:8], "little")
    json.loads(contents[8 : 8 + size], object_pairs_hook=_unique)
    return {name: _array(name, **tensor) for name, tensor in tensors}


def _unique(pairs):
    """Returns a JSON object, after checking that its names are unique.

    The library takes the last of several tensors of one name.
    """
    found = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"Its header has the name '{name}' twice.")
        found[name] = value
    return found


def _array(name, dtype, shape, data):
    if dtype not in _TYPES:
        raise ValueError(
            f"Its tensors should have the types {', '.join(_TYPES)}, but "
            f"'{name}' has {dtype}."
        )
    array = np.frombuffer(data, _TYPES[dtype]).reshape(shape)
    if dtype == "BF16":
        return (array.astype("uint32") << 16).view("float32")
    return array


def _read_pickle(contents):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "torch is needed to read weights that PyTorch pickled, but is not "
            "installed: `pip install torch`. It is not needed for "
            ".safetensors files."
        ) from error

    try:
        state = torch.load(
            io.BytesIO(contents), map_location="cpu", weights_only=True
        )
    except Exception as error:  # of torch, zipfile and pickle
        cause = str(error).strip().partition("\n")[0]
        raise ValueError(
            "torch cannot read tensors from it without running code that a "
            f"pickle may hold (`weights_only=True`): {cause}"
        ) from error
    state = _unwrapped(state)
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(
                "It should hold a dict of named tensors, which may be under "
                f"{' or '.join(map(repr, _WRAPPERS))}, but {name!r} is a "
                f"{type(tensor).__name__}."
            )
    return {name: _from_torch(name, tensor) for name, tensor in state.items()}


def _unwrapped(state):
    if not isinstance(state, dict):
        raise ValueError(
            "It should hold a dict of named tensors, but holds a "
            f"{type(state).__name__}."
        )
    for wrapper in _WRAPPERS:
        if isinstance(state.get(wrapper), dict):
            return state[wrapper]
    return state


def _from_torch(name, tensor):
    import torch

    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized or 8 bits
        raise ValueError(
            f"NumPy cannot hold the tensor '{name}': {error}"
        ) from error
