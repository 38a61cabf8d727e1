"""Layer normalisation (over a row) and batch normalisation (over a column) on CUDA.

N rows, C columns; G and B are C, or 0 where there is no gain or no bias. Variances are taken in two
passes (mean first), so that a large mean costs no digits.
Sources: Ba, Kiros and Hinton 2016 (layer), Ioffe and Szegedy 2015 (batch); PyTorch's conventions.

A row is read again from the L1 cache, where it has just been. Batch normalisation is one launch
each way: a block has 8 or 32 neighbouring columns and all of their rows, so nothing is handed from
block to block.
"""

from __future__ import annotations

from typing import Any

from ..cuda.device import block_number, cast, cuda, divide_index, flat, flat_index
from ..cuda.rows import row_place, row_sum, rows_launch
from ..declare import ceil_div, cuda_kernel, helper
from ..reduce.cuda import column_total, columns_launch
from ..simd import fma, sqrt
from . import cpu, cpu_batch

BY_ROWS = {"launch": rows_launch, "bounds": 1024}
BY_COLUMNS = {"launch": lambda s: columns_launch(s["N"], s["C"]), "bounds": 1024}
BY_ELEMENTS = {"launch": lambda s: (ceil_div(s["N"] * s["C"], 256), 256)}

# ---------------------------------------------------------------- layer normalisation


@helper
def factor(gain: Any, j: int) -> Any:
    """The gain of column `j`, 1 where there is none."""
    return gain[j] if gain.shape[0] > 0 else 1.0


@cuda_kernel(like=cpu.layer_norm_forward, **BY_ROWS)
def layer_norm_forward(x, gain, bias, y, mean, rstd, eps):
    N, C = x.shape
    narrow, row, first, step, size, _ = row_place(N, C)
    base, v, out = row * C, flat(x), flat(y)
    total, squares = 0.0, 0.0
    j = first
    while j < size:
        total += v[base + j]
        j += step
    m = row_sum(total, narrow) / cast(x, C)
    j = first
    while j < size:
        d = v[base + j] - m
        squares = fma(d, d, squares)
        j += step
    r = 1.0 / sqrt(row_sum(squares, narrow) / cast(x, C) + eps)
    if first == 0 and row < N:
        mean[row] = m
        rstd[row] = r
    B = bias.shape[0]
    j = first
    while j < size:
        value = (v[base + j] - m) * r * factor(gain, j)
        out[base + j] = value + bias[j] if B > 0 else value
        j += step


@cuda_kernel(like=cpu.layer_norm_backward_input, **BY_ROWS)
def layer_norm_backward_input(x, gain, mean, rstd, dy, dx):
    N, C = x.shape
    narrow, row, first, step, size, _ = row_place(N, C)
    base, v, slope, out = row * C, flat(x), flat(dy), flat(dx)
    m, r = 0.0, 0.0
    if row < N:
        m, r = mean[row], rstd[row]
    sum_g, sum_gn = 0.0, 0.0
    j = first
    while j < size:
        g = slope[base + j] * factor(gain, j)
        sum_g += g
        sum_gn = fma(g, (v[base + j] - m) * r, sum_gn)
        j += step
    mean_g = row_sum(sum_g, narrow) / cast(x, C)
    mean_gn = row_sum(sum_gn, narrow) / cast(x, C)
    j = first
    while j < size:
        g = slope[base + j] * factor(gain, j)
        n = (v[base + j] - m) * r
        out[base + j] = (g - mean_g - n * mean_gn) * r
        j += step


@cuda_kernel(like=cpu.layer_norm_backward_gain, **BY_COLUMNS)
def layer_norm_backward_gain(x, mean, rstd, dy, dgain):
    N, C = x.shape
    c, n, step = column_place()
    total = 0.0
    if c < C:
        while n < N:
            total = fma(dy[n, c], (x[n, c] - mean[n]) * rstd[n], total)
            n += step
    total = column_total(x, total)
    if cuda.threadIdx.y == 0 and c < C:
        dgain[c] = total


