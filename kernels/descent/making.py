"""Makes the kernels of full-batch methods. What is made is the CPU's kernel, by whose signature
programs call it; CUDA's is made of the same source."""

from .cpu import make_descend
from .cpu_hessian_free import kept_iterates
from .cpu_hessian_free import make_step as make_hessian_free_step
from .cpu_marquardt import make_step as make_marquardt_step

__all__ = ["kept_iterates", "make_descend", "make_hessian_free_step", "make_marquardt_step"]
