"""The CUDA kernel that stands for a program's call."""

from __future__ import annotations

import functools
import importlib
import pkgutil

import fastnn.kernels.cuda as package
from fastnn.errors import ProgramError, where
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS, CudaKernel


@functools.cache
def load_all() -> None:
    """Import all modules of `fastnn.kernels.cuda`, which enters their kernels in the table."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def find(name: str, scope: str = "") -> CudaKernel:
    """The CUDA kernel of this name; an error where there is none."""
    load_all()
    found = CUDA_KERNELS.get(name)
    if found is None:
        raise ProgramError(
            f"{where(scope)}kernel {name!r} has no twin for CUDA; pass one to define_op "
            "(cuda=...), or train with device='cpu'"
        )
    known = KERNELS.get(name)
    if known is not None and list(known.params) != list(found.params):
        raise ProgramError(
            f"{where(scope)}kernel {name!r}: expected its CUDA twin to have the parameters "
            f"{list(known.params)}, got {list(found.params)}"
        )
    return found
