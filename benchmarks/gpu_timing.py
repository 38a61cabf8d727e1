"""Times of steps on a GPU, ours and PyTorch's, and the verdict on them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnn.kernels import control_block

Run = Callable[[int], None]
#: steps that one learning-rate table and data order serve
MOST = 4000
#: largest relative difference of a gradient, by the largest gradient of the array
AGREE = 2e-4


class Timer:
    """Seconds of so many steps, by events on the device (a clock on the CPU)."""

    def __init__(self, device: str):
        self.cuda = device != "cpu"
        if self.cuda:
            import torch

            self.torch = torch

    def __call__(self, side: Side, steps: int) -> float:
        if not self.cuda:
            start = time.perf_counter()
            side.run(steps)
            return (time.perf_counter() - start) / steps
        begin, end = side.events()
        side.record(begin)
        side.run(steps)
        side.record(end)
        return side.between(begin, end) / steps


#: the ways that `--ways compiled` takes
COMPILED = ("reduce-overhead", "compile")


class Side:
    """Something that is timed on PyTorch's stream."""

    def __init__(self, step: Callable[[], None]):
        self.step = step

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def events(self) -> tuple[Any, Any]:
        import torch

        torch.cuda.synchronize()
        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def record(self, event: Any) -> None:
        event.record()

    def between(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


class Ours(Side):
    """A bound program of fastnn's, on its own stream."""

    def __init__(self, session: Any, bound: Any):
        self.session, self.bound = session, bound

    def run(self, steps: int) -> None:
        """Send so many steps; the clock begins anew."""
        session = self.session
        session.control[[control_block.CURSOR, control_block.RUN_STEP, control_block.STOP]] = 0
        if session.device == "cpu":
            session.run([(self.bound, steps)], lambda: None)
            return
        session.runtime.device_control.forget()
        session.runtime.acquire([self.bound])
        for _ in range(steps):
            self.bound.launch()

    def events(self) -> tuple[Any, Any]:
        gpu = self.session.runtime.gpu
        gpu.sync()
        options = gpu.core.EventOptions(timing_enabled=True)
        return tuple(gpu.stream.device.create_event(options) for _ in range(2))  # type: ignore[return-value]

    def record(self, event: Any) -> None:
        self.session.runtime.gpu.stream.record(event)

    def between(self, begin: Any, end: Any) -> float:
        end.sync()
        return float(end - begin) / 1e3


def apart(mine: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, by the largest number of the peer's; NaN if a number is."""
    return float(np.abs(mine - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def timed(sides: dict[str, Side], timer: Timer, turns: int, budget: float) -> dict[str, Any]:
    """Median and minimum seconds of a step; sides take turns."""
    steps = {}
    for name, side in sides.items():
        side.run(5)
        once = min(timer(side, 3) for _ in range(3))
        steps[name] = max(3, min(MOST - 8, int(budget / turns / max(once, 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            times[name].append(timer(side, steps[name]))
    return {
        n: {"median": statistics.median(t), "minimum": min(t), "host": host(sides[n], timer)}
        for n, t in times.items()
    }


def host(side: Side, timer: Timer, steps: int = 20) -> float:
    """Seconds of this process's CPUs to send a step: the least of three turns."""
    found = []
    for _ in range(3):
        if timer.cuda:
            side.events()  # waits until there is nothing to do
        start = time.process_time()
        side.run(steps)
        found.append((time.process_time() - start) / steps)
    return min(found)


def finish(
    name: str, sides: dict[str, Side], goal: dict[str, float], options: Any, timer: Timer,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    times = timed(sides, timer, options.turns, options.budget)
    mine = times["fastnn"]["median"]
    ratios = {n: t["median"] / mine for n, t in times.items() if n != "fastnn"}
    row = {"name": name, "seconds": times, "ratios": ratios, "goal": goal, **more}
    judge(row)
    print(line(row), file=sys.stderr, flush=True)
    return row


def chosen(ways: Sequence[str], options: Any) -> list[str]:
    """Those of a row's ways that are taken now."""
    if options.ways == "all":
        return list(ways)
    return [way for way in ways if (way in COMPILED) == (options.ways == "compiled")]


def judge(row: dict[str, Any]) -> None:
    """The verdict: against the best way there is, and against each goal. (A copy of memory is a
    yardstick, and no peer.)"""
    peers = {n: r for n, r in row["ratios"].items() if n != "copy"}
    row["best"] = min(peers, key=lambda n: peers[n]) if peers else None
    row["times_best"] = peers[row["best"]] if peers else None
    missing = [n for n in row["goal"] if n not in peers]
    short = [n for n, goal in row["goal"].items() if n in peers and peers[n] < goal]
    row["verdict"] = "short" if short else "open" if missing or not peers else "met"


def joined(row: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A row and what another turn has found of the same: ratios were taken against fastnn in the
    same turn, each."""
    found = {**row, "ratios": {**row["ratios"], **more["ratios"]}}
    found["seconds"] = {**more["seconds"], **row["seconds"]}
    found["failed"] = {**row.get("failed", {}), **more.get("failed", {})}
    judge(found)
    return found


def line(row: dict[str, Any]) -> str:
    times = ", ".join(f"{n} {t['median'] * 1e6:,.1f}" for n, t in row["seconds"].items())
    goals = ", ".join(
        f"{row['ratios'][n]:.2f} x {n} (goal {g})" if n in row["ratios"] else f"no {n}"
        for n, g in row["goal"].items()
    )
    failed = "".join(f"; {n} failed: {e}" for n, e in row.get("failed", {}).items())
    host = ", ".join(f"{n} {t['host'] * 1e6:,.1f}" for n, t in row["seconds"].items())
    best = f"{row['times_best']:.2f} x the best, {row['best']}" if row["best"] else "no peer"
    verdict = f"{best}: {row['verdict']}{failed}"
    return f"{row['name']}: median us {times}; host us {host}; {goals}; {verdict}"
