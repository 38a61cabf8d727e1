"""How benchmarks measure: sides take turns in one process; medians, quartiles, minima are kept.

The machine's limits (multiply-add peak of one core, memory bandwidth) are measured in the same run.
Results of earlier runs stay beside the last one's, so that a ratio can be given as a range.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
RUNS = 5  # how many runs a file of results holds
#: seconds before a side's turn: threads of the side before may spin for some 10 milliseconds after
#: their last step (PyTorch's do), which would be the next one's loss
PAUSE = 0.03
#: a turn of so many steps has some before it that do not count, in which its own threads wake: for
#: 10 to 20 milliseconds a core that has slept may be slow, and far from the other one
MANY, WAKING = 10, 0.04
#: what says which row of another run is the same
IDENTITY = ("workload", "row", "what", "batch", "optimizer", "kind", "size", "loss", "lengths",
            "threads")  # fmt: skip
Side = Callable[[int], None]  # runs so many steps


def trip_of(threads: int) -> Callable[[], float] | None:
    """What looks at how far the cores are, where sides have several threads."""
    if threads < 2:
        return None
    from benchmarks.distance import round_trip

    return round_trip


def seconds_per_step(
    side: Side, steps: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    start = clock()
    side(steps)
    return (clock() - start) / steps


def alternate(
    sides: Mapping[str, Side],
    turns: int = 20,
    budget: float = 6.0,
    most: int = 2000,
    clock: Callable[[], float] = time.perf_counter,
    trip: Callable[[], float] | None = None,
) -> dict[str, dict[str, float]]:
    """Median, quartiles and minimum of the seconds of a step for each side.

    Every side is warmed up, then they take turns, each after a pause; a turn has as many steps as
    fit in its share of `budget` seconds for each side. `clock` tells the time; `time.process_time`
    that of the CPU.

    `trip` tells how far two cores are from each other (`distance.round_trip`). Rounds of turns in
    which they were more than twice as far as at best do not count, for any side, and are made up
    for, up to twice as many rounds; but where fewer than half as many as were wanted are left, all
    count.
    """
    steps, waking = {}, {}
    for name, side in sides.items():
        side(2)
        once = max(min(seconds_per_step(side, 1) for _ in range(3)), 1e-7)
        steps[name] = max(1, min(most, int(budget / turns / once)))
        waking[name] = max(1, min(steps[name], int(WAKING / once))) * (steps[name] >= MANY)
    rounds: list[tuple[float, dict[str, float]]] = []  # how far the cores were, seconds of a step
    before = trip() if trip else 0.0
    while len(_near(rounds)) < turns and len(rounds) < 2 * turns:
        times = {}
        for name, side in sides.items():
            time.sleep(PAUSE)
            if waking[name]:
                side(waking[name])
            times[name] = seconds_per_step(side, steps[name], clock)
        after = trip() if trip else 0.0
        rounds.append((max(before, after), times))
        before = after
    near = _near(rounds)
    if 2 * len(near) < turns:
        near = [times for _, times in rounds]
    found = {}
    for name in sides:
        found[name] = summary([t[name] for t in near]) | {"steps": steps[name] * len(near)}
        if trip:
            found[name] |= {"round_trip": min(d for d, _ in rounds), "far": len(rounds) - len(near)}
    return found


def _near(rounds: list[tuple[float, dict[str, float]]]) -> list[dict[str, float]]:
    """The rounds in which the cores were near each other."""
    least = min((d for d, _ in rounds), default=0.0)
    return [times for d, times in rounds if d <= 2 * least]


def summary(times: list[float]) -> dict[str, float]:
    """Median, quartiles and minimum of a side's turns."""
    low, median, high = statistics.quantiles(times, method="inclusive") if times[1:] else times * 3
    return {"median": median, "low": low, "high": high, "minimum": min(times)}


def environment() -> dict[str, Any]:
    """The machine and the versions, for the results."""
    from fastnn.kernels.cpu import target

    host = target.host()
    versions = {}
    for name in ("numpy", "numba", "llvmlite", "torch", "jax", "scikit-learn"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.datetime.now().isoformat(" ", "minutes"),
        "commit": commit(),
        "cpu": host.cpu,
        "simd": f"{host.name}, {host.vector_bits} bits",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **versions,
    }


def commit() -> str | None:
    """The commit that is measured, with a + if files were changed after it."""
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.stdout.strip()


def write(
    name: str, command: str, rows: list[dict[str, Any]], folder: Path = RESULTS, **more: Any
) -> Path:
    """Keep results as JSON, whole or not at all, with a copy in the folder OUT, if that is set.

    Those of another kind of CPU stay: this one's get its name. Of this CPU's earlier runs the
    ratios and shares stay (`spread`), of the last few.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    where = environment()
    cpu = where["cpu"]
    if path.exists() and json.loads(path.read_text())["environment"].get("cpu") != cpu:
        path = folder / f"{name}-{cpu}.json"
    content = {"command": command, "environment": where, **more, "rows": rows}
    if path.exists():
        before = json.loads(path.read_text())
        content["earlier"] = [brief(before), *before.get("earlier", [])][: RUNS - 1]
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    new.replace(path)
    if out := os.environ.get("OUT"):
        shutil.copy(path, out)
    return path


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """What stays of a run: when, how busy the machine was, each row's names and numbers."""
    where = {k: found["environment"].get(k) for k in ("date", "commit", "load")}
    rows = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in found["rows"]]
    return {"environment": where, "rows": rows}


def spread(found: dict[str, Any], row: dict[str, Any], field: str) -> list[float]:
    """A row's number in this run and the earlier ones, ascending."""

    def name(other: dict[str, Any]) -> str:  # JSON makes lists of tuples
        return json.dumps([other.get(k) for k in IDENTITY])

    runs = [found, *found.get("earlier", [])]
    same = [other for run in runs for other in run["rows"] if name(other) == name(row)]
    return sorted(other[field] for other in same if other.get(field) is not None)


def ranged(found: dict[str, Any], row: dict[str, Any], field: str, form: str = ".2f") -> str:
    """A row's number, with its range where several runs gave different ones."""
    if row.get(field) is None:
        return "-"
    least, *_, most = [format(v, form) for v in spread(found, row, field)] * 2
    shown = format(row[field], form)
    return shown if least == most else f"{shown} ({least}–{most})"


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def microseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e6:,.0f}" if value >= 1e-4 else f"{value * 1e6:,.1f}"