# ---------------------------------------------------------------- batch normalisation


@helper
def column_place() -> tuple:
    """The thread's column, its first row and the distance to its next."""
    column = block_number() * int(cuda.blockDim.x) + int(cuda.threadIdx.x)
    return column, int(cuda.threadIdx.y), int(cuda.blockDim.y)


@helper
def column_sum(x: Any, value: Any) -> Any:
    """The sum of the values of all threads of a column, for each of them."""
    every = cuda.shared.array(32, x.dtype)
    total = column_total(x, value)
    if cuda.threadIdx.y == 0:
        every[cuda.threadIdx.x] = total
    cuda.syncthreads()
    total = every[cuda.threadIdx.x]
    cuda.syncthreads()  # the array may be used again
    return total


@helper
def follow(running: Any, c: int, value: Any, momentum: Any) -> None:
    """running = (1 - momentum) running + momentum value."""
    running[c] = running[c] * (1.0 - momentum) + value * momentum


@cuda_kernel(like=cpu_batch.batch_norm_forward, **BY_COLUMNS)
def batch_norm_forward(x, gain, bias, running_mean, running_var, y, mean, rstd, eps, momentum):
    N, C = x.shape
    c, first, step = column_place()
    rows = N if c < C else 0
    total, squares = 0.0, 0.0
    n = first
    while n < rows:
        total += x[n, c]
        n += step
    m = column_sum(x, total) / cast(x, N)
    n = first
    while n < rows:
        d = x[n, c] - m
        squares = fma(d, d, squares)
        n += step
    squares = column_sum(x, squares)
    if c >= C:
        return
    r = 1.0 / sqrt(squares / cast(x, N) + eps)
    if first == 0:
        mean[c] = m
        rstd[c] = r
        follow(running_mean, c, m, momentum)
        follow(running_var, c, squares / cast(x, max(N - 1, 1)), momentum)
    scale, shift = r * gain[c], bias[c]
    n = first
    while n < N:
        y[n, c] = (x[n, c] - m) * scale + shift
        n += step


@cuda_kernel(like=cpu_batch.batch_norm_backward, **BY_COLUMNS)
def batch_norm_backward(x, gain, mean, rstd, dy, dx, dgain, dbias):
    N, C = x.shape
    c, first, step = column_place()
    m, r, rows = 0.0, 0.0, 0
    if c < C:
        m, r, rows = mean[c], rstd[c], N
    sum_dy, sum_dyn = 0.0, 0.0
    n = first
    while n < rows:
        sum_dy += dy[n, c]
        sum_dyn = fma(dy[n, c], (x[n, c] - m) * r, sum_dyn)
        n += step
    sum_dy = column_sum(x, sum_dy)
    sum_dyn = column_sum(x, sum_dyn)
    if c >= C:
        return
    if first == 0:
        dbias[c] = sum_dy
        dgain[c] = sum_dyn
    mean_dy, slope, scale = sum_dy / cast(x, N), sum_dyn / cast(x, N) * r, r * gain[c]
    n = first
    while n < N:
        dx[n, c] = (dy[n, c] - mean_dy - (x[n, c] - m) * slope) * scale
        n += step


@cuda_kernel(like=cpu_batch.batch_norm_inference, **BY_ELEMENTS)
def batch_norm_inference(x, gain, bias, running_mean, running_var, y, eps):
    i, C = flat_index(), x.shape[1]
    if i < x.size:
        c = i - divide_index(i, C) * C
        scale = gain[c] / sqrt(running_var[c] + eps)
        flat(y)[i] = (flat(x)[i] - running_mean[c]) * scale + bias[c]


@cuda_kernel(like=cpu_batch.batch_norm_inference_backward, **BY_ELEMENTS)
def batch_norm_inference_backward(gain, running_var, dy, dx, eps):
    i, C = flat_index(), dx.shape[1]
    if i < dx.size:
        c = i - divide_index(i, C) * C
        flat(dx)[i] = flat(dy)[i] * (gain[c] / sqrt(running_var[c] + eps))
