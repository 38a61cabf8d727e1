"""What a step of `ops.loop` costs in a short loop and in a long one, and what planning them costs.

    python -m benchmarks.loop_lengths [--lengths 20 200 2000] [--repeats 15]

One worker, float32, processor time, the least of so many repeats, lengths in turns. Each run makes
the same number of steps in all: many short loops, or few long ones. What is computed is a cell
``h' = tanh(x W + h U + b)``, "forward" (a prediction of the last state) and "train" (a training
step of it, SGD). The state's size and the batch say how much memory a step has to keep for the
backward pass.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import harness
from fastnn import nn, ops, optim
from fastnn.engine.arrays import NO_ARRAYS, as_arrays
from fastnn.kernels import control_block
from fastnn.train.feeds import ArrayFeed

#: (batch, state): from a step that keeps some hundred bytes to one that keeps 100 KB
SIZES = [(1, 8), (8, 32), (32, 128)]


class Last(nn.Module):
    """The last state of a loop over time."""

    def __init__(self, features: int, hidden: int) -> None:
        self.hidden = hidden
        self.enters, self.carries = nn.Linear(features, hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, h: Any) -> tuple[Any, Any]:
            h = ops.tanh(self.enters(x_t) + self.carries(h))
            return h, h

        return ops.loop(step, x, ops.zeros_state(x, self.hidden))[1]


def least(runs: dict[Any, Callable[[], None]], repeats: int) -> dict[Any, float]:
    """The least processor time of each, in turns."""
    found = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for key, run in runs.items():
            begin = time.process_time()
            run()
            found[key] = min(found[key], time.process_time() - begin)
    return found


def train(length: int, batch: int, hidden: int, total: int) -> Callable[[], None]:
    """Training steps with `total` steps of their loops in all."""
    model = Last(8, hidden)
    trainer = fnn.Trainer(model, nn.MSELoss(), optim.SGD(lr=1e-6), workers=1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, length, 8)).astype(np.float32)
    y = rng.standard_normal((batch, hidden)).astype(np.float32)
    feed = ArrayFeed(
        trainer, (as_arrays(x, "x", "x"), as_arrays(y, "y", "y"), NO_ARRAYS), batch, True, True
    )
    session, count = trainer.session, max(total // length, 1)
    team = session.runtime.team(feed.full.program)
    feed.rates[:] = trainer.rates(feed.steps)

    def run() -> None:
        for _ in range(count):
            session.control[[control_block.CURSOR, control_block.RUN_STEP, control_block.STOP]] = 0
            team.call(team.describe([(feed.full, 1)], session.control))

    return run


def forward(length: int, batch: int, hidden: int, total: int) -> Callable[[], None]:
    """Predictions, likewise."""
    model, count = Last(8, hidden), max(total // length, 1)
    x = np.random.default_rng(0).standard_normal((batch, length, 8)).astype(np.float32)

    def run() -> None:
        for _ in range(count):
            model.predict(x)

    return run


def planning(length: int) -> Callable[[], None]:
    """Tracing and planning a training step, from the start."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, length, 8)).astype(np.float32)
    y = rng.standard_normal((4, 16)).astype(np.float32)

    def run() -> None:
        step = fnn.compile(Last(8, 16), "mse", optim.SGD(lr=1e-6))
        inputs, targets, weights = step._checked(x, y)
        builder = step._traced("train", 4, (inputs.specs, targets.specs, weights.specs))
        builder.check_finite(builder.places["loss"])
        step.add_updates(builder)
        builder.finish()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--total", type=int, default=4000, help="steps of a run, all loops together"
    )
    options = parser.parse_args()
    rows = [
        {"row": f"traced and planned, {n} steps", "microseconds": 1e6 * seconds}
        for n, seconds in least({n: planning(n) for n in options.lengths}, options.repeats).items()
    ]
    for name, make in (("forward", forward), ("train", train)):
        for batch, hidden in SIZES:
            runs = {n: make(n, batch, hidden, options.total) for n in options.lengths}
            for run in runs.values():
                run()
            for n, seconds in least(runs, options.repeats).items():
                steps = max(options.total // n, 1) * n
                what = f"{name}, batch {batch}, state {hidden}, {n} steps: each"
                rows.append({"row": what, "microseconds": 1e6 * seconds / steps})
    print(table(rows))
    harness.write("loop-lengths", "python -m benchmarks.loop_lengths", rows)


def table(rows: list[dict[str, Any]]) -> str:
    shown = [{"what": row["row"], "µs": f"{row['microseconds']:,.3f}"} for row in rows]
    return harness.table(shown, ["what", "µs"])


if __name__ == "__main__":
    main()
