"""Beam search on CUDA: a block for each sample finds one continuation after the other."""

from __future__ import annotations

from typing import Any

from ..cuda.device import block_number, cast, cuda, flat, flat_index, thread_number
from ..declare import ceil_div, cuda_kernel, helper
from ..sequence.shared import goes_on
from . import cpu
from .shared import NEVER, is_there

THREADS = 128


@helper
def value_of(
    logits: Any, score: Any, count: Any, ended: Any, norms: Any, live: Any, b: int, number: int,
    stop: int,
) -> Any:  # fmt: skip
    """The value of a continuation, `NEVER` where there is none."""
    V = logits.shape[1] // score.shape[1]
    w, v = number // V, number % V
    value = cast(logits, NEVER)
    if is_there(score[b, w]):
        if ended[b, w] != 0.0:
            if v == stop:
                value = score[b, w] / norms[int(count[b, w])]
        elif v != stop or live[b, 0] != 0.0:
            value = (score[b, w] + logits[b, number]) / norms[int(count[b, w]) + 1]
    return value


@cuda_kernel(like=cpu.beam_select, launch=lambda s: (s["B"], THREADS), bounds=THREADS)
def beam_select(
    logits, score, count, ended, norms, live, parent, symbol, new_score, new_count, new_ended, best,
    which, stop,
):  # fmt: skip
    b, thread = block_number(), thread_number()
    C, W = logits.shape[1], score.shape[1]
    V = C // W
    values = cuda.shared.array(THREADS, logits.dtype)
    numbers = cuda.shared.array(THREADS, "int32")
    last, last_number = cast(logits, 0.0), -1
    for w in range(W):
        top, number = cast(logits, NEVER), -1
        for j in range(thread, C, THREADS):
            value = value_of(logits, score, count, ended, norms, live, b, j, stop)
            comes = w == 0 or value < last or (value == last and j > last_number)
            if comes and value > top:
                top, number = value, j
        values[thread] = top
        numbers[thread] = number
        cuda.syncthreads()
        for other in range(THREADS):
            found = numbers[other]
            if found >= 0 and (
                values[other] > top or (values[other] == top and (number < 0 or found < number))
            ):
                top, number = values[other], found
        cuda.syncthreads()
        last, last_number = top, number
        if thread == 0:
            if number < 0:  # there are fewer continuations
                parent[b, w] = w
                symbol[b, w] = stop
                new_score[b, w] = NEVER
                new_count[b, w] = count[b, w] if ended[b, w] != 0.0 else count[b, w] + 1.0
                new_ended[b, w] = 1.0
            else:
                p, v = number // V, number % V
                parent[b, w] = p
                symbol[b, w] = v
                if ended[b, p] != 0.0:
                    new_score[b, w] = score[b, p]
                    new_count[b, w] = count[b, p]
                    new_ended[b, w] = 1.0
                else:
                    new_score[b, w] = score[b, p] + logits[b, number]
                    new_count[b, w] = count[b, p] + 1.0
                    new_ended[b, w] = 1.0 if v == stop else 0.0
        if number < 0:
            last = cast(logits, NEVER)


@cuda_kernel(
    like=cpu.beam_reorder, launch=lambda s: (ceil_div(s["B"] * s["C"], 256), 256), bounds=256
)
def beam_reorder(x, parent, running, y):
    i = flat_index()
    if i < x.size:
        b, j = i // x.shape[1], i % x.shape[1]
        size = x.shape[1] // parent.shape[1]
        w = j // size
        p = parent[b, w] if goes_on(running, b) else w
        flat(y)[i] = x[b, p * size + j % size]


def columns_launch(s):
    """A thread for each number of a hypothesis."""
    return ceil_div(s["B"] * (s["C"] // s["W"]), 256), 256


@cuda_kernel(like=cpu.beam_reorder_in_place, launch=columns_launch, bounds=256)
def beam_reorder_in_place(x, parent, running, room):
    W = parent.shape[1]
    size, i = x.shape[1] // W, flat_index()
    if i >= x.shape[0] * size:
        return
    b, j = i // size, i % size
    if not goes_on(running, b):
        return
    for w in range(W):
        p = parent[b, w]
        if p != w:
            room[b, w * size + j] = x[b, p * size + j]
    for w in range(W):
        if parent[b, w] != w:
            x[b, w * size + j] = room[b, w * size + j]


@cuda_kernel(like=cpu.to_ids, launch=lambda s: (ceil_div(s["N"] * s["C"], 256), 256), bounds=256)
def to_ids(x, y):
    i = flat_index()
    if i < x.size:
        flat(y)[i] = int(flat(x)[i])
