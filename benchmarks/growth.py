"""How the cost of training grows: processor time and memory of a step, one size at a time.

python -m benchmarks.growth

For each size the exponent is the slope between its last two values: time or memory per sample goes
like size ** exponent. Memory is what the step's program works in: activations, gradients and what
is saved for the way back ("work"), and parameters with what the optimiser keeps ("state").
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import harness
from benchmarks.recurrent import CLASSES, Model
from fastnn import nn
from fastnn.engine.arrays import NO_ARRAYS, as_arrays
from fastnn.kernels import control_block
from fastnn.runtime.cpu.team import Description, own_team
from fastnn.train.feeds import ArrayFeed

#: what an LSTM's or an MLP's step is like, unless its size varies
LSTM = {"width": 128, "batch": 16, "steps": 50, "samples": 64}
MLP = {"width": 256, "batch": 64, "layers": 2, "samples": 512}
GROWTH: list[tuple[str, str, tuple[int, ...]]] = [
    ("MLP", "width", (64, 128, 256, 512, 1024)),
    ("MLP", "batch", (1, 4, 16, 64, 256)),
    ("MLP", "layers", (1, 2, 4, 8)),
    ("MLP", "samples", (512, 2048, 8192)),
    ("MLP", "workers", (1, 2, 4, 16)),
    ("LSTM", "width", (32, 64, 128, 256)),
    ("LSTM", "batch", (1, 4, 16, 64)),
    ("LSTM", "steps", (25, 50, 100, 200)),
    ("LSTM", "samples", (64, 256, 1024)),
]


def feed_of(kind: str, size: dict[str, int]) -> ArrayFeed:
    """A trainer's feed for random data."""
    width, rng = size["width"], np.random.default_rng(0)
    samples = max(size["samples"], size["batch"])
    if kind == "LSTM":
        model: nn.Module = Model("LSTM", 32, width, False)
        shape: tuple[int, ...] = samples, size["steps"], 32
    else:
        layers: list[nn.Module] = []
        for _ in range(size["layers"]):
            layers += [nn.Linear(width, width), nn.ReLU()]
        model, shape = nn.Sequential(*layers, nn.Linear(width, CLASSES)), (samples, width)
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), "adam", workers=size.get("workers", 1))
    x = rng.standard_normal(shape).astype(np.float32)
    y = rng.integers(0, CLASSES, samples)
    data = as_arrays(x, "x", "x"), as_arrays(y, "y", "y"), NO_ARRAYS
    feed = ArrayFeed(trainer, data, size["batch"], True, True)
    feed.rates[:] = trainer.rates(feed.steps)
    return feed


def steps_of(feed: ArrayFeed, workers: int) -> Callable[[int], None]:
    """So many steps of a feed."""
    session: Any = feed.trainer.session

    def steps(count: int) -> None:
        while count > 0:
            now = min(count, feed.steps)
            session.control[[control_block.CURSOR, control_block.RUN_STEP, control_block.STOP]] = 0
            own_team(workers).call(Description([(feed.full, now)], session.control, workers))
            count -= now

    return steps


def memory_of(feed: ArrayFeed) -> tuple[int, int]:
    """Bytes that a step works in, and bytes of parameters with what the optimiser keeps."""
    bound: Any = feed.full
    sizes = bound.segment_sizes()
    state = sum(n for s, n in sizes.items() if s == "params" or s.startswith("slots/"))
    return sum(sizes.get(s, 0) for s in ("work", "local", "constant", "input")), state


def measured(kind: str, name: str, value: int, budget: float) -> dict[str, Any]:
    """Processor time and memory of a step of this size."""
    size = {**(LSTM if kind == "LSTM" else MLP), name: value}
    feed = feed_of(kind, size)
    steps = steps_of(feed, size.get("workers", 1))
    clock = time.process_time
    found = harness.alternate({"fastnn": steps}, 5, budget, clock=clock)["fastnn"]
    work, state = memory_of(feed)
    return {
        "kind": kind, "size": name, "value": value, "step": found["minimum"],
        "per_sample": found["minimum"] / size["batch"], "work": work, "state": state,
        "work_per_sample": work / size["batch"],
    }  # fmt: skip


def exponent(rows: list[dict[str, Any]], what: str) -> float:
    """The slope of the last two values, in logarithms."""
    a, b = rows[-2], rows[-1]
    return math.log(b[what] / a[what]) / math.log(b["value"] / a["value"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=0.5, help="seconds for each size")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| | size | values | µs per sample | exponent | KB per sample | exponent |")
    print("|---|---|---|---|---|---|---|")
    for kind, name, values in GROWTH:
        mine = [measured(kind, name, value, options.budget) for value in values]
        rows += mine
        times = " ".join(harness.microseconds(r["per_sample"]) for r in mine)
        memory = " ".join(f"{r['work_per_sample'] / 1e3:,.1f}" for r in mine)
        print(
            f"| {kind} | {name} | {' '.join(map(str, values))} | {times} | "
            f"{exponent(mine, 'per_sample'):.2f} | {memory} | "
            f"{exponent(mine, 'work_per_sample'):.2f} |",
            flush=True,
        )
    path = harness.write("growth", "python -m benchmarks.growth", rows)
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
