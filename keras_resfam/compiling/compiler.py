"""The one way to PyTorch's compiler.

PyTorch keeps what it compiles on disk. A folder of such programs may be shared
by machines, or travel with a container's image, to another processor.
"""


def compile_for_processor(function, dynamic=None, **options):
    """Compiles by `torch.compile`, for the processor at hand.

    The key under which PyTorch 2.13 keeps a program holds the options and the
    number of threads, but not the instruction set. Of a processor with wider
    vectors, a program would be compiled anew for narrower ones, in which it
    puts other numbers in silence. As an option, the width is in the key.

    Args:
        function: callable.
        dynamic: bool. As in `torch.compile`.
        **options: options of PyTorch's compiler, its default backend.
    """
    import torch

    width = {"cpp.simdlen": vector_width()}
    return torch.compile(function, dynamic=dynamic, options=width | options)


def vector_width():
    """The bits of a vector that PyTorch's compiler would choose, or 0."""
    from torch._inductor import cpu_vec_isa  # no public name tells

    return cpu_vec_isa.pick_vec_isa().bit_width()
