"""What follows an update, and noise on gradients: an element a thread."""

import numpy as np

from ..control_block import RUN_STEP, STEP
from ..cuda.device import cast, flat, flat_index
from ..declare import ceil_div, cuda_kernel
from ..simd import fma, maximum, minimum
from . import cpu_bounds as cpu
from .formulas import deviation, factor_of


def elements_launch(s):
    """A thread for each element."""
    return ceil_div(s["R"] * s["C"], 256), 256


@cuda_kernel(like=cpu.shrink, launch=elements_launch)
def shrink(p, hyper, control, schedule, group, l1):
    i = flat_index()
    if i < p.size and hyper[2] >= 0:
        limit = cast(p, schedule[control[RUN_STEP], group] * l1)
        old = flat(p)[i]
        flat(p)[i] = old - maximum(-limit, minimum(limit, old))


@cuda_kernel(like=cpu.limit_rows, launch=elements_launch)
def limit_rows(p, squares, hyper, limit):
    i = flat_index()
    if i < p.size and hyper[2] >= 0:
        flat(p)[i] = flat(p)[i] * factor_of(squares[i // p.shape[1]], limit)


@cuda_kernel(like=cpu.column_factors, launch=lambda s: (ceil_div(s["C"], 128), 128))
def column_factors(p, factors, limit):
    j = flat_index()
    if j < p.shape[1]:
        total = np.float64(0.0)
        for i in range(p.shape[0]):
            total += np.float64(p[i, j]) * np.float64(p[i, j])
        factors[j] = factor_of(total, limit)


@cuda_kernel(like=cpu.limit_columns, launch=elements_launch)
def limit_columns(p, factors, hyper):
    i = flat_index()
    if i < p.size and hyper[2] >= 0:
        flat(p)[i] = flat(p)[i] * factors[i % p.shape[1]]


@cuda_kernel(like=cpu.add_noise, launch=elements_launch)
def add_noise(g, noise, y, scale, control, eta, every):
    i = flat_index()
    if i < g.size:
        factor = cast(g, 1.0)
        if scale.size > 0:
            factor = scale[0]
        size = cast(g, deviation(eta, control[STEP] // every))
        flat(y)[i] = fma(flat(noise)[i], size, flat(g)[i] * factor)
