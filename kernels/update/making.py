"""Makes the kernels of an optimiser's rules. What is made is the CPU's kernel, by whose signature
programs call it; CUDA's is made of the same parts when somebody asks for it (`shared.MADE`)."""

from .cpu import make_prepare, make_update
from .cpu_rows import make_combine, make_rows

__all__ = ["make_combine", "make_prepare", "make_rows", "make_update"]
