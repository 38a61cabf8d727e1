"""Averages of windows that share out the valid steps of each sequence.

x [N,T,C], of which sequence n has ``lengths[n]`` steps, y [N,P,C]: window p has the steps from
``floor(p*length / P)`` to ``ceil((p + 1)*length / P)``. A sequence without steps gives zeros.
"""

from __future__ import annotations

from ..cpu.parts import fill_row, load_part, store_part
from ..declare import kernel
from ..simd import lanes, splat
from .shared import steps_of, window_begin, window_end


@kernel
def avg_pool_lengths_forward(
    x: "in rows f[N,T,C]",
    lengths: "in rows i[N]",
    y: "out rows f[N,P,C]",
    lo: "begin",
    hi: "end",
):
    """y = the average of each window; steps past a sequence's end are not read."""
    steps, windows, channels = x.shape[1], y.shape[1], x.shape[2]
    for n in range(lo, hi):
        axis = steps_of(lengths[n], steps, windows)
        for p in range(windows):
            begin, end = window_begin(axis, p), window_end(axis, p)
            for c in range(0, channels, lanes(x)):
                rest = channels - c
                total = splat(x, 0.0)
                for t in range(begin, end):
                    total = total + load_part(x, (n * steps + t) * channels + c, rest)
                if end > begin:
                    total = total / splat(x, end - begin)
                store_part(y, (n * windows + p) * channels + c, total, rest)


@kernel
def avg_pool_lengths_backward(
    lengths: "in rows i[N]",
    dy: "in rows f[N,P,C]",
    dx: "out rows f[N,T,C]",
    lo: "begin",
    hi: "end",
):
    """dx = the sum of dy over the windows that a step is in, by the steps of each; 0 past the end
    of a sequence."""
    steps, windows, channels = dx.shape[1], dy.shape[1], dx.shape[2]
    for n in range(lo, hi):
        fill_row(dx, n * steps * channels, steps * channels, 0.0)
        axis = steps_of(lengths[n], steps, windows)
        for p in range(windows):
            begin, end = window_begin(axis, p), window_end(axis, p)
            for c in range(0, channels, lanes(dx)):
                rest = channels - c
                part = load_part(dy, (n * windows + p) * channels + c, rest)
                if end > begin:
                    part = part / splat(dx, end - begin)
                for t in range(begin, end):
                    place = (n * steps + t) * channels + c
                    store_part(dx, place, load_part(dx, place, rest) + part, rest)
