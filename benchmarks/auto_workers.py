"""What `workers="auto"` costs beside the better of one and two workers, also on a busy machine.

    python -m benchmarks.auto_workers [--competitor] [--only LSTM]

Each net is trained in turns on one worker, on two, and on as many as prove quickest: the same net
in the same memory, since where arrays happen to lie makes a difference of up to 20 %. What "auto"
has to find out is not left out: its first steps are its side's first turn, which is shown by
itself. With `--competitor` a process that does nothing but count keeps the second core busy.
Multi-layer perceptrons run as in `fit`, recurrent nets by a compiled step, one call of Python's
each. It takes about five minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import harness, mlp, recurrent
from fastnn import nn, optim
from fastnn.engine.arrays import NO_ARRAYS, as_arrays
from fastnn.kernels import control_block
from fastnn.runtime.cpu.team import Description, prepare
from fastnn.train.feeds import ArrayFeed

WORKERS: tuple[int | str, ...] = (1, 2, "auto")
#: seconds that a turn of a side takes, how many each has, and how many at least where that would
#: take more seconds than `LONGEST`
TURN, TURNS, FEWEST, LONGEST = 0.15, 14, 5, 12.0
#: what the better of the fixed numbers may be ahead by
ALLOWED = 1.05

#: a net: makes so many steps on a number of workers; on how many "auto" runs at present
Net = tuple[Callable[["int | str", int], None], Callable[[], int]]


def perceptron(sizes: tuple[int, ...], batch: int, optimizer: str) -> Net:
    _, trainer = mlp.ours(sizes, batch, "auto", optimizer)
    session, rng = trainer.session, np.random.default_rng(0)
    x = rng.standard_normal((2048, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], 2048)
    feed = ArrayFeed(
        trainer, (as_arrays(x, "x", "x"), as_arrays(y, "y", "y"), NO_ARRAYS), batch, True, True
    )
    feed.rates[:] = trainer.rates(feed.steps)
    runtime: Any = session.runtime

    def steps(workers: int | str, count: int) -> None:
        if workers != runtime.workers:
            runtime.workers, runtime._described = workers, None
        while count > 0:
            now = min(count, feed.steps)
            session.control[[control_block.CURSOR, control_block.RUN_STEP, control_block.STOP]] = 0
            runtime.run([(feed.full, now)], lambda: None)
            count -= now

    def running() -> int:
        runtime.workers, runtime._described = "auto", None
        return int(runtime.count(feed.full.program))

    return steps, running


def recurrence(kind: str, size: tuple[int, int, int, int], varying: bool) -> Net:
    data = recurrent.Data(size, True, varying)
    model = recurrent.Model(kind, size[2], size[3], True)
    loss = nn.CrossEntropyLoss(ignore_index=-100 if varying else None)
    step = fnn.compile(model, loss, optim.Adam(lr=1e-3), workers="auto")
    inputs = (data.x, data.lengths) if varying else data.x
    step(inputs, data.y)
    ready, _ = step.ready(inputs, data.y, None)
    single: Any = ready.single
    segments = single.description.segments
    runs: dict[int | str, Any] = {"auto": (single.description, single.execute)}
    for workers in (1, 2):
        description = Description(segments, single.control, workers)
        runs[workers] = description, prepare(description, True)

    def steps(workers: int | str, count: int) -> None:
        single.description, single.execute = runs[workers]
        for _ in range(count):
            step(inputs, data.y)

    return steps, lambda: int(step.session.runtime.count(ready.bound.program))


def workloads() -> dict[str, Callable[[], Net]]:
    """The nets of `benchmarks.mlp` and `benchmarks.recurrent`, and nets of one sequence that ends
    before its last step."""
    found: dict[str, Callable[[], Net]] = {}
    for name, sizes, batch, optimizer in mlp.WORKLOADS:
        found[f"{name} B{batch}"] = functools.partial(perceptron, sizes, batch, optimizer)
    plan = [(size, False) for size in recurrent.SIZES]
    plan += [(recurrent.VARYING, True), (recurrent.SIZES[2], True)]
    for size, varying in plan:
        for kind in recurrent.KINDS:
            shape = f"T{size[0]} B{size[1]} H{size[3]}" + ", lengths" * varying
            found[f"{kind} {shape}"] = functools.partial(recurrence, kind, size, varying)
    return found


@contextlib.contextmanager
def competitor(core: int) -> Iterator[None]:
    """A process that keeps a core busy for so long."""
    code = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(
    name: str, net: Net, turn: float = TURN, turns: int = TURNS, longest: float = LONGEST
) -> dict[str, Any]:
    """Median seconds of a step on each side, and what "auto" took in its first turn."""
    steps, running = net
    once = min(harness.seconds_per_step(functools.partial(steps, 1), 1) for _ in range(3))
    count = max(1, round(turn / 10 / max(once, 1e-7)))
    turns = min(turns, max(FEWEST, round(longest / 3 / max(turn, once))))
    times: dict[int | str, list[float]] = {workers: [] for workers in WORKERS}
    for k in range(turns):
        for workers in WORKERS[k % 3 :] + WORKERS[: k % 3]:  # nobody is always behind the same
            done, begun = 0, time.perf_counter()
            while (taken := time.perf_counter() - begun) < turn:
                steps(workers, count)
                done += count
            times[workers].append(taken / done)
    middle = {workers: statistics.median(found[1:]) for workers, found in times.items()}
    best = times[min((1, 2), key=lambda workers: middle[workers])]
    return {
        "workload": name, "seconds": {str(w): t for w, t in middle.items()},
        "first": times["auto"][0], "runs_on": running(),
        # of turns of the same round: neighbours slow all sides down
        "over_best": statistics.median(
            mine / other for mine, other in zip(times["auto"][1:], best[1:], strict=True)
        ),
        "first_over_best": times["auto"][0] / statistics.median(best[1:]),
        "turns": turns,
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    times = " ".join(f"{harness.microseconds(row['seconds'][str(w)]):>9}" for w in WORKERS)
    more = "" if row["over_best"] <= ALLOWED else "  more than allowed"
    return (
        f"{row['workload']:>32} {times} us, on {row['runs_on']}: {row['over_best']:.3f} of the "
        f"better one's time, {row['first_over_best']:.2f} in the first turn{more}"
    )


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--competitor", action="store_true", help="keep the second core busy")
    parser.add_argument("--only", default="", help="nets whose names contain this")
    parser.add_argument("--turn", type=float, default=TURN, help="seconds of a side's turn")
    parser.add_argument("--turns", type=int, default=TURNS)
    options = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        raise SystemExit("expected two cores to run on; there is nothing to choose on one")
    busy = competitor(cores[1]) if options.competitor else contextlib.nullcontext()
    rows = []
    with busy:
        print(f"{'':>32} {'1 worker':>9} {'2':>9} {'auto':>9}", file=sys.stderr)
        for name, made in workloads().items():
            if options.only in name:
                rows.append(measure(name, made(), options.turn, options.turns))
                print(line(rows[-1]), file=sys.stderr, flush=True)
    command = "python -m benchmarks.auto_workers" + " --competitor" * options.competitor
    if not options.only:
        path = harness.write("auto-workers" + "-busy" * options.competitor, command, rows)
        print(f"written to {path.name}")
    return rows


if __name__ == "__main__":
    main()
