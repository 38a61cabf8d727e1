"""Sequences stretched in time on CUDA: a thread for each element of the result."""

from __future__ import annotations

from ..convolution.cuda_elements import elements
from ..cuda.device import cast, flat_index
from ..declare import cuda_kernel
from ..simd import fma
from . import cpu
from .shared import first_place, places_of, share_after, step_before, stretch_of


@cuda_kernel(like=cpu.stretch_forward, launch=elements("NPC"))
def stretch_forward(x, lengths, y, scale, mode):
    at = flat_index()
    N, P, C = y.shape
    if at < N * P * C:
        row = at // C
        n, j, c = row // P, row % P, at - row * C
        stretch = stretch_of(lengths[n], x.shape[1], P, scale, mode)
        v = cast(y, 0)
        if j < stretch.places:
            before = step_before(stretch, j)
            share = share_after(stretch, j, before)
            v = x[n, before, c]
            if share > 0.0:
                v = fma(x[n, before + 1, c], cast(y, share), v * cast(y, 1.0 - share))
        y[n, j, c] = v


@cuda_kernel(like=cpu.stretch_backward, launch=elements("NTC"))
def stretch_backward(lengths, dy, dx, scale, mode):
    at = flat_index()
    N, T, C = dx.shape
    if at < N * T * C:
        row = at // C
        n, t, c = row // T, row % T, at - row * C
        stretch = stretch_of(lengths[n], T, dy.shape[1], scale, mode)
        total = cast(dx, 0)
        if t < stretch.steps:  # places between the step before and the one after, in their order
            for j in range(first_place(stretch, t - 1), first_place(stretch, t + 1)):
                before = step_before(stretch, j)
                share = share_after(stretch, j, before)
                if before == t:
                    total = fma(dy[n, j, c], cast(dx, 1.0 - share), total)
                elif share > 0.0:
                    total = fma(dy[n, j, c], cast(dx, share), total)
        dx[n, t, c] = total


@cuda_kernel(like=cpu.count_places, launch=elements("B"))
def count_places(lengths, y, scale, shift):
    b = flat_index()
    if b < y.shape[0]:
        y[b] = places_of(lengths[b], scale, shift)
