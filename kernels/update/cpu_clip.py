"""Clipping by norm: the factor by which gradients are scaled (Pascanu, Mikolov & Bengio 2013)."""

import math

from ..declare import kernel
from ..step.cpu import sum_of


@kernel
def norm_sum(
    partial: "in whole r[R]",  # sums of squares of an array's rows
    before: "in whole r[U]",
    after: "out whole r[U]",
):
    """after = before + sum(partial): the squared norm so far, array after array."""
    after[0] = before[0] + sum_of(partial)


@kernel
def clip_scale(
    total: "in whole r[U]",  # squared norm
    scale: "out whole f[U]",
    limit: "double",
):
    """scale = min(1, limit / (norm + 1e-6)), as PyTorch's clip_grad_norm_; NaN stays NaN."""
    factor = limit / (math.sqrt(total[0]) + 1e-6)
    scale[0] = 1.0 if factor > 1.0 else factor
