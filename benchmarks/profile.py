"""Where the time of a step goes: each call of a program timed in its place, whole ranges.

python -m benchmarks.profile mlp 128
python -m benchmarks.profile wide 256
python -m benchmarks.profile lstm 32

The calls of the program run one by one, in order, step after step, so each finds the caches as
the call before left them; beside it the step as the run loop does it, in blocks.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import time
from collections import defaultdict
from typing import Any

import numpy as np
from tabulate import tabulate

import fastnn as fnn
from benchmarks.limits import fma_peak
from fastnn import nn, optim


def make(name: str, batch: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """A compiled step and its mini-batch."""
    rng = np.random.default_rng(0)
    if name in ("mlp", "wide"):
        sizes = [784, 128, 10] if name == "mlp" else [784, 2048, 2048, 2048, 10]
        layers: list[Any] = []
        for c, k in itertools.pairwise(sizes):
            layers += [nn.Linear(c, k), nn.ReLU()]
        optimizer = optim.Adam(lr=1e-3) if name == "mlp" else optim.SGD(lr=1e-3, momentum=0.9)
        model = nn.Sequential(*layers[:-1])
        x = rng.standard_normal((batch, 784)).astype(np.float32)
        y = rng.integers(0, 10, batch)
    else:
        cell = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[name]
        steps, inputs, hidden = 100, 40, 64 if batch == 1 else 128

        class Net(nn.Module):
            def __init__(self) -> None:
                self.cell, self.out = cell(inputs, hidden), nn.Linear(hidden, 10)

            def forward(self, x: Any) -> Any:
                return self.out(self.cell(x)[0])

        model, optimizer = Net(), optim.Adam(lr=1e-3)
        x = rng.standard_normal((batch, steps, inputs)).astype(np.float32)
        y = rng.integers(0, 10, (batch, steps))
    return fnn.compile(model, nn.CrossEntropyLoss(), optimizer, workers=1), x, y


def main(name: str, batch: int, repeats: int = 200) -> None:
    step, x, y = make(name, batch)
    step(x, y)
    bound = next(iter(step._ready.values())).bound
    run = [bound.alone(k) for k in range(len(bound.planned))]
    times: list[list[int]] = [[] for _ in run]
    steps = []
    clock = time.perf_counter_ns
    empty = min(_empty(clock) for _ in range(1000))
    for _ in range(repeats):
        before = step._control.copy()
        for k, (function, record, count) in enumerate(run):
            address = ctypes.c_int64(record.ctypes.data)
            begin = clock()
            function(address, 0, count)
            times[k].append(clock() - begin - empty)
        step._control[:] = before
        for _ in range(3):
            begin = clock()
            step(x, y)
            end = clock()
        steps.append(end - begin)
    totals: dict[str, float] = defaultdict(float)
    rows = []
    for call, mine in zip(bound.planned, times, strict=True):
        us = float(np.median(mine)) / 1e3
        totals[call.kernel] += us
        rows.append((call.kernel, call.scope, round(us, 2), round(min(mine) / 1e3, 2)))
    if len(rows) < 60:
        print(tabulate(rows, ["kernel", "layer", "median us", "min us"]))
    print(tabulate(sorted(totals.items(), key=lambda p: -p[1]), ["kernel", "us"], floatfmt=".1f"))
    print(f"sum of calls {sum(totals.values()):.1f} us; the step {np.median(steps) / 1e3:.1f} us "
          f"(min {min(steps) / 1e3:.1f}); FMA peak {fma_peak():.0f} GFLOP/s")  # fmt: skip


def _empty(clock: Any) -> int:
    begin = clock()
    return int(clock() - begin)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *[int(v) for v in sys.argv[3:4]])
