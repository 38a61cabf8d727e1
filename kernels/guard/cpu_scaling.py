"""Loss scaling (see `scaling.py`).

F words of the guard, L words of the control block, U = 1.
"""

from __future__ import annotations

from ..control_block import OVERFLOW, SCALE
from ..declare import helper, kernel
from ..simd import lanes, load_first, splat, store_first
from ..update.shared import IDLE
from .cpu import larger, nothing, reaches
from .scaling import HYPER_LIMIT, adapt
from .shared import INFINITY


@helper
def power(exponent):
    """2.0 to the power of an exponent from 0."""
    result = 1.0
    for _ in range(exponent):
        result *= 2.0
    return result


@kernel(begins=True)
def loss_scale(
    control: "in whole i[L]",
    guard: "inout whole i[F]",
    scale: "out whole f[U]",
    inverse: "out whole f[U]",
):
    """The factor of this step's gradients, and one over it; nothing has overflowed yet."""
    guard[OVERFLOW] = 0
    scale[0] = power(control[SCALE])
    inverse[0] = 1.0 / scale[0]


@kernel(bookkeeping=True, elementwise=True, checked_as="unscale_checked")
def unscale(
    x: "in rows f[N,C]",
    inverse: "in whole f[U]",
    y: "out rows f[N,C]",
    guard: "flag whole i[F]",
    lo: "begin",
    hi: "end",
):
    """y = x * inverse, which may be x; the guard is told unless all are finite."""
    w, factor, worst = lanes(x), splat(x, inverse[0]), nothing(x)
    n = hi * x.shape[1]
    for i in range(lo * x.shape[1], n, w):
        m = min(n - i, w)
        value = load_first(x, i, m) * factor
        worst = larger(worst, value)
        store_first(y, i, value, m)
    if reaches(worst, INFINITY):
        guard[OVERFLOW] = 1


@kernel(bookkeeping=True)
def skip_overflow(guard: "in whole i[F]", hyper: "inout whole f[H]"):
    """An update's numbers, so that it changes nothing where gradients have overflowed."""
    if guard[OVERFLOW] != 0:
        hyper[HYPER_LIMIT] = IDLE


@kernel(bookkeeping=True)
def adapt_scale(control: "inout whole i[L]", guard: "in whole i[F]"):
    """At the end of a step: half the factor after an overflow, twice after many good steps."""
    adapt(control, guard)
