"""The kernel for CUDA that stands for a program's call."""

from __future__ import annotations

from fastnn.errors import ProgramError, where
from fastnn.kernels.declare import KERNELS, CudaKernel, declared_for_cuda


def find(name: str, scope: str = "") -> CudaKernel:
    """The CUDA kernel of this name; an error where there is none."""
    found = declared_for_cuda(name)
    if found is None:
        raise ProgramError(
            f"{where(scope)}kernel {name!r} has no counterpart for CUDA; pass one to define_op "
            "(cuda=...), or train with device='cpu'"
        )
    known = KERNELS.get(name)
    if known is not None and list(known.params) != list(found.params):
        raise ProgramError(
            f"{where(scope)}kernel {name!r}: expected its counterpart for CUDA to have the "
            f"parameters {list(known.params)}, got {list(found.params)}"
        )
    return found
