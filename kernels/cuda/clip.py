"""Clipping by norm: the factor by which gradients are scaled (Pascanu, Mikolov & Bengio 2013)."""

import math

from ..declare import cuda_kernel, helper
from .device import ONE_THREAD, thread_number
from .step import sum_launch, sum_of


@cuda_kernel(launch=lambda s: sum_launch(s["R"]))
def norm_sum(
    partial: "in whole r[R]",  # sums of squares of an array's rows
    before: "in whole r[U]",
    after: "out whole r[U]",
):
    """after = before + sum(partial): the squared norm so far, array after array."""
    value = sum_of(partial)
    if thread_number() == 0:
        after[0] = before[0] + value


@helper
def _factor(total, limit):
    """In a function of float64 numbers, so that the constants are float64."""
    factor = limit / (math.sqrt(total) + 1e-6)
    return 1.0 if factor > 1.0 else factor


@cuda_kernel(launch=lambda s: ONE_THREAD)
def clip_scale(
    total: "in whole r[U]",  # squared norm
    scale: "out whole f[U]",
    limit: "double",
):
    """scale = min(1, limit / (norm + 1e-6)), as PyTorch's clip_grad_norm_; NaN stays NaN."""
    if thread_number() == 0:
        scale[0] = _factor(total[0], limit)
