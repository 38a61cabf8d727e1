"""Gradients of several steps that make one update, an element a thread."""

from ..control_block import DOUBT, LARGE, STEP, STOP
from ..cuda.device import cast, flat, flat_index
from ..declare import ceil_div, cuda_kernel
from ..guard.cuda import report
from ..simd import fma
from . import cpu_accumulate as cpu


@cuda_kernel(like=cpu.accumulate_gradient, launch=lambda s: (ceil_div(s["R"] * s["C"], 256), 256))
def accumulate_gradient(total, g, control, guard, every):
    if control[STOP] != 0:  # what lies there is needed
        return
    i = flat_index()
    if i < total.size:
        share = cast(total, 1.0 / every)
        new = flat(g)[i] * share
        if control[STEP] % every != 0:
            new = fma(flat(g)[i], share, flat(total)[i])
        flat(total)[i] = new
        report(guard, new)
    if guard.size > 0 and guard[DOUBT] != 0 and (control[STEP] + 1) % every != 0:
        guard[LARGE] = 1
