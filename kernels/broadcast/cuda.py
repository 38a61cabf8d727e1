"""Kernels that combine a matrix with one number a column ("row") or one a row ("column"), PReLU.

A thread computes four neighbouring elements; where a row's length is a multiple of 4, they lie in
one row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arithmetic import add, multiply
from ..cuda.device import (
    block_number,
    block_sum,
    block_threads,
    can_load4,
    cuda,
    divide_index,
    flat,
    flat_index,
    fours_launch,
    load4,
    store4,
    thread_number,
)
from ..declare import KERNELS, CudaKernel, cuda_kernel, helper
from ..reduce.cuda import column_total, columns_launch
from ..simd import fma, where
from . import cpu


@cuda_kernel(like=cpu.full, launch=lambda s: fours_launch(s["N"] * s["C"]))
def full(y, number):
    """y[n,c] = number."""
    i, size = 4 * flat_index(), y.size
    if i + 4 <= size and can_load4(y):
        store4(y, i, number, number, number, number)
    else:
        for k in range(i, min(i + 4, size)):
            flat(y)[k] = number


def with_row(name: str, formula: Callable[..., Any]) -> CudaKernel:
    """The kernel y[n,c] = formula(a[n,c], b[c]); y may be a."""

    def run(a, b, y):
        i, size, width = 4 * flat_index(), a.size, a.shape[1]
        if i >= size:
            return
        c = i - divide_index(i, width) * width
        if width & 3 == 0 and can_load4(a) and can_load4(b) and can_load4(y):
            a0, a1, a2, a3 = load4(a, i)
            b0, b1, b2, b3 = load4(b, c)
            store4(y, i, formula(a0, b0), formula(a1, b1), formula(a2, b2), formula(a3, b3))
            return
        for k in range(i, min(i + 4, size)):
            flat(y)[k] = formula(flat(a)[k], b[c])
            c = c + 1 if c + 1 < width else 0

    made: CudaKernel = cuda_kernel(
        run, like=KERNELS[name], launch=lambda s: fours_launch(s["N"] * s["C"]), name=name
    )
    return made


def with_column(name: str, formula: Callable[..., Any]) -> CudaKernel:
    """The kernel y[n,c] = formula(a[n,c], b[n]); y may be a."""

    def run(a, b, y):
        i, size, width = 4 * flat_index(), a.size, a.shape[1]
        if i >= size:
            return
        row = divide_index(i, width)
        if width & 3 == 0 and can_load4(a) and can_load4(y):
            v = b[row]
            a0, a1, a2, a3 = load4(a, i)
            store4(y, i, formula(a0, v), formula(a1, v), formula(a2, v), formula(a3, v))
            return
        for k in range(i, min(i + 4, size)):
            flat(y)[k] = formula(flat(a)[k], b[divide_index(k, width)])

    made: CudaKernel = cuda_kernel(
        run, like=KERNELS[name], launch=lambda s: fours_launch(s["N"] * s["C"]), name=name
    )
    return made


add_row = with_row("add_row", add)
multiply_row = with_row("multiply_row", multiply)
add_column = with_column("add_column", add)
multiply_column = with_column("multiply_column", multiply)


@helper
def _slope(weight: Any, c: int) -> Any:
    """PReLU's slope of column c: one each, or the same for all."""
    return weight[c] if weight.shape[0] > 1 else weight[0]


@cuda_kernel(like=cpu.prelu_forward, launch=lambda s: fours_launch(s["N"] * s["C"]))
def prelu_forward(x, weight, y):
    i, size, width = 4 * flat_index(), x.size, x.shape[1]
    c = i - divide_index(i, width) * width
    for k in range(i, min(i + 4, size)):
        v = flat(x)[k]
        flat(y)[k] = where(v > 0.0, v, v * _slope(weight, c))
        c = c + 1 if c + 1 < width else 0


@cuda_kernel(like=cpu.prelu_backward_input, launch=lambda s: fours_launch(s["N"] * s["C"]))
def prelu_backward_input(x, weight, dy, dx):
    i, size, width = 4 * flat_index(), x.size, x.shape[1]
    c = i - divide_index(i, width) * width
    for k in range(i, min(i + 4, size)):
        g = flat(dy)[k]
        flat(dx)[k] = where(flat(x)[k] > 0.0, g, g * _slope(weight, c))
        c = c + 1 if c + 1 < width else 0


@helper
def _add_slope_gradient(total: Any, x: Any, dy: Any) -> Any:
    """total + (0 where x > 0, else x*dy)."""
    return fma(where(x > 0.0, 0.0, x), dy, total)


@cuda_kernel(
    like=cpu.prelu_backward_weight_columns, launch=lambda s: columns_launch(s["N"], s["C"])
)
def prelu_backward_weight_columns(x, dy, dweight):
    """dweight[c] = sum over n of x[n,c]*dy[n,c] where x <= 0."""
    N, C = x.shape
    c = block_number() * cuda.blockDim.x + cuda.threadIdx.x
    value = 0.0
    if c < C:
        for n in range(cuda.threadIdx.y, N, cuda.blockDim.y):
            value = _add_slope_gradient(value, x[n, c], dy[n, c])
    value = column_total(x, value)
    if cuda.threadIdx.y == 0 and c < C:
        dweight[c] = value


@cuda_kernel(
    like=cpu.prelu_backward_weight_single,
    launch=lambda s: (1, 1024 if s["N"] * s["C"] > 1024 else 128),
)
def prelu_backward_weight_single(x, dy, dweight):
    """dweight[0] = sum of x*dy where x <= 0, by one block; W is 1."""
    value = 0.0
    for i in range(thread_number(), x.size, block_threads()):
        value = _add_slope_gradient(value, flat(x)[i], flat(dy)[i])
    value = block_sum(value)
    if thread_number() == 0:
        dweight[0] = value
