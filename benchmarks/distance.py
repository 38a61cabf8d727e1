"""How far two cores are from each other: a word's way to the other one and back.

    python -m benchmarks.distance

The host of a virtual machine moves its processors about. Where two of them share a cache the way
takes some 50 ns, where they don't 300, and two workers that share a small net then take longer than
one. So a benchmark on two threads looks at it before and after each round of turns.
"""

from __future__ import annotations

import os
import time
from threading import Thread
from typing import Any

import numpy as np
from numba import njit

from fastnn.runtime.cpu.machine import atomic_load, atomic_store

#: how often the word travels in a measurement, and how many measurements of which the least counts
TRIPS, TIMES = 500, 4


@njit(nogil=True)
def _lead(word: int, first: int, last: int) -> None:
    for k in range(first, last):
        atomic_store(word, 2 * k + 1)
        while atomic_load(word) != 2 * k + 2:
            pass


@njit(nogil=True)
def _follow(word: int, first: int, last: int) -> None:
    for k in range(first, last):
        while atomic_load(word) != 2 * k + 1:
            pass
        atomic_store(word, 2 * k + 2)


def round_trip() -> float:
    """Nanoseconds that a word takes to another core and back, between the first two cores that
    this thread may run on; 0 where there is only one."""
    allowed = getattr(os, "sched_getaffinity", lambda _: set[int]())(0)
    if len(allowed) < 2:
        return 0.0
    first, second, *_ = sorted(allowed)
    word: Any = np.zeros(16, np.int64)
    address = int(word.ctypes.data)
    _lead(address, 0, 0)
    _follow(address, 0, 0)  # compiled

    def follow() -> None:
        os.sched_setaffinity(0, [second])
        _follow(address, 0, TRIPS * (TIMES + 1))

    other = Thread(target=follow)
    other.start()
    found = []
    try:
        os.sched_setaffinity(0, [first])
        for k in range(TIMES + 1):
            begun = time.perf_counter()
            _lead(address, TRIPS * k, TRIPS * (k + 1))
            found.append((time.perf_counter() - begun) / TRIPS * 1e9)
    finally:
        os.sched_setaffinity(0, allowed)
        other.join()
    return min(found[1:])


if __name__ == "__main__":
    for _ in range(20):
        print(f"{round_trip():.0f} ns")
        time.sleep(0.5)
