"""Hessian-free optimisation on CUDA: the CPU's kernel, by one block (`cuda.py`)."""

from . import cpu_hessian_free as cpu
from . import gauss_newton
from .cuda import ON_VECTORS, of_one_block

hessian_free_step = of_one_block(cpu.make_step(), ON_VECTORS, gauss_newton.SIZE, __name__)
