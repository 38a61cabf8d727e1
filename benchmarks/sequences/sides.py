"""What is measured: the same work by fastnn and by others, compared before it is timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Side = Callable[[], Any]  # does the work once, and returns what can be compared


@dataclass
class Sides:
    """The same work, done by each side.

    Args:
        run: by name, fastnn first.
        close: the greatest relative difference between the sides' results.
        count: how many things are done in one call (sentences, characters).
        others: sides that do something similar only, and are not compared.
    """

    run: dict[str, Side]
    close: float = 1e-4
    count: int = 1
    others: tuple[str, ...] = ()


@dataclass
class Row:
    """A line of the table.

    Args:
        name: of the work, as the command line takes it.
        title: what it is.
        make: of a number of threads and a precision, its sides.
        workers: for how many there is a line.
        rounds: how often each side is timed.
        precise: whether it can be done at a lower precision.
    """

    name: str
    title: str
    make: Callable[[int, str], Sides]
    workers: tuple[int, ...] = (1, 2)
    rounds: int = 7
    precise: bool = field(default=False)


def compare(sides: Sides, times: int = 3) -> None:
    """AssertionError where the sides' results differ; steps of trainings several times."""
    for _ in range(times):
        found = {n: run() for n, run in sides.run.items() if n not in sides.others}
        first = np.asarray(found.pop("fastnn"), np.float64)
        for name, numbers in found.items():
            other = np.asarray(numbers, np.float64)
            assert first.shape == other.shape, f"shapes {first.shape} and {other.shape}: {name}"
            worst = np.abs(first - other).max() / max(np.abs(other).max(), 1e-30)
            assert worst <= sides.close, f"fastnn and {name} differ by {worst:.1e}"


def measure(
    sides: Sides, threads: int, rounds: int, least: float = 0.1, wall: bool = False
) -> dict[str, float]:
    """Milliseconds for each side, the least of all rounds; the sides take turns. They are processor
    time of a thread, or `wall` time, which counts on an idle machine only."""
    now, share = (time.perf_counter, 1) if wall else (time.process_time, threads)
    found: dict[str, list[float]] = {name: [] for name in sides.run}
    repeats = {}
    for name, run in sides.run.items():
        begin = now()
        run()
        repeats[name] = max(1, min(200, int(least / max(now() - begin, 1e-6))))
    for _ in range(rounds):
        for name, run in sides.run.items():
            begin = now()
            for _ in range(repeats[name]):
                run()
            found[name].append((now() - begin) / repeats[name] / share)
    return {name: 1e3 * min(times) / sides.count for name, times in found.items()}


def state_of(model: Any) -> dict[str, Any]:
    """A model's parameters as PyTorch's leaves."""
    import torch

    return {
        name: torch.from_numpy(np.array(value)).requires_grad_()
        for name, value in model.state_dict().items()
    }


def copied(module: Any, state: dict[str, Any], prefix: str = "") -> Any:
    """A module of PyTorch with parameters that are taken out of `state`."""
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(state.pop(prefix + name))
    return module
