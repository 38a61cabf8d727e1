"""Parameters at a point beside where they are: an element a thread."""

from ..control_block import STEP
from ..cuda.device import flat, flat_index
from ..declare import ceil_div, cuda_kernel
from . import cpu_shift as cpu


@cuda_kernel(like=cpu.shift_parameter, launch=lambda s: (ceil_div(s["R"] * s["C"], 256), 256))
def shift_parameter(p, shift, g, y, control):
    i = flat_index()
    if i < p.size:
        if control[STEP] == 0:
            flat(y)[i] = flat(p)[i] + flat(g)[i]
        else:
            flat(y)[i] = flat(p)[i] + flat(shift)[i]
