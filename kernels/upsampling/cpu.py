"""Sequences of different lengths, each stretched by its own.

x [N,T,C], of which sequence n has ``lengths[n]`` steps, y [N,P,C]. A place of y is a step of x
(`mode` 0) or lies between two, whose shares are linear (1; 2: with the first and last steps of
both at the same places). A sequence becomes `scale` times as long, rounded down, or where `scale`
is 0, has P places.
"""

from __future__ import annotations

from ..cpu.parts import fill_row, load_part, store_part
from ..declare import kernel
from ..simd import fma, lanes, splat
from .shared import places_of, share_after, step_before, stretch_of


@kernel
def stretch_forward(
    x: "in rows f[N,T,C]",
    lengths: "in rows i[N]",
    y: "out rows f[N,P,C]",
    scale: "double",
    mode: "int",
    lo: "begin",
    hi: "end",
):
    """y = the places of each stretched sequence, and 0 past its end; steps past that of x are not
    read."""
    steps, places, channels = x.shape[1], y.shape[1], x.shape[2]
    for n in range(lo, hi):
        stretch = stretch_of(lengths[n], steps, places, scale, mode)
        for j in range(stretch.places):
            before = step_before(stretch, j)
            share = share_after(stretch, j, before)
            source, sink = (n * steps + before) * channels, (n * places + j) * channels
            for c in range(0, channels, lanes(x)):
                rest = channels - c
                v = load_part(x, source + c, rest)
                if share > 0.0:
                    after = load_part(x, source + channels + c, rest)
                    v = fma(after, splat(x, share), v * splat(x, 1.0 - share))
                store_part(y, sink + c, v, rest)
        done = stretch.places * channels
        fill_row(y, n * places * channels + done, places * channels - done, 0.0)


@kernel
def stretch_backward(
    lengths: "in rows i[N]",
    dy: "in rows f[N,P,C]",
    dx: "out rows f[N,T,C]",
    scale: "double",
    mode: "int",
    lo: "begin",
    hi: "end",
):
    """dx = the sum of dy over the places that a step counts at, by its shares; 0 past the end of a
    sequence."""
    steps, places, channels = dx.shape[1], dy.shape[1], dx.shape[2]
    for n in range(lo, hi):
        fill_row(dx, n * steps * channels, steps * channels, 0.0)
        stretch = stretch_of(lengths[n], steps, places, scale, mode)
        for j in range(stretch.places):
            before = step_before(stretch, j)
            share = share_after(stretch, j, before)
            sink, source = (n * steps + before) * channels, (n * places + j) * channels
            for c in range(0, channels, lanes(dx)):
                rest = channels - c
                d = load_part(dy, source + c, rest)
                own = fma(d, splat(dx, 1.0 - share), load_part(dx, sink + c, rest))
                store_part(dx, sink + c, own, rest)
                if share > 0.0:
                    at = sink + channels + c
                    store_part(dx, at, fma(d, splat(dx, share), load_part(dx, at, rest)), rest)


@kernel
def count_places(
    lengths: "in rows i[B]",
    y: "out rows i[B]",
    scale: "double",
    shift: "int",
    lo: "begin",
    hi: "end",
):
    """y = how long sequences become: scale*length + shift, rounded down; 0 without steps."""
    for b in range(lo, hi):
        y[b] = places_of(lengths[b], scale, shift)
