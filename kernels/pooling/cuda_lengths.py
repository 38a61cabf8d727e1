"""Averages of windows that share out the valid steps of each sequence, on CUDA: a thread for each
element of the result."""

from __future__ import annotations

from ..convolution.cuda_elements import elements
from ..cuda.device import cast, flat_index
from ..declare import cuda_kernel
from . import cpu_lengths
from .shared import steps_of, window_begin, window_end


@cuda_kernel(like=cpu_lengths.avg_pool_lengths_forward, launch=elements("NPC"))
def avg_pool_lengths_forward(x, lengths, y):
    at = flat_index()
    N, P, C = y.shape
    if at < N * P * C:
        row = at // C
        n, p, c = row // P, row % P, at - row * C
        axis = steps_of(lengths[n], x.shape[1], P)
        begin, end = window_begin(axis, p), window_end(axis, p)
        total = cast(y, 0)
        for t in range(begin, end):
            total += x[n, t, c]
        if end > begin:
            total = total / cast(y, end - begin)
        y[n, p, c] = total


@cuda_kernel(like=cpu_lengths.avg_pool_lengths_backward, launch=elements("NTC"))
def avg_pool_lengths_backward(lengths, dy, dx):
    at = flat_index()
    N, T, C = dx.shape
    P = dy.shape[1]
    if at < N * T * C:
        row = at // C
        n, t, c = row // T, row % T, at - row * C
        axis = steps_of(lengths[n], T, P)
        total = cast(dx, 0)
        if t < axis.extent:  # windows overlap by one step at most
            for p in range(t * P // axis.extent, min((t + 1) * P // axis.extent + 1, P)):
                begin, end = window_begin(axis, p), window_end(axis, p)
                if begin <= t:  # (and t < end, of these windows)
                    total += dy[n, p, c] / cast(dx, end - begin)
        dx[n, t, c] = total
