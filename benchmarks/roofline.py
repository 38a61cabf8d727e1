"""Each kernel beside the limit that holds for it: operations, functions, or bytes.

    python -m benchmarks.roofline [--only lstm] [--turns 30]

Small programs are planned as for a training, and each of their kernels is called by itself, over
all its items, again and again: the least processor time of a call counts, which neighbours on a
busy machine change little. `benchmarks.work` says how much work a call has. The limits are measured
in the same run:

- a multiply-add, or another operation on a vector, takes as long as in chains of multiply-adds
  (`benchmarks.limits`), and functions as long as in a loop of nothing else (`benchmarks.ports`);
  all of these use the same ports, so their times add up, but for roots and quotients;
- bytes take as long as in a triad over as many bytes, which are then in the same caches.

The largest of these is the least time that the call can take, and its share of the time that was
measured is how near the kernel is to its limit. An array that a kernel would write in place of one
that it reads gets memory of its own, so that each call computes the same.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import harness, limits, ports
from benchmarks.kernels import caller
from benchmarks.roofline_cases import RNG, Case, cases, floats
from benchmarks.work import Work, work_of
from fastnn.kernels.declare import KERNELS, Array, kernel_of
from fastnn.plan.program import Operand
from fastnn.runtime.segment import aligned_zeros

#: functions that have a unit of their own, beside which the other ports go on
DIVIDER = ("root", "quotient", "root and quotient")
#: numbers between the arrays of a triad: those that lie whole pages apart share lines of the caches
APART = 272
#: least seconds of a piece that is timed at once
PIECE = 200e-6


class Limits:
    """What the machine does at most: the best of all times that it was measured.

    `again` measures all that was asked for once more: on a busy machine not every moment is good.
    """

    def __init__(self) -> None:
        self.peak = limits.fma_peak() * 1e9
        self._functions: dict[str, float] = {}
        self._triads: dict[int, float] = {}

    def again(self) -> None:
        self.peak = max(self.peak, limits.fma_peak() * 1e9)
        for name, known in self._functions.items():
            self._functions[name] = min(known, ports.seconds(name))
        for halves, known in self._triads.items():
            self._triads[halves] = max(known, _triad(halves))

    def function(self, name: str) -> float:
        """Seconds for one number."""
        if name not in self._functions:
            self._functions[name] = ports.seconds(name)
        return self._functions[name]

    def triad(self, room: float) -> float:
        """Bytes a second of a triad whose arrays take about as many (a power of two's root)."""
        halves = min(max(round(2 * math.log2(max(room, 1.0))), 26), 52)
        if halves not in self._triads:
            self._triads[halves] = _triad(halves)
        return self._triads[halves]

    def of(self, work: Work) -> tuple[float, str]:
        """The least seconds that a call can take, and what holds it."""
        parts = {"multiply-adds": 2 * (work.macs + work.operations) / self.peak}
        times = {f: n * self.function(f) for f, n in work.functions.items() if n}
        parts |= {f: t for f, t in times.items() if f not in DIVIDER}
        dividing = sum(t for f, t in times.items() if f in DIVIDER)
        moving = work.bytes / self.triad(work.room or work.bytes)
        if max(moving, dividing) > sum(parts.values()):
            return max((moving, "bytes"), (dividing, "roots and quotients"))
        if not work.macs and parts["multiply-adds"] == max(parts.values()):
            return sum(parts.values()), "operations"
        return sum(parts.values()), max(parts, key=lambda name: parts[name])


def _triad(halves: int) -> float:
    """Bytes a second where all three arrays take 2 ** (`halves` / 2); lines are read before they
    are written."""
    size = int(2 ** (halves / 2)) // 12 // 64 * 64
    memory = aligned_zeros(3 * (size + APART), np.float32)
    places = {name: k * (size + APART) for k, name in enumerate("abc")}
    arrays = {name: memory[at : at + size] for name, at in places.items()}
    return 16 * size / least(caller(limits.bench_triad, 1, **arrays), 40)


def least(run: Callable[[int], None], turns: int) -> float:
    """The least seconds of a call: of pieces of some, each long enough to be timed."""
    run(1)
    begin = time.thread_time()
    run(1)
    count = max(1, math.ceil(PIECE / max(time.thread_time() - begin, 1e-7)))
    times = []
    for _ in range(turns):
        begin = time.thread_time()
        run(count)
        times.append(time.thread_time() - begin)
    return min(times) / count


def flush_to_zero() -> None:
    """Tiny numbers count as 0 on this thread, as on those that train: gradients that a call reads
    may be some, and processors take a hundred times as long for them."""
    from numba import njit

    from fastnn.runtime.cpu import machine

    njit(lambda: machine.flush_to_zero())()


def calls(case: Case) -> Iterator[tuple[Any, Callable[[int], None]]]:
    """Of each kernel that a case shows the call with most work, and what makes it."""
    step, x, y, names = case
    step(x, y)
    bound = next(iter(step._ready.values())).bound
    most: dict[str, tuple[float, int]] = {}
    for number, call in enumerate(bound.planned):
        work = work_of(call)
        if work is not None and any(name in call.kernel for name in names):
            size = work.macs + work.operations + work.bytes
            most[call.kernel] = max(most.get(call.kernel, (0.0, 0)), (size, number))
    for _, number in most.values():
        yield bound.planned[number], alone(bound, number, case)


def alone(bound: Any, number: int, case: Any = None) -> Callable[[int], None]:
    """Makes a call again and again, what it writes apart from what it reads; `case` has what it
    reads from outside of the program, and stays."""
    function, record, items = bound.alone(number)
    for memory in bound.wholes.values():  # read in parts only, pages that nobody has touched cost
        memory[...] = 0
    kept, slot, read = [], 0, set()
    call = bound.planned[number]
    for parameter, operand in zip(
        kernel_of(call.kernel).params.values(), call.operands, strict=True
    ):
        if not isinstance(parameter, Array):
            slot += 1
            continue
        if not isinstance(operand, Operand):
            pass
        elif parameter.mode == "in":
            read.add(int(record[slot]))
        elif parameter.mode in ("out", "part") and int(record[slot]) in read:
            kept.append(aligned_zeros(math.prod(operand.dims), np.float64))
            record[slot] = kept[-1].ctypes.data
        slot += 1 + len(parameter.dims)
    address = ctypes.c_int64(record.ctypes.data)

    def run(count: int, _keep: Any = (bound, record, kept, case)) -> None:
        for _ in range(count):
            function(address, 0, items)

    return run


def gathering(samples: int, width: int, batch: int) -> tuple[Work, Callable[[int], None]]:
    """A mini-batch gathered from an array in the order of a permutation."""
    from fastnn.kernels import control_block

    source = floats(samples, width)
    order = RNG.permutation(samples)
    y = aligned_zeros(batch * width, np.float32).reshape(batch, width)
    control = np.zeros(control_block.LENGTH, np.int64)
    run = caller(KERNELS["gather_rows"], 1, source=source, order=order, control=control, y=y)
    return Work(bytes=3 * y.nbytes + 8 * batch), run


def measure(
    only: str = "",
    turns: int = 30,
    rounds: int = 3,
    found: dict[str, Callable[[], Case]] | None = None,
) -> list[dict[str, Any]]:
    """A row for each kernel of each case, the least time of some rounds through all of them."""
    flush_to_zero()
    machine = Limits()
    all_of: list[tuple[str, str, Work, Callable[[int], None]]] = []
    for name, make in (cases() if found is None else found).items():
        if only in name:
            for call, run in calls(make()):
                all_of.append((name, call.kernel, work_of(call) or Work(), run))
    if only in "gather" and found is None:
        for samples, width, batch in ((10_000, 784, 128), (20_000, 20, 256)):
            work, run = gathering(samples, width, batch)
            all_of.append((f"{batch} of {samples:,} x {width}", "gather_rows", work, run))
    times = [math.inf] * len(all_of)
    for _ in range(rounds):
        for k, (_, _, work, run) in enumerate(all_of):
            times[k] = min(times[k], least(run, turns))
            machine.of(work)
        machine.again()
    rows = []
    for (case, kernel, work, _), taken in zip(all_of, times, strict=True):
        limit, what = machine.of(work)
        rows.append(
            {
                "row": f"{case}: {kernel}", "case": case, "kernel": kernel, "time": taken,
                "limit": what, "least": limit, "share_of_limit": limit / taken,
                "gflops": 2 * work.macs / taken / 1e9, "gbytes": work.bytes / taken / 1e9,
                "macs": work.macs, "bytes": work.bytes,
            }
        )  # fmt: skip
        print(line(rows[-1]), file=sys.stderr, flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['case']:>24} {row['kernel']:<30} {1e6 * row['time']:>10,.1f} us, "
        f"{row['share_of_limit']:5.0%} of {row['limit']}, {row['gflops']:.1f} GFLOP/s, "
        f"{row['gbytes']:.1f} GB/s"
    )


def table(found: dict[str, Any]) -> str:
    rows = [
        {
            "case": row["case"], "kernel": row["kernel"],
            "µs": harness.microseconds(row["time"]),
            "GFLOP/s": f"{row['gflops']:.1f}" if row["macs"] else "",
            "GB/s": f"{row['gbytes']:.1f}", "limit": row["limit"],
            "share of it": harness.ranged(found, row, "share_of_limit", ".0%"),
        }
        for row in found["rows"]
    ]  # fmt: skip
    return harness.table(rows, list(rows[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose names contain this")
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args()
    rows = measure(options.only, options.turns)
    if not options.only:
        path = harness.write(
            "roofline", "python -m benchmarks.roofline", rows, fma_peak_gflops=limits.fma_peak()
        )
        print(f"written to {path.name}")


if __name__ == "__main__":
    main()
