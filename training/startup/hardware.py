"""The machine's processor and accelerator, and a process's memory."""

import ctypes
import pathlib
import platform

CPUINFO = pathlib.Path("/proc/cpuinfo")  # Linux's

# The speed of a processor depends on its widest vectors.
VECTORS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}  # the last is Arm's

# From glibc's malloc.h: the amount of free memory above which it is returned to
# the system, and the size from which each allocation asks the system.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def processor():
    """Returns the processor's name, and its vector instructions if known."""
    names = read_cpuinfo("model name")
    name = " ".join(names) or platform.processor() or platform.machine()
    flags = instructions()
    for flag, vectors in VECTORS.items():
        if flag in flags:
            bfloat16 = " and bfloat16" if computes_bfloat16() else ""
            return f"{name} with {vectors}{bfloat16}"
    return name


def computes_bfloat16():
    """Returns whether the processor has bfloat16 instructions, if known."""
    flags = instructions()
    return bool(flags & BFLOAT16) if flags else None


def instructions():
    """Returns the processor's sets of instructions, as Linux names them."""
    return set(read_cpuinfo("flags") or read_cpuinfo("Features"))


def read_cpuinfo(key):
    """Returns the value of a key for the first core in `/proc/cpuinfo`."""
    if not CPUINFO.exists():
        return []
    for line in CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.split()
    return []


def keep_freed_memory():
    """Makes this process keep the memory that it frees, if it uses glibc.

    By default, glibc may return the memory of large tensors to the system. The
    page faults of the next tensors then take up to a seventh of a step on
    PyTorch.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # The second setting alone would make things worse: each large tensor
        # would be mapped again.
        if libc.mallopt(M_MMAP_THRESHOLD, 2**30):
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def accelerator(backend):
    """Returns the name of the GPU or TPU that a backend uses, or `None`.

    It imports the backend.
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
