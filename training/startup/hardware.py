"""The machine's processor and accelerator, and a process's memory."""

import ctypes
import pathlib
import platform

CPUINFO = pathlib.Path("/proc/cpuinfo")  # Linux's

# The widest that a processor has is what its speed depends on.
VECTORS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}  # the last is Arm's

# Of glibc's malloc.h: when freed memory is given back to the system, and from
# what size on memory is asked of the system each time.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def processor():
    """The processor's name, and its vector instructions if known."""
    names = read_cpuinfo("model name")
    name = " ".join(names) or platform.processor() or platform.machine()
    flags = instructions()
    for flag, vectors in VECTORS.items():
        if flag in flags:
            bfloat16 = " and bfloat16" if computes_bfloat16() else ""
            return f"{name} with {vectors}{bfloat16}"
    return name


def computes_bfloat16():
    """Whether the processor has bfloat16 instructions; `None`: unknown."""
    flags = instructions()
    return bool(flags & BFLOAT16) if flags else None


def instructions():
    """The processor's sets of instructions, as Linux names them."""
    return set(read_cpuinfo("flags") or read_cpuinfo("Features"))


def read_cpuinfo(key):
    """The words behind a key in Linux's description of the first core."""
    if not CPUINFO.exists():
        return []
    for line in CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.split()
    return []


def keep_freed_memory():
    """Has this process keep the memory that it frees, if its C library can.

    By itself glibc may give the memory of large tensors back to the system,
    depending on where it lies, and the pages of the next ones are faulted in
    again: up to a seventh of a step on PyTorch.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # A library that refuses the first has to do without the second: that
        # alone would have all large tensors mapped anew, each time.
        if libc.mallopt(M_MMAP_THRESHOLD, 2**30):
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def accelerator(backend):
    """The name of the GPU or TPU that a Keras backend computes on, or `None`.

    Imports the backend's library.
    """
    if backend == "torch":
        import torch

        here = torch.cuda.is_available()
        return torch.cuda.get_device_name() if here else None
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    details = tf.config.experimental.get_device_details(gpus[0])
    return details.get("device_name", "GPU")
