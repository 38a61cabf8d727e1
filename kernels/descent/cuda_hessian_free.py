"""Hessian-free optimisation on CUDA: the CPU's kernel, by one block (`cuda.py`)."""

from . import cpu_hessian_free as cpu
from . import gauss_newton
from .cuda import SCOPE, of_one_block
from .cuda_vectors import with_scope

_scope = dict(SCOPE)
for _function in (
    gauss_newton.arrive, gauss_newton.is_finite, gauss_newton.want_evaluation,
    gauss_newton.want_product, gauss_newton.stay, cpu.model_at, cpu.keep, cpu.set_out,
    cpu.begin_rounds, cpu.next_round, cpu.end_rounds, cpu.go_back,
):  # fmt: skip
    _scope[_function.__name__] = with_scope(_function, _scope)

hessian_free_step = of_one_block(cpu.make_step(), _scope, gauss_newton.SIZE, __name__)
