"""Several kernels one after the other by several threads, as in a training's step: a barrier behind
each, at which threads wait awake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

import numba
import numpy as np

from fastnn.kernels.declare import Kernel
from fastnn.runtime.cpu import compiler
from fastnn.runtime.cpu.layout import BARRIER_WORDS
from fastnn.runtime.cpu.loop import last_to_arrive, meet, open_barrier
from fastnn.runtime.cpu.machine import call_address
from fastnn.testing.kernels import record


@numba.njit(nogil=True)
def work(calls: Any, barrier: int, worker: int, workers: int, times: int) -> None:
    """So many steps of the calls, as one of the workers; a row of `calls` is the address of code
    and record, and where the share of each worker begins."""
    passed = 0
    for _ in range(times):
        for k in range(calls.shape[0]):
            call_address(calls[k, 0], calls[k, 1], calls[k, worker + 2], calls[k, worker + 3])
            if last_to_arrive(barrier, workers, passed):
                open_barrier(barrier, passed, 0)
            else:
                meet(barrier, passed)
            passed += 1


def shares(items: int, grain: int, workers: int) -> list[int]:
    """Where the shares begin, and the end, as the run loop cuts them."""
    blocks = -(-items // grain)
    return [min(items, blocks * k // workers * grain) for k in range(workers + 1)]


def steps_of(calls: Sequence[tuple[Kernel, dict[str, Any]]], workers: int) -> Callable[[int], None]:
    """A function that makes so many steps of the calls, each by all workers."""
    rows, kept = [], []
    for kernel, operands in calls:
        words, dtype, data_dtype, items = record(kernel, operands)
        kept.append((words, operands))
        address = compiler.address(kernel, dtype, data_dtype)
        rows.append([address, words.ctypes.data, *shares(items, kernel.grain, workers)])
    table = np.array(rows, np.int64)
    barrier = np.zeros(BARRIER_WORDS, np.int64)

    def steps(count: int, _keep: Any = kept) -> None:
        barrier[:] = 0
        others = [
            Thread(target=work, args=(table, barrier.ctypes.data, k, workers, count))
            for k in range(1, workers)
        ]
        for thread in others:
            thread.start()
        work(table, barrier.ctypes.data, 0, workers, count)
        for thread in others:
            thread.join()

    return steps
