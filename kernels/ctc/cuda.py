"""Connectionist temporal classification on CUDA: a block for each sequence, or for each frame.

The states of one frame belong to a thread each; what needs no frame before it (the softmax, the
shares of the classes) is computed for many frames at once.
"""

from __future__ import annotations

from typing import Any

from ..cuda.device import (
    INFINITY,
    block_number,
    block_sum,
    block_threads,
    cast,
    cuda,
    divide_index,
    power_of_2,
    row_launch,
    thread_number,
)
from ..declare import cuda_kernel, helper
from ..simd import maximum
from ..vector_math import NAN, exp, log
from . import cpu
from .shared import (
    NEVER,
    NO_GRADIENT,
    ZERO,
    any_of,
    either,
    frame_count,
    in_place,
    label_count,
    lowered,
    probability,
)


def launch(s: dict[str, int]) -> tuple[int, int]:
    """A block for each sequence, whose threads share the states and the frames."""
    return s["B"], power_of_2(max(s["M"], s["T"]), 32, 512)


@helper
def class_at(target: Any, b: int, k: int, L: int, blank: int) -> int:
    """The class of a column of labels: the blank's for column 0 and those past the end."""
    return target[b, k - 1] if k > 0 and k <= L else blank


@helper
def differs(target: Any, b: int, k: int, L: int) -> bool:
    """Whether label k may follow the one before it without a blank."""
    return k > 1 and k <= L and target[b, k - 1] != target[b, k - 2]


@helper
def normalise(x: Any, norm: Any, b: int, frames: int) -> None:
    """`norm` of each frame, a thread for each."""
    for t in range(thread_number(), frames, block_threads()):
        top = cast(x, -INFINITY)
        for j in range(x.shape[2]):
            top = maximum(x[b, t, j], top)
        total = cast(x, 0.0)
        for j in range(x.shape[2]):
            total += exp(x[b, t, j] - top)
        norm[b, t, 0] = top
        norm[b, t, 1] = log(total)


@helper
def score(x: Any, norm: Any, b: int, t: int, c: int) -> Any:
    """log p of a class."""
    return x[b, t, c] - norm[b, t, 0] - norm[b, t, 1]


@helper
def known(norm: Any, b: int, frames: int) -> Any:
    """0, or NaN if a frame's scores are not finite."""
    total = cast(norm, 0.0)
    for t in range(frames):
        total += (norm[b, t, 0] + norm[b, t, 1]) * cast(norm, 0.0)
    return total


@helper
def advance(
    x: Any, target: Any, norm: Any, room: Any, b: int, t: int, M: int, L: int, blank: int
) -> None:
    """`alpha` of frame t from that of the frame before."""
    one, zero, nothing = cast(x, 1.0), cast(x, 0.0), cast(x, ZERO)
    own, own_e = probability(score(x, norm, b, t, blank))
    for k in range(thread_number(), M, block_threads()):
        m0, e0, m1, e1 = one, nothing, one, nothing
        m2, e2, m3, e3 = one, nothing, one, nothing
        if t > 0:
            before = t - 1
            m0, e0 = room[b, before, k], room[b, before, M + k]
            m1, e1 = room[b, before, 2 * M + k], room[b, before, 3 * M + k]
            if k > 0:
                m2, e2 = room[b, before, k - 1], room[b, before, M + k - 1]
                m3, e3 = room[b, before, 2 * M + k - 1], room[b, before, 3 * M + k - 1]
        elif k == 0:
            e0 = zero
        elif k == 1:
            e2 = zero
        if not differs(target, b, k, L):
            e3 = nothing
        m, e = any_of(m1, e1, m2, e2, m3, e3)
        p, p_e = probability(score(x, norm, b, t, class_at(target, b, k, L, blank)))
        if k > L:
            p_e = nothing
        m, e = in_place(m * p, e + p_e)
        room[b, t, 2 * M + k] = m
        room[b, t, 3 * M + k] = e
        m, e = either(m0, e0, m1, e1)
        m, e = in_place(m * own, e + own_e)
        room[b, t, k] = m
        room[b, t, M + k] = e


@helper
def end(room: Any, b: int, t: int, M: int, L: int) -> None:
    """`beta` of the last frame."""
    for k in range(thread_number(), M, block_threads()):
        e = cast(room, 0.0) if k == L else cast(room, ZERO)
        room[b, t, 4 * M + k] = cast(room, 1.0)
        room[b, t, 5 * M + k] = e
        room[b, t, 6 * M + k] = cast(room, 1.0)
        room[b, t, 7 * M + k] = e


