"""Gradients of several steps that make one update."""

from ..control_block import DOUBT, LARGE, STEP
from ..declare import kernel
from ..guard.cpu import report
from ..simd import fma, lanes, load_first, splat, store_first


@kernel
def accumulate_gradient(
    total: "inout rows f[R,C]",
    g: "in rows f[R,C]",
    control: "in whole i[L]",
    guard: "flag whole i[F]",
    every: "int",
    lo: "begin",
    hi: "end",
):
    """total = g / every in the first step of so many, total + g / every in the others. A doubt
    stays until the step that updates."""
    w, share = lanes(total), 1.0 / every
    first = control[STEP] % every == 0
    begin, end = lo * total.shape[1], hi * total.shape[1]
    squares = splat(total, 0.0)
    for i in range(begin, end, w):
        m = min(end - i, w)
        new = load_first(g, i, m) * share
        if not first:
            new = fma(load_first(g, i, m), splat(total, share), load_first(total, i, m))
        store_first(total, i, new, m)
        squares = fma(new, new, squares)
    report(squares, total, begin, end, guard)
    if guard.size > 0 and guard[DOUBT] != 0 and (control[STEP] + 1) % every != 0:
        guard[LARGE] = 1
