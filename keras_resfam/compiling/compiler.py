"""Calls PyTorch's compiler.

PyTorch keeps compiled programs on disk. Several machines may share that folder,
or a container image may contain it, so that another processor runs them.
"""


def compile_for_processor(function, dynamic=None, **options):
    """Compiles a function with `torch.compile` for the current processor.

    PyTorch 2.13 stores a program under a key that includes the options and the
    number of threads, but not the instruction set. A program for a processor
    with wider vectors would be reused on one with narrower vectors, where it
    returns wrong numbers without an error. As an option, the width is in the
    key.

    Args:
        function: callable. The function to compile.
        dynamic: bool. As in `torch.compile`. Defaults to `None`.
        **options: Options of PyTorch's compiler.

    Returns:
        A callable.
    """
    import torch

    width = {"cpp.simdlen": vector_width()}
    return torch.compile(function, dynamic=dynamic, options=width | options)


def vector_width():
    """Returns the width in bits of the vectors that PyTorch's compiler uses.

    It is 0 without vector instructions.
    """
    from torch._inductor import cpu_vec_isa  # there is no public function

    return cpu_vec_isa.pick_vec_isa().bit_width()