@helper
def retreat(
    x: Any, target: Any, norm: Any, room: Any, b: int, t: int, M: int, L: int, blank: int
) -> None:
    """`beta` of frame t - 1 from that of frame t."""
    own, own_e = probability(score(x, norm, b, t, blank))
    for k in range(thread_number(), M, block_threads()):
        m0, e0 = room[b, t, 4 * M + k] * own, room[b, t, 5 * M + k] + own_e
        p, p_e = probability(score(x, norm, b, t, class_at(target, b, k, L, blank)))
        m1, e1 = room[b, t, 6 * M + k] * p, room[b, t, 7 * M + k] + p_e
        m2, e2 = cast(x, 1.0), cast(x, ZERO)
        if k < L:
            p, p_e = probability(score(x, norm, b, t, target[b, k]))
            m2, e2 = room[b, t, 6 * M + k + 1] * p, room[b, t, 7 * M + k + 1] + p_e
        m, e = either(m0, e0, m2, e2)
        m, e = in_place(m, e)
        room[b, t - 1, 4 * M + k] = m
        room[b, t - 1, 5 * M + k] = e
        if not differs(target, b, k + 1, L):
            e2 = cast(x, ZERO)
        m, e = any_of(m1, e1, m0, e0, m2, e2)
        m, e = in_place(m, e)
        room[b, t - 1, 6 * M + k] = m
        room[b, t - 1, 7 * M + k] = e


@helper
def share_of(room: Any, b: int, t: int, k: int, M: int, top: Any) -> Any:
    """The share of the state with m in column k, times 2^top."""
    m = room[b, t, k] * room[b, t, 4 * M + k]
    return lowered(m, room[b, t, M + k] + room[b, t, 5 * M + k], top)


@cuda_kernel(like=cpu.ctc_forward, launch=launch, bounds=512)
def ctc_forward(
    x, target, lengths, target_lengths, loss, norm, share, room, work, blank, mean, zero_infinity
):
    b, T, C, M = block_number(), x.shape[1], x.shape[2], share.shape[2]
    frames = frame_count(lengths, b, T)
    L = label_count(target, target_lengths, b, C, blank)
    if frames < 0 or L < 0:
        if thread_number() == 0:
            loss[b] = NAN
        return
    normalise(x, norm, b, frames)
    cuda.syncthreads()
    for t in range(frames):
        advance(x, target, norm, room, b, t, M, L, blank)
        cuda.syncthreads()
    m, top = cast(x, 1.0), cast(x, 0.0) if L == 0 else cast(x, ZERO)
    if frames > 0:
        last = frames - 1
        m, top = either(
            room[b, last, L], room[b, last, M + L],
            room[b, last, 2 * M + L], room[b, last, 3 * M + L],
        )  # fmt: skip
    unknown = known(norm, b, frames)
    if unknown != unknown or top < cast(x, NEVER):
        if thread_number() == 0:
            infinite = cast(x, 0.0) if zero_infinity != 0 else cast(x, INFINITY)
            gradient = cast(x, NO_GRADIENT) if zero_infinity != 0 else cast(x, NAN)
            loss[b] = infinite if unknown == unknown else cast(x, NAN)
            if frames > 0:
                share[b, 0, 0] = gradient if unknown == unknown else cast(x, NAN)
        return
    if thread_number() == 0:
        count = L if mean != 0 and L > 0 else 1
        log_p = log(m) + top * cast(x, 0.6931471805599453)
        loss[b] = cast(x, 0.0) - log_p / cast(x, count)
    if frames > 0:
        end(room, b, frames - 1, M, L)
        cuda.syncthreads()
    for i in range(frames - 1):
        retreat(x, target, norm, room, b, frames - 1 - i, M, L, blank)
        cuda.syncthreads()
    for t in range(thread_number(), frames, block_threads()):
        blanks = cast(x, 0.0)
        for k in range(M):
            blanks += share_of(room, b, t, k, M, top)
            share[b, t, k] = share_of(room, b, t, 2 * M + k, M, top)
        share[b, t, 0] = blanks


@cuda_kernel(like=cpu.ctc_backward, launch=lambda s: row_launch(s["B"] * s["T"], s["C"]))
def ctc_backward(x, target, lengths, target_lengths, norm, share, dloss, dx, blank, mean):
    T, C, M = x.shape[1], x.shape[2], share.shape[2]
    b = divide_index(block_number(), T)
    t = block_number() - b * T
    frames = frame_count(lengths, b, T)
    L = label_count(target, target_lengths, b, C, blank)
    value, fixed = cast(x, 0.0), True
    if frames < 0 or L < 0:
        value = cast(x, NAN)
    elif t < frames:
        first = share[b, 0, 0]
        if first != first:
            value = cast(x, NAN)
        fixed = first != first or first == cast(x, NO_GRADIENT)
    if fixed:
        for j in range(thread_number(), C, block_threads()):
            dx[b, t, j] = value
        return
    whole = cast(x, 0.0)
    for k in range(thread_number(), M, block_threads()):
        whole += share[b, t, k]
    count = L if mean != 0 and L > 0 else 1
    factor = dloss[b] / cast(x, count)
    part = factor / block_sum(whole)
    for j in range(thread_number(), C, block_threads()):
        dx[b, t, j] = exp(score(x, norm, b, t, j)) * factor
    cuda.syncthreads()
    if thread_number() == 0:
        dx[b, t, blank] -= part * share[b, t, 0]
        for k in range(1, L + 1):
            dx[b, t, target[b, k - 1]] -= part * share[b, t, k]
