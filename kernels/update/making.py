"""Makes the kernels of an optimiser's rules. What is made is the CPU's kernel, by whose signature
programs call it; CUDA's is made of the same parts when somebody asks for it (`shared.MADE`)."""

from .cpu import make_prepare, make_update

__all__ = ["make_prepare", "make_update"]
