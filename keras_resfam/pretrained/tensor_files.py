"""Files of tensors by name, as PyTorch's users publish them.

A `.safetensors` file is read by its library, which checks the header against
the file. A `.pth`, `.pt` or `.bin` file is a pickle: torch reads it with
`weights_only=True`, so that nothing in it is run.
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
    "BF16": "<u2",  # the upper half of a float32, of which NumPy has no type
    "I64": "<i8",  # counts of batches
    "I32": "<i4",
}

_WRAPPERS = ("state_dict", "model", "net")
"""Under which the tensors are where a file holds more than them."""


def read(name, contents):
    """Reads the tensors of a file.

    Args:
        name: str. The file's name, whose suffix tells of which kind it is.
        contents: bytes.

    Returns:
        A dict from names to arrays.

    Raises:
        ValueError: If the file is damaged, or not of the kind.
        ImportError: If it takes torch to read it, which is not installed.
    """
    if name.endswith(SAFETENSORS):
        return _read_safetensors(contents)
    return _read_pickle(contents)


def _read_safetensors(contents):
    import safetensors  # seldom needed

    try:
        tensors = safetensors.deserialize(contents)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"It is damaged, or no file of safetensors: {error}."
        ) from error
    size = int.from_bytes(contents[:8], "little")
    json.loads(contents[8 : 8 + size], object_pairs_hook=_unique)
    return {name: _array(name, **tensor) for name, tensor in tensors}


def _unique(pairs):
    """An object of JSON, in which the library takes the last of one name."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Its header has the name '{name}' twice.")
    return dict(pairs)


def _array(name, dtype, shape, data):
    if dtype not in _TYPES:
        raise ValueError(
            f"Its tensors should be of the types {', '.join(_TYPES)}; "
            f"'{name}' is of {dtype}."
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
            "torch is needed to read weights that PyTorch pickled, and is not "
            "installed: `pip install torch`. Files of safetensors need none."
        ) from error

    try:
        state = torch.load(
            io.BytesIO(contents), map_location="cpu", weights_only=True
        )
    except Exception as error:  # torch's, zipfile's and pickle's own kinds
        cause = str(error).strip().partition("\n")[0]
        raise ValueError(
            "torch finds no tensors in it that can be read without running "
            f"what a pickle may hold (`weights_only=True`): {cause}"
        ) from error
    state = _unwrapped(state)
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(
                "It should hold tensors by name, or a dict of them as "
                f"{' or '.join(map(repr, _WRAPPERS))}; {name!r} is a "
                f"{type(tensor).__name__}."
            )
    return {name: _from_torch(tensor) for name, tensor in state.items()}


def _unwrapped(state):
    if not isinstance(state, dict):
        raise ValueError(
            "It should hold tensors by name, and holds a "
            f"{type(state).__name__}."
        )
    for wrapper in _WRAPPERS:
        if isinstance(state.get(wrapper), dict):
            return state[wrapper]
    return state


def _from_torch(tensor):
    import torch

    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.detach().numpy()
