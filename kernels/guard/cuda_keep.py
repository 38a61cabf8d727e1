"""What only CUDA needs at the end of a step: there launches go on after a stop.

C numbers, L words of the control block.
"""

from ..control_block import STOP
from ..cuda.device import cuda
from ..declare import ceil_div, cuda_kernel
from . import cpu_keep as cpu

THREADS = 256


@cuda_kernel(like=cpu.keep, launch=lambda s: (min(ceil_div(s["C"], THREADS), 1024), THREADS))
def keep(x, control, saved):
    """saved = x, unless a stop is latched: the state after the last step that was not stopped."""
    if control[STOP] != 0:
        return
    for i in range(cuda.grid(1), x.shape[0], cuda.gridsize(1)):
        saved[i] = x[i]
