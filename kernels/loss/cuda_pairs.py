"""Losses between two arrays of one shape on CUDA, row by row, and their gradients.

N rows, C columns; W is C, or 0 where there are no weights. loss[n] = scale sum_c term(x, target).
Terms and slopes are those of `shared.py`; a dx may be x or target.
"""

from __future__ import annotations

from typing import Any

from ..cuda.device import divide_index, flat, flat_index
from ..cuda.rows import row_place, row_sum, rows_launch
from ..declare import Kernel, ceil_div, cuda_kernel, helper
from ..scalar import exp, log1p_fraction
from ..simd import absolute, fma, maximum, where
from . import cpu_pairs as cpu
from .shared import (
    bce_slope,
    bce_term,
    huber_slope,
    huber_term,
    kl_div_log_slope,
    kl_div_log_term,
    kl_div_slope,
    kl_div_term,
    mae_slope,
    mae_term,
    mse_slope,
    mse_term,
)

BY_ROWS = {"launch": rows_launch, "bounds": 1024}
BY_ELEMENTS = {"launch": lambda s: (ceil_div(s["N"] * s["C"], 256), 256)}


@helper
def pair_sum(term: Any, x: Any, target: Any, loss: Any, parameter: Any, scale: Any) -> None:
    """loss = scale sum term(x, target, parameter) over the thread's row."""
    N, C = x.shape
    narrow, row, first, step, size, _ = row_place(N, C)
    base, v, t = row * C, flat(x), flat(target)
    total = 0.0
    j = first
    while j < size:
        total += term(v[base + j], t[base + j], parameter)
        j += step
    total = row_sum(total, narrow)
    if first == 0 and row < N:
        loss[row] = total * scale


@helper
def pair_slope(
    slope: Any, x: Any, target: Any, dloss: Any, dx: Any, parameter: Any, scale: Any
) -> None:
    """dx = dloss scale slope(x, target, parameter) for the thread's element."""
    i = flat_index()
    if i < dx.size:
        factor = dloss[divide_index(i, dx.shape[1])] * scale
        flat(dx)[i] = slope(flat(x)[i], flat(target)[i], parameter) * factor


# ---------------------------------------------------------------- losses without a parameter


def pair_loss(forward: Kernel, backward: Kernel, term: Any, slope: Any) -> None:
    """The counterparts of a loss's kernels, of its term and slope."""

    @cuda_kernel(like=forward, name=forward.name, **BY_ROWS)
    def sums(x, target, loss, scale):
        pair_sum(term, x, target, loss, scale, scale)

    @cuda_kernel(like=backward, name=backward.name, **BY_ELEMENTS)
    def slopes(x, target, dloss, dx, scale):
        pair_slope(slope, x, target, dloss, dx, scale, scale)


pair_loss(cpu.mse_forward, cpu.mse_backward, mse_term, mse_slope)
pair_loss(cpu.mae_forward, cpu.mae_backward, mae_term, mae_slope)
pair_loss(cpu.bce_forward, cpu.bce_backward, bce_term, bce_slope)
pair_loss(cpu.kl_div_forward, cpu.kl_div_backward, kl_div_term, kl_div_slope)
pair_loss(cpu.kl_div_log_forward, cpu.kl_div_log_backward, kl_div_log_term, kl_div_log_slope)


# ---------------------------------------------------------------- Huber


@cuda_kernel(like=cpu.huber_forward, **BY_ROWS)
def huber_forward(x, target, loss, scale, delta):
    pair_sum(huber_term, x, target, loss, delta, scale)


@cuda_kernel(like=cpu.huber_backward, **BY_ELEMENTS)
def huber_backward(x, target, dloss, dx, scale, delta):
    pair_slope(huber_slope, x, target, dloss, dx, delta, scale)


# ---------------------------------------------------------------- binary cross entropy


@helper
def positive_weight(pos_weight: Any, j: int) -> Any:
    """The weight of positive examples in column `j`, 1 where there are none."""
    return pos_weight[j] if pos_weight.shape[0] > 0 else 1.0


@cuda_kernel(like=cpu.bce_with_logits_forward, **BY_ROWS)
def bce_with_logits_forward(x, target, pos_weight, loss, scale):
    N, C = x.shape
    narrow, row, first, step, size, _ = row_place(N, C)
    base = row * C
    total = 0.0
    j = first
    while j < size:
        v, t = flat(x)[base + j], flat(target)[base + j]
        small = log1p_fraction(exp(-absolute(v)))
        positive = t * positive_weight(pos_weight, j) * (maximum(-v, 0.0) + small)
        total += fma(1.0 - t, maximum(v, 0.0) + small, positive)
        j += step
    total = row_sum(total, narrow)
    if first == 0 and row < N:
        loss[row] = total * scale


@cuda_kernel(like=cpu.bce_with_logits_backward, **BY_ELEMENTS)
def bce_with_logits_backward(x, target, pos_weight, dloss, dx, scale):
    i, C = flat_index(), dx.shape[1]
    if i < dx.size:
        row = divide_index(i, C)
        v, t = flat(x)[i], flat(target)[i]
        e = exp(-absolute(v))
        large = 1.0 / (1.0 + e)  # sigmoid(|x|)
        small = e * large  # sigmoid(-|x|)
        up, down = where(v > 0.0, large, small), where(v > 0.0, small, large)
        g = (1.0 - t) * up - t * positive_weight(pos_weight, i - row * C) * down
        flat(dx)[i] = g * (dloss[row] * scale)
