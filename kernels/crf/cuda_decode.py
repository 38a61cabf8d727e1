"""The best chain of tags on CUDA: a block for each sequence, a thread for each tag."""

from __future__ import annotations

from ..ctc.shared import frame_count
from ..cuda.device import INFINITY, block_number, block_threads, cast, cuda, thread_number
from ..declare import cuda_kernel
from ..simd import maximum
from . import cpu_decode
from .cuda import launch
from .shared import walk_back


@cuda_kernel(like=cpu_decode.crf_decode, launch=launch)
def crf_decode(x, lengths, transitions, start, end, tags, score, best, came):
    b, T, C = block_number(), x.shape[1], x.shape[2]
    n = max(frame_count(lengths, b, T), 0)
    for t in range(n + thread_number(), T, block_threads()):
        tags[b, t] = -1
    if n == 0:
        if thread_number() == 0:
            score[b] = cast(x, 0.0)
        return
    for j in range(thread_number(), C, block_threads()):
        best[b, j] = x[b, 0, j] + start[j]
    cuda.syncthreads()
    for t in range(1, n):
        top = cast(x, -INFINITY)
        for i in range(C):
            top = maximum(best[b, i], top)
        if not abs(top) < INFINITY:
            top = cast(x, 0.0)
        for j in range(thread_number(), C, block_threads()):
            most, place = cast(x, -INFINITY), 0
            for i in range(C):
                v = transitions[i, j] + (best[b, i] - top)
                if v > most:
                    most, place = v, i
            came[b, t, j] = place
            came[b, 0, j] = most + x[b, t, j]
        cuda.syncthreads()
        for j in range(thread_number(), C, block_threads()):
            best[b, j] = came[b, 0, j]
        cuda.syncthreads()
    if thread_number() == 0:
        score[b] = walk_back(x, transitions, start, end, tags, best, came, b, n)
