"""Runs the benchmarks and puts their tables together: ``make bench``.

Each benchmark runs in a process of its own, one-thread runs tied to one core, so that every side
has the same number of threads. A benchmark's last runs are kept: what is a ratio in the tables has
its range over them, so run them at several times.

    python -m benchmarks.run [--turns 20] [--only mlp] [--runs 1]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import harness
from benchmarks.tables import summary

#: benchmarks that take threads and turns
SIDES = ("mlp", "kernels", "matmul", "recurrent", "convolution", "raw_audio")
#: those of one thread
SINGLE = ("methods", "precision", "precision_curves", "wavenet", "growth", "ports", "roofline",
          "loop_lengths")  # fmt: skip
#: each benchmark's numbers of threads
THREADS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((*SIDES, "sequences"), (1, 2)),
    **dict.fromkeys(SINGLE, (1,)),
    **dict.fromkeys(("auto_workers", "costs"), (2,)),
}
#: those that are run several times, and what each time is added to their arguments
TIMES = {"auto_workers": ([], ["--competitor"])}
#: those that need at least so many cores
CORES = {"auto_workers": 2}
ROOT = Path(__file__).parent.parent


def run(name: str, threads: int, turns: int) -> None:
    for added in TIMES.get(name, ([],)):
        _run(name, threads, [*arguments(name, threads, turns), *added])


def _run(name: str, threads: int, told: list[str]) -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    tie = (lambda: os.sched_setaffinity(0, cores[:threads])) if cores else None
    command = [sys.executable, "-m", f"benchmarks.{name}", *told]
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }
    subprocess.run(command, check=True, cwd=ROOT, env=environment, preexec_fn=tie)


def arguments(name: str, threads: int, turns: int) -> list[str]:
    """What a benchmark is told; those of sequences and methods have turns of their own."""
    if name in SIDES or name == "precision":
        return ["--threads", str(threads), "--turns", str(turns)]
    if name == "sequences":
        return ["--workers", str(threads), "--results", str(harness.RESULTS)]
    return ["--results", str(harness.RESULTS)] if name == "methods" else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--only", choices=THREADS)
    parser.add_argument("--runs", type=int, default=1, help="of every benchmark, one after another")
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    names = [options.only] if options.only else list(THREADS)
    for _ in range(options.runs):
        for name in names:
            if cores < CORES.get(name, 1):
                print(f"{name}: left out, it needs {CORES[name]} cores", file=sys.stderr)
                continue
            for threads in sorted({min(t, cores) for t in THREADS[name]}):
                run(name, threads, options.turns)
    page = harness.RESULTS / "README.md"
    page.write_text(summary())
    print(summary())


if __name__ == "__main__":
    main()
