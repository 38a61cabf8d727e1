"""Loss scaling (see `scaling.py`)."""

from __future__ import annotations

from ..control_block import DOUBT, OVERFLOW, SCALE
from ..cuda.device import ONE_THREAD, cast, cuda, flat, thread_number
from ..declare import cuda_kernel
from ..simd import absolute
from ..update.shared import IDLE
from . import cpu_scaling as cpu
from .cuda import _blocks
from .scaling import HYPER_LIMIT, adapt
from .shared import INFINITY


@cuda_kernel(like=cpu.loss_scale, launch=lambda s: ONE_THREAD, one_block=True)
def loss_scale(control, guard, scale, inverse):
    if thread_number() == 0:
        guard[OVERFLOW] = 0
        factor, part, half = cast(scale, 1), cast(scale, 1), cast(scale, 0.5)
        for _ in range(control[SCALE]):
            factor += factor
            part *= half
        scale[0] = factor
        inverse[0] = part


@cuda_kernel(like=cpu.unscale, launch=lambda s: _blocks(s["N"] * s["C"]))
def unscale(x, inverse, y, guard):
    factor, given, out = inverse[0], flat(x), flat(y)
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        value = given[i] * factor
        out[i] = value
        if not absolute(value) < INFINITY:
            guard[OVERFLOW] = 1


@cuda_kernel(launch=lambda s: _blocks(s["N"] * s["C"]))
def unscale_checked(
    x: "in whole f[N,C]",
    inverse: "in whole f[U]",
    y: "out whole f[N,C]",  # may be x
    guard: "flag whole i[F]",
    limit: "double",
):
    """`unscale` and `check_size`."""
    factor, given, out, top = inverse[0], flat(x), flat(y), cast(y, limit)
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        value = given[i] * factor
        out[i] = value
        if not absolute(value) < top:
            guard[DOUBT] = 1
            if not absolute(value) < INFINITY:
                guard[OVERFLOW] = 1


@cuda_kernel(like=cpu.skip_overflow, launch=lambda s: ONE_THREAD, one_block=True)
def skip_overflow(guard, hyper):
    if thread_number() == 0 and guard[OVERFLOW] != 0:
        hyper[HYPER_LIMIT] = IDLE


@cuda_kernel(like=cpu.adapt_scale, launch=lambda s: ONE_THREAD, one_block=True)
def adapt_scale(control, guard):
    if thread_number() == 0:
        adapt(control, guard)
