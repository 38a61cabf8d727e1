"""Clipping by norm: the factor by which gradients are scaled (Pascanu, Mikolov & Bengio 2013)."""

import math

from ..cuda.device import ONE_THREAD, thread_number
from ..declare import cuda_kernel, helper
from ..step.cuda import sum_launch, sum_of
from . import cpu_clip as cpu


@cuda_kernel(like=cpu.norm_sum, launch=lambda s: sum_launch(s["R"]), one_block=True)
def norm_sum(partial, before, after):
    value = sum_of(partial)
    if thread_number() == 0:
        after[0] = before[0] + value


@helper
def _factor(total, limit):
    """In a function of float64 numbers, so that the constants are float64."""
    factor = limit / (math.sqrt(total) + 1e-6)
    return 1.0 if factor > 1.0 else factor


@cuda_kernel(like=cpu.clip_scale, launch=lambda s: ONE_THREAD, one_block=True)
def clip_scale(total, scale, limit):
    if thread_number() == 0:
        scale[0] = _factor(total[0], limit)
