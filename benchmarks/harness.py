"""How benchmarks measure: sides take turns in one process, medians and minima are kept.

The machine's limits (multiply-add peak of one core, memory bandwidth) are measured in the same run.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Side = Callable[[int], None]  # runs so many steps


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
) -> dict[str, dict[str, float]]:
    """Median and minimum seconds of a step for each side.

    Every side is warmed up, then they take turns; a turn has as many steps as fit in its share of
    `budget` seconds for each side. `clock` tells the time; `time.process_time` that of the CPU.
    """
    steps = {}
    for name, side in sides.items():
        side(2)
        once = min(seconds_per_step(side, 1) for _ in range(3))
        steps[name] = max(1, min(most, int(budget / turns / max(once, 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            times[name].append(seconds_per_step(side, steps[name], clock))
    return {
        name: {"median": statistics.median(t), "minimum": min(t), "steps": steps[name] * turns}
        for name, t in times.items()
    }


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
        "date": datetime.date.today().isoformat(),
        "cpu": host.cpu,
        "simd": f"{host.name}, {host.vector_bits} bits",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **versions,
    }


def write(
    name: str, command: str, rows: list[dict[str, Any]], folder: Path = RESULTS, **more: Any
) -> Path:
    """Keep results as JSON, whole or not at all, with a copy in the folder OUT, if that is set.

    Those of another kind of CPU stay: this one's get its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    where = environment()
    content = {"command": command, "environment": where, **more, "rows": rows}
    cpu = where["cpu"]
    if path.exists() and json.loads(path.read_text())["environment"].get("cpu") != cpu:
        path = folder / f"{name}-{cpu}.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    new.replace(path)
    if out := os.environ.get("OUT"):
        shutil.copy(path, out)
    return path


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def microseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e6:,.0f}" if value >= 1e-4 else f"{value * 1e6:,.1f}"
