"""The machine's limits as fastnn's own code meets them: multiply-add peak and memory bandwidth."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from threading import Thread

import numpy as np

from fastnn.kernels.cpu import target
from fastnn.kernels.declare import kernel
from fastnn.kernels.simd import fma, lanes, load, splat, store
from fastnn.runtime.cpu import compiler
from fastnn.runtime.segment import aligned_zeros
from fastnn.testing.kernels import record

#: independent chains: enough to hide the latency of the multiply-add on all known cores
CHAINS = 12


@kernel
def bench_fma(x: "inout whole f[N]", times: "int"):
    """Twelve chains of multiply-adds in registers, `times` rounds."""
    a = b = c = d = e = f = load(x, 0)
    g = h = k = m = n = o = load(x, lanes(x))
    s = splat(x, 0.999)
    for _ in range(times):
        a, b, c, d = fma(a, s, s), fma(b, s, s), fma(c, s, s), fma(d, s, s)
        e, f, g, h = fma(e, s, s), fma(f, s, s), fma(g, s, s), fma(h, s, s)
        k, m, n, o = fma(k, s, s), fma(m, s, s), fma(n, s, s), fma(o, s, s)
    store(x, 0, a + b + c + d + e + f + g + h + k + m + n + o)


@kernel
def bench_triad(a: "out rows f[N]", b: "in rows f[N]", c: "in rows f[N]", lo: "begin", hi: "end"):
    """a = b + 3 c, streaming."""
    i = lo
    while i < hi:
        store(a, i, fma(load(c, i), 3.0, load(b, i)))
        i += lanes(a)


def fma_peak() -> float:
    """GFLOP/s of one core, float32."""
    x = np.full(64, 0.5, np.float32)
    times = 200_000
    words, *_ = record(bench_fma, {"x": x, "times": times})
    function = compiler.CALL(compiler.address(bench_fma, "float32"))
    width = target.host().lanes(4)
    best = min(_seconds(lambda: function(words.ctypes.data, 0, 1)) for _ in range(7))
    return 2 * CHAINS * width * times / best / 1e9


def bandwidth(threads: int = 1) -> float:
    """GB/s that a triad moves (three streams; the write counts once, as it is not read first by
    design but by the cache: the machine moves a third more)."""
    size = 16 * 1024 * 1024
    arrays = {name: aligned_zeros(size, np.float32) for name in "abc"}
    words, *_ = record(bench_triad, arrays)
    function = compiler.CALL(compiler.address(bench_triad, "float32"))
    address = ctypes.c_int64(words.ctypes.data).value
    share = size // threads

    def run() -> None:
        team = [
            Thread(target=function, args=(address, k * share, (k + 1) * share))
            for k in range(threads)
        ]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()

    run()
    best = min(_seconds(run) for _ in range(7))
    return 3 * 4 * size / best / 1e9


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
