"""The guard: parameters stay finite, and a step that would break them is undone to the last bit.

A step is *doubtful* where a number that its gradients are made of is so large (or no number) that
they might leave the range of float32, where a rate is huge, or where the step before left a huge
parameter. Then parameters and slots are copied before they change; a step beyond doubt is known to
end well, and pays for comparisons only. What an update writes is checked as it is written. What the
host has set is looked at before the next update: huge parameters, and slots that hold something
already (a state that was loaded, say), make its step doubtful.

F words of the guard (`control.py`): flags, set by any item in any order and read between barriers.
P elements of a segment, S steps and G groups of the schedule, L words of the control block.
"""

from __future__ import annotations

from ..control_block import BROKEN, DOUBT, LARGE, NOT_FINITE, SAVED, STOP, UNKNOWN
from ..declare import helper, kernel
from ..simd import (
    absolute,
    bits,
    fill_like,
    from_bits,
    lanes,
    load,
    load_first,
    max_lanes,
    maximum,
    splat,
    where,
)
from .shared import INFINITY, LARGEST, NOTHING, doubtful


@helper
def nothing(x):
    """Where `larger` begins."""
    return bits(splat(x, 0.0))


@helper
def larger(worst, v):
    """The larger magnitudes, as bit patterns: read as integers, positive floats keep their order,
    and NaN is larger than infinity."""
    return maximum(bits(absolute(v)), worst)


@helper
def beyond(v, limit):
    """Whether some lane is not below the limit."""
    return max_lanes(where(v < limit, fill_like(v, 0.0), fill_like(v, 1.0))) > 0.0


@helper
def reaches(worst, limit):
    """Whether a magnitude among these bit patterns is not below the limit."""
    return beyond(from_bits(worst), limit)


@helper
def report(squares, p, begin, end, guard):
    """Tell the guard of parameters that were written, elements `begin` to `end` of p.

    `squares` is the sum of their squares, one multiply-add a vector: below `LARGEST` squared all of
    them are smaller than `LARGEST`; beyond it, which is rare, they are looked at again.
    """
    if guard.size > 0 and beyond(squares, LARGEST * LARGEST):
        guard[LARGE] = 1
        w, worst = lanes(p), nothing(p)
        for i in range(begin, end, w):
            worst = larger(worst, load_first(p, i, min(end - i, w)))
        if reaches(worst, INFINITY):
            guard[BROKEN] = 1


@kernel(checks=True, elementwise=True)
def check_size(
    x: "in rows f[N,C]",
    guard: "flag whole i[F]",
    limit: "double",
    lo: "begin",
    hi: "end",
):
    """The step is doubtful unless |x| < limit everywhere."""
    w = lanes(x)
    i, n = lo * x.shape[1], hi * x.shape[1]
    a, b = nothing(x), nothing(x)
    while i + 2 * w <= n:
        a = larger(a, load(x, i))
        b = larger(b, load(x, i + w))
        i += 2 * w
    while i < n:
        m = min(n - i, w)
        a = larger(a, load_first(x, i, m))
        i += m
    if reaches(maximum(a, b), limit):
        guard[DOUBT] = 1


@kernel(checks=True)
def check_columns(
    x: "in cols f[N,C]",
    guard: "flag whole i[F]",
    limit: "double",
    lo: "begin",
    hi: "end",
):
    """`check_size` by columns, beside what has computed x by columns."""
    w = lanes(x)
    worst = nothing(x)
    for j in range(lo, hi, w):
        m = min(hi - j, w)
        for row in range(x.shape[0]):
            worst = larger(worst, load_first(x, row * x.shape[1] + j, m))
    if reaches(worst, limit):
        guard[DOUBT] = 1


@helper
def below(x, limit):
    """Whether |x| < limit everywhere."""
    w, worst = lanes(x), nothing(x)
    for i in range(0, x.size, w):
        worst = larger(worst, load_first(x, i, min(x.size - i, w)))
    return not reaches(worst, limit)


@helper
def copy(x, saved):
    """saved = x, both flat."""
    for i in range(saved.shape[0]):
        saved[i] = x[i]


@kernel(bookkeeping=True)
def safeguard(
    control: "in whole i[L]",
    schedule: "in whole r[S,G]",
    guard: "inout whole i[F]",
    x: "in whole f[P]",
    saved: "part whole f[P]",
    slot1: "in whole f[P]",  # absent where the optimiser has fewer
    saved1: "part whole f[P]",
    slot2: "in whole f[P]",
    saved2: "part whole f[P]",
    slot3: "in whole f[P]",
    saved3: "part whole f[P]",
    always: "int",
):
    """Copies of x and the slots, if the step is doubtful."""
    if control[STOP] != 0:  # what lies there is needed
        return
    guard[SAVED] = 0
    if guard[DOUBT] == UNKNOWN:  # a training that begins does not even touch its copies' pages
        known = below(slot1, NOTHING) and below(slot2, NOTHING) and below(slot3, NOTHING)
        guard[DOUBT] = 0 if known and below(x, LARGEST) else 1
    if doubtful(control, schedule, guard, always):
        guard[SAVED] = 1
        copy(x, saved)
        copy(slot1, saved1)
        copy(slot2, saved2)
        copy(slot3, saved3)


@kernel(bookkeeping=True)
def latch(control: "inout whole i[L]", guard: "inout whole i[F]"):
    """After the updates: stop if they wrote what is not finite; else the next step's doubts."""
    if control[STOP] != 0:
        return
    if guard[BROKEN] != 0:
        control[STOP] = NOT_FINITE
    else:
        guard[DOUBT] = guard[LARGE]
        guard[LARGE] = 0
