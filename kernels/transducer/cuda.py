"""The transducer's loss on CUDA, a block for each sequence; the nodes of a diagonal of the lattice
are computed at once, by a thread each."""

import math

from ..ctc.decode import NEVER
from ..ctc.shared import frame_count, label_count
from ..cuda.device import (
    INFINITY,
    block_number,
    block_threads,
    cast,
    cuda,
    power_of_2,
    thread_number,
)
from ..declare import cuda_kernel, helper
from ..simd import maximum
from ..vector_math import NAN, exp, log
from . import cpu
from .shared import after_blank, backward_node, forward_node, score


def launch(s):
    """A block for each sequence."""
    return s["B"], power_of_2(s["T"] * s["V"], 32, 256)


@helper
def normalise(x, norm, b, frames, L):
    """`norm` of each node, a thread for each."""
    for i in range(thread_number(), frames * (L + 1), block_threads()):
        t, u = i // (L + 1), i % (L + 1)
        top = cast(x, -INFINITY)
        for j in range(x.shape[3]):
            top = maximum(x[b, t, u, j], top)
        total = cast(x, 0.0)
        for j in range(x.shape[3]):
            total += exp(x[b, t, u, j] - top)
        norm[b, t, u, 0] = top
        norm[b, t, u, 1] = log(total)


@cuda_kernel(like=cpu.transducer_forward, launch=launch)
def transducer_forward(x, target, lengths, target_lengths, loss, norm, alpha, blank, mean):
    b, T, C = block_number(), x.shape[1], x.shape[3]
    frames = frame_count(lengths, b, T)
    L = label_count(target, target_lengths, b, C, blank)
    if frames <= 0 or L < 0:
        if thread_number() == 0:
            loss[b] = cast(x, INFINITY) if frames == 0 and L >= 0 else cast(x, NAN)
        return
    normalise(x, norm, b, frames, L)  # read a diagonal later, when the threads have met
    for d in range(frames + L):
        for u in range(thread_number(), L + 1, block_threads()):
            if d - u >= 0 and d - u < frames:
                forward_node(x, target, norm, alpha, b, d - u, u, blank)
        cuda.syncthreads()
    if thread_number() == 0:
        unknown = cast(x, 0.0)
        for t in range(frames):
            for u in range(L + 1):
                unknown += (norm[b, t, u, 0] + norm[b, t, u, 1]) * cast(x, 0.0)
        log_p = alpha[b, frames - 1, L] + score(x, norm, b, frames - 1, L, blank)
        count = L if mean != 0 and L > 0 else 1
        value = cast(x, INFINITY) if log_p <= NEVER else cast(x, -log_p / count)
        loss[b] = unknown + value


@cuda_kernel(like=cpu.transducer_backward, launch=launch)
def transducer_backward(
    x, target, lengths, target_lengths, loss, norm, alpha, dloss, dx, beta, blank, mean
):
    b, T, V, C = block_number(), x.shape[1], x.shape[2], x.shape[3]
    frames = frame_count(lengths, b, T)
    L = label_count(target, target_lengths, b, C, blank)
    if frames < 0 or L < 0 or not (abs(loss[b]) < INFINITY):
        for i in range(thread_number(), T * V, block_threads()):
            for j in range(C):
                dx[b, i // V, i % V, j] = cast(x, NAN)
        return
    for i in range(frames + L):
        d = frames + L - 1 - i
        for u in range(thread_number(), L + 1, block_threads()):
            if d - u >= 0 and d - u < frames:
                backward_node(x, target, norm, beta, b, d - u, u, frames, L, blank)
        cuda.syncthreads()
    log_p = beta[b, 0, 0]
    factor = dloss[b] / cast(x, L if mean != 0 and L > 0 else 1)
    for i in range(thread_number(), T * V, block_threads()):
        t, u = i // V, i % V
        inside = t < frames and u <= L
        own, before = cast(x, 0.0), alpha[b, t, u] - log_p if inside else log_p
        if inside:
            own = factor * cast(x, math.exp(max(before + beta[b, t, u], NEVER)))
        for j in range(C):
            v = x[b, t, u, j] - norm[b, t, u, 0] - norm[b, t, u, 1] if inside else own
            dx[b, t, u, j] = exp(v) * own if inside else own
        if inside:
            after = before + score(x, norm, b, t, u, blank)
            after += after_blank(beta, b, t, u, frames, L)
            dx[b, t, u, blank] -= factor * cast(x, math.exp(max(after, NEVER)))
            if u < L:
                after = before + score(x, norm, b, t, u, target[b, u]) + beta[b, t, u + 1]
                dx[b, t, u, target[b, u]] -= factor * cast(x, math.exp(max(after, NEVER)))
