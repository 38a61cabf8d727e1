"""How the cost of training grows: processor time and memory of a step, one size at a time.

    python -m benchmarks.growth [--picture growth.png] [--largest]

For each size the exponent is the slope between its last two values: time or memory per sample goes
like size ** exponent. Memory is what the step's program works in: the batch, activations, gradients
and what is saved for the way back ("work"), and parameters with what the optimiser keeps ("state").
PyTorch's is the most that a step has allocated at once, by its own profiler, and the batch; what
its libraries allocate by themselves is not in it. `--largest` looks for the widest nets whose
work, state and data fit in 1 GiB, and trains them for a step.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import harness, peers
from benchmarks.recurrent import CLASSES, Data, Model, torch_side
from fastnn import nn
from fastnn.engine.arrays import NO_ARRAYS, as_arrays
from fastnn.files import new_figure, save_figure
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


#: what `--largest` fits nets in, in steps of so many units
ROOM, UNITS = 1 << 30, 16
INPUTS = 32


def feed_of(kind: str, size: dict[str, int]) -> tuple[fnn.Trainer, ArrayFeed]:
    """A trainer, which its feed does not keep, and the feed, for random data."""
    width, rng = size["width"], np.random.default_rng(0)
    samples = max(size["samples"], size["batch"])
    if kind == "LSTM":
        model: nn.Module = Model("LSTM", INPUTS, width, False)
        shape: tuple[int, ...] = samples, size["steps"], INPUTS
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
    return trainer, feed


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


def torch_memory(kind: str, size: dict[str, int]) -> int | None:
    """The most bytes that a step of PyTorch has allocated at once, and its batch."""
    width, batch = size["width"], size["batch"]
    try:
        if kind == "LSTM":
            shape = size["steps"], batch, INPUTS, width
            steps, model, _ = torch_side("LSTM", shape, Data(shape, False, False), 1, False)
            numbers = size["steps"] * INPUTS
        else:
            sizes = [width] * (size["layers"] + 1) + [CLASSES]
            steps, model = peers.torch_mlp(sizes, batch, 1)
            numbers = width
    except ImportError:
        return None
    from torch.profiler import ProfilerActivity, profile

    steps(2)
    model.zero_grad(set_to_none=True)  # the profiler does not see all that is freed from before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        steps(1)
    now = most = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most + batch * (4 * numbers + 8)


def measured(kind: str, name: str, value: int, budget: float) -> dict[str, Any]:
    """Processor time and memory of a step of this size."""
    size = {**(LSTM if kind == "LSTM" else MLP), name: value}
    _trainer, feed = feed_of(kind, size)
    steps = steps_of(feed, size.get("workers", 1))
    clock = time.process_time
    found = harness.alternate({"fastnn": steps}, 5, budget, clock=clock)["fastnn"]
    work, state = memory_of(feed)
    torch = torch_memory(kind, size) if name not in ("samples", "workers") else None
    return {
        "kind": kind, "size": name, "value": value, "step": found["minimum"],
        "per_sample": found["minimum"] / size["batch"], "work": work, "state": state,
        "work_per_sample": work / size["batch"],
        "torch_per_sample": torch and torch / size["batch"],
    }  # fmt: skip


def exponent(rows: list[dict[str, Any]], what: str) -> float:
    """The slope of the last two values, in logarithms."""
    a, b = rows[-2], rows[-1]
    return math.log(b[what] / a[what]) / math.log(b["value"] / a["value"])


def total(feed: ArrayFeed) -> int:
    """Bytes of a training: of a step, of parameters with what the optimiser keeps, of the data."""
    size = sum(memory_of(feed))
    return size + sum(a.nbytes for group in feed.data[:2] for a in group.sources().values())


def largest(kind: str) -> dict[str, Any]:
    """The widest net that fits in `ROOM` and has been trained for a step there."""
    base = {**(LSTM if kind == "LSTM" else MLP), "samples": 64}
    low, size = 0, 1024
    while abs(size - low) >= UNITS:  # nearly quadratic in the width, so a few steps are enough
        low = size
        _trainer, feed = feed_of(kind, {**base, "width": size})
        size = int(size * (ROOM / total(feed)) ** 0.5) // UNITS * UNITS
    low = min(low, size)
    _trainer, feed = feed_of(kind, {**base, "width": low})
    steps_of(feed, 1)(1)
    work, state = memory_of(feed)
    torch = torch_memory(kind, {**base, "width": low})
    return {
        "kind": kind, "width": low, "total": total(feed), "work": work, "state": state,
        "torch": torch and torch + state,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each net and size, with all its values."""
    lines = []
    for kind, name in dict.fromkeys((r["kind"], r["size"]) for r in rows):
        mine = [r for r in rows if (r["kind"], r["size"]) == (kind, name)]
        theirs = [r["torch_per_sample"] for r in mine if r["torch_per_sample"]]
        lines.append(
            {
                "net": kind, "size": name, "values": " ".join(str(r["value"]) for r in mine),
                "µs per sample": " ".join(harness.microseconds(r["per_sample"]) for r in mine),
                "exponent": f"{exponent(mine, 'per_sample'):.2f}",
                "KB per sample": " ".join(f"{r['work_per_sample'] / 1e3:,.1f}" for r in mine),
                "its exponent": f"{exponent(mine, 'work_per_sample'):.2f}",
                "PyTorch's KB": " ".join(f"{n / 1e3:,.1f}" for n in theirs),
            }
        )  # fmt: skip
    return harness.table(lines, list(lines[0]))


def picture(rows: list[dict[str, Any]], path: str) -> None:
    """Time and memory per sample over each size, relative to the smallest, on logarithmic axes."""
    figure = new_figure(9.0, 6.4)
    panels = figure.subplots(2, 2)
    for across, kind in zip(panels, ("MLP", "LSTM"), strict=True):
        for ax, what, label in (
            (across[0], "per_sample", "processor time a sample"),
            (across[1], "work_per_sample", "memory a sample"),
        ):
            for name in dict.fromkeys(r["size"] for r in rows if r["kind"] == kind):
                mine = [r for r in rows if (r["kind"], r["size"]) == (kind, name)]
                x = [r["value"] / mine[0]["value"] for r in mine]
                ax.loglog(x, [r[what] / mine[0][what] for r in mine], marker="o", label=name)
                if what == "work_per_sample" and all(r.get("torch_per_sample") for r in mine):
                    color = ax.lines[-1].get_color()
                    y = [r["torch_per_sample"] / mine[0][what] for r in mine]
                    ax.loglog(x, y, color=color, linestyle=":")
            ax.set_title(f"{kind}: {label}", fontsize="medium")
            ax.grid(alpha=0.3)
        across[0].legend(fontsize="small")
        across[1].set_xlabel("size, times the smallest (dotted: PyTorch)", fontsize="small")
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=0.5, help="seconds for each size")
    parser.add_argument("--picture", help="where a picture goes")
    parser.add_argument("--largest", action="store_true", help="the widest nets in 1 GiB, alone")
    options = parser.parse_args()
    if options.largest:
        for kind in ("MLP", "LSTM"):
            print(largest(kind), flush=True)
        return
    rows: list[dict[str, Any]] = []
    for kind, name, values in GROWTH:
        mine = [measured(kind, name, value, options.budget) for value in values]
        rows += mine
        shown = table(mine).splitlines()
        print("\n".join(shown[0 if len(rows) == len(mine) else 2 :]), flush=True)
    path = harness.write("growth", "python -m benchmarks.growth", rows)
    print(f"written to {path.name}")
    if options.picture:
        picture(rows, options.picture)


if __name__ == "__main__":
    main()
