"""Conditional random fields on CUDA: a block for each sequence, a thread for each tag."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..ctc.shared import NEVER, ZERO, in_place, lowered, probability
from ..cuda.device import (
    INFINITY,
    block_number,
    block_threads,
    cast,
    cuda,
    flat_index,
    power_of_2,
    thread_number,
)
from ..declare import ceil_div, cuda_kernel, helper
from ..simd import fma, maximum
from ..vector_math import NAN
from . import cpu
from .shared import (
    ALPHA,
    BETA,
    END,
    END_E,
    FROM,
    FROM_E,
    NEXT,
    SCORE,
    START,
    START_E,
    row,
    step,
    table,
    tag_count,
)


def launch(s: dict[str, int]) -> tuple[int, int]:
    """A block for each sequence."""
    return s["B"], power_of_2(s["C"], 32, 256)


@helper
def enter(v: Any, shift: Any, work: Any, b: int, m_at: int, e_at: int) -> Any:
    """e^(v - shift) as m and e; 0 is returned, or NaN for NaN or infinity."""
    m, e = probability(v - shift)
    work[b, m_at] = m
    work[b, e_at] = e
    return cast(v, 0.0) if v < INFINITY else cast(v, NAN)


@helper
def prepare(
    transitions: Any, start: Any, end: Any, work: Any, b: int, C: int, M: int
) -> Any:  # fmt: skip
    """The table of transitions, and the rows of beginning and end; NaN if a score is no number."""
    zero = cast(work, 0.0)
    unknown = zero
    for j in range(thread_number(), C, block_threads()):
        unknown += enter(start[j], zero, work, b, row(START, C, M) + j, row(START_E, C, M) + j)
        unknown += enter(end[j], zero, work, b, row(END, C, M) + j, row(END_E, C, M) + j)
        for i in range(C):
            m_at, e_at = table(FROM, C, M, i) + j, table(FROM_E, C, M, i) + j
            unknown += enter(transitions[i, j], zero, work, b, m_at, e_at)
    return unknown


@helper
def frame_top(x: Any, b: int, t: int) -> Any:
    """The largest score of a step; 0 where no tag is possible, or one has no number."""
    top = cast(x, -INFINITY)
    for j in range(x.shape[2]):
        top = maximum(x[b, t, j], top)
    return top if top > NEVER and top < INFINITY else cast(x, 0.0)


@helper
def product(
    work: Any, b: int, m_at: int, e_at: int, tables: int, tables_e: int, stride: int, C: int
) -> tuple:
    """The sum of a row times a row (or a column, by `stride`) of a table."""
    top = cast(work, 4.0 * ZERO)
    for i in range(C):
        top = maximum(work[b, tables_e + i * stride] + work[b, e_at + i], top)
    total = cast(work, 0.0)
    for i in range(C):
        m, e = work[b, tables + i * stride], work[b, tables_e + i * stride]
        total += lowered(m * work[b, m_at + i], e + work[b, e_at + i], top)
    return total, top


@helper
def advance(work: Any, b: int, t: int, C: int, M: int) -> None:
    """`alpha` of step t from that of the step before."""
    here, scores = step(ALPHA, C, M, t), step(SCORE, C, M, t)
    before = step(ALPHA, C, M, max(t - 1, 0))
    for j in range(thread_number(), C, block_threads()):
        m, e = work[b, row(START, C, M) + j], work[b, row(START_E, C, M) + j]
        if t > 0:
            m, e = product(
                work, b, before, before + M, table(FROM, C, M, 0) + j, table(FROM_E, C, M, 0) + j,
                M, C,
            )  # fmt: skip
        m, e = in_place(m * work[b, scores + j], e + work[b, scores + M + j])
        work[b, here + j] = m
        work[b, here + M + j] = e


@helper
def retreat(work: Any, share: Any, pair: Any, b: int, t: int, C: int, M: int, top: Any) -> None:
    """The shares of the tags of step t and of the transitions to them; `beta` of the step
    before."""
    alpha, beta, following = step(ALPHA, C, M, t), row(BETA, C, M), row(NEXT, C, M)
    scores, before = step(SCORE, C, M, t), step(ALPHA, C, M, max(t - 1, 0))
    whole = cast(work, 0.0)
    for j in range(C):
        e = work[b, alpha + M + j] + work[b, beta + M + j]
        whole += lowered(work[b, alpha + j] * work[b, beta + j], e, top)
    factor = cast(work, 1.0) / whole
    for j in range(thread_number(), C, block_threads()):
        m, e = work[b, beta + j], work[b, beta + M + j]
        share[b, t, j] = lowered(work[b, alpha + j] * m, work[b, alpha + M + j] + e, top) * factor
        m, e = m * work[b, scores + j], e + work[b, scores + M + j]
        work[b, following + j] = m
        work[b, following + M + j] = e
        if t > 0:
            for i in range(C):
                m1 = work[b, table(FROM, C, M, i) + j] * work[b, before + i] * factor
                e1 = work[b, table(FROM_E, C, M, i) + j] + work[b, before + M + i]
                pair[b, i, j] += lowered(m * m1, e + e1, top)
    cuda.syncthreads()
    if t > 0:
        for i in range(thread_number(), C, block_threads()):
            m, e = product(
                work, b, following, following + M, table(FROM, C, M, i), table(FROM_E, C, M, i),
                1, C,
            )  # fmt: skip
            m, e = in_place(m, e)
            work[b, beta + i] = m
            work[b, beta + M + i] = e
    cuda.syncthreads()


@helper
def fill_pair(pair: Any, b: int, value: Any) -> None:
    """pair[b] = value, by all threads of the block."""
    for j in range(thread_number(), pair.shape[2], block_threads()):
        for i in range(pair.shape[1]):
            pair[b, i, j] = value


@cuda_kernel(like=cpu.crf_forward, launch=launch)
def crf_forward(x, target, lengths, transitions, start, end, loss, share, pair, work):
    b, C, M = block_number(), x.shape[2], share.shape[2]
    n = tag_count(target, lengths, b, C)
    fill_pair(pair, b, cast(x, NAN) if n < 0 else cast(x, 0.0))
    if n <= 0:
        if thread_number() == 0:
            loss[b] = cast(x, 0.0) if n == 0 else cast(x, NAN)
        return
    unknown = prepare(transitions, start, end, work, b, C, M)
    wanted = np.float64(end[target[b, n - 1]])
    for t in range(n):
        tag, top, scores = target[b, t], frame_top(x, b, t), step(SCORE, C, M, t)
        for j in range(thread_number(), C, block_threads()):
            unknown += enter(x[b, t, j], top, work, b, scores + j, scores + M + j)
        wanted += np.float64(x[b, t, tag]) - np.float64(top)
        wanted += np.float64(start[tag] if t == 0 else transitions[target[b, max(t - 1, 0)], tag])
    for t in range(n):  # the first step takes what the thread itself has written
        advance(work, b, t, C, M)
        cuda.syncthreads()
    last = step(ALPHA, C, M, n - 1)
    whole, top = product(work, b, last, last + M, row(END, C, M), row(END_E, C, M), 1, C)
    # every thread finds out for itself whether one of them has met what is no number
    met = cuda.syncthreads_or(1 if unknown != unknown else 0) != 0
    if met or not (wanted > NEVER):
        if thread_number() == 0:
            loss[b] = cast(x, NAN) if met else cast(x, INFINITY)
            share[b, 0, 0] = cast(x, NAN)
        fill_pair(pair, b, cast(x, NAN))
        return
    for j in range(thread_number(), C, block_threads()):
        work[b, row(BETA, C, M) + j] = work[b, row(END, C, M) + j]
        work[b, row(BETA, C, M) + M + j] = work[b, row(END_E, C, M) + j]
    cuda.syncthreads()
    for i in range(n):
        retreat(work, share, pair, b, n - 1 - i, C, M, top)
    for t in range(n):
        tag = target[b, t]
        if tag % block_threads() == thread_number():  # whose column it is
            share[b, t, tag] -= cast(x, 1.0)
            if t > 0:
                pair[b, target[b, max(t - 1, 0)], tag] -= cast(x, 1.0)
    for j in range(thread_number(), C, block_threads()):
        pair[b, C, j] = share[b, 0, j]
        pair[b, C + 1, j] = share[b, n - 1, j]
    if thread_number() == 0:
        log_whole = math.log(np.float64(whole)) + np.float64(top) * 0.6931471805599453
        loss[b] = log_whole - wanted


@cuda_kernel(like=cpu.crf_backward, launch=launch)
def crf_backward(target, lengths, share, dloss, dx):
    b, C = block_number(), dx.shape[2]
    n = tag_count(target, lengths, b, C)
    bad = n < 0
    if n > 0:
        bad = share[b, 0, 0] != share[b, 0, 0]
    for j in range(thread_number(), C, block_threads()):
        for t in range(dx.shape[1]):
            value = cast(dx, NAN) if bad else cast(dx, 0.0)
            if t < n and not bad:
                value = share[b, t, j] * dloss[b]
            dx[b, t, j] = value


@cuda_kernel(
    like=cpu.crf_backward_transitions, launch=lambda s: (ceil_div(s["C"] * s["C"], 64), 64)
)
def crf_backward_transitions(pair, dloss, dtransitions, dstart, dend):
    k, C = flat_index(), dend.shape[0]
    if k >= C * C:
        return
    i, j = k // C, k % C
    zero = cast(dloss, 0.0)
    total, first, last = zero, zero, zero
    for b in range(pair.shape[0]):
        total = fma(pair[b, i, j], dloss[b], total)
        if j == 0:
            first += pair[b, C, i] * dloss[b]
            last += pair[b, C + 1, i] * dloss[b]
    dtransitions[i, j] = total
    if j == 0:
        dstart[i] = first
        dend[i] = last
