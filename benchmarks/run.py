"""Runs the benchmarks and puts their tables together: ``make bench``.

Each benchmark runs in a process of its own, one-thread runs tied to one core, so that every side
has the same number of threads. A benchmark's last runs are kept: what is a ratio in the tables has
its range over them, so run them at several times.

    python -m benchmarks.run [--turns 20] [--only mlp] [--runs 1]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import convolution, harness

#: benchmarks that take threads and turns
SIDES = ("mlp", "kernels", "matmul", "recurrent", "convolution")
#: each benchmark's numbers of threads
THREADS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((*SIDES, "sequences"), (1, 2)),
    **dict.fromkeys(("methods", "precision", "wavenet", "growth"), (1,)),
    "costs": (2,),
}
ROOT = Path(__file__).parent.parent


def run(name: str, threads: int, turns: int) -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    tie = (lambda: os.sched_setaffinity(0, cores[:threads])) if cores else None
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments(name, threads, turns)]
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


def load(name: str) -> list[dict[str, Any]]:
    """The results of this name, one for each kind of CPU."""
    paths = [harness.RESULTS / f"{name}.json", *sorted(harness.RESULTS.glob(f"{name}-*.json"))]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def summary() -> str:
    """All tables as one Markdown page, each with its machine and date: runs may differ."""
    parts = ["# Measured", ""]
    tables: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
        "mlp": ("Training step", mlp_table),
        "kernels": ("Single kernels", kernel_table),
        "matmul": ("Matrix products", matmul_table),
        "recurrent": ("Recurrent nets", recurrent_table),
        "convolution": (
            "Convolutional and generative nets",
            lambda found: convolution.table(found["rows"], found["peak"]),
        ),
        "sequences": ("From sequence to sequence", sequence_table),
    }
    for threads in (1, 2):
        for name, (title, table) in tables.items():
            for found in load(f"{name}-{threads}"):
                parts += [f"## {title}, {threads} thread(s)", "", table(found), ""]
                parts += [machine(found), ""]
    for found in load("methods"):
        columns = ["what", "fastnn", "other", "ratio", "wanted"]
        parts += ["## Methods", "", harness.table(found["rows"], columns), "", machine(found), ""]
    for found in load("costs"):
        rows = [{"what": r["what"], "seconds": f"{r['seconds']:.2f}"} for r in found["rows"]]
        parts += ["## Costs", "", harness.table(rows, ["what", "seconds"]), "", machine(found), ""]
    return "\n".join(parts)


def machine(found: dict[str, Any]) -> str:
    """What a table was measured with, in words: limits measured in the same run, if any, first."""
    limits = {"fma_peak_gflops": "GFLOP/s a core", "bandwidth_gbytes": "GB/s"}
    parts = [f"{found[k]:.0f} {unit}" for k, unit in limits.items() if k in found]
    shown = {
        k: f"{v:.1f}" if k == "load" else v
        for k, v in found["environment"].items()
        if v is not None
    }
    return f"`{found['command']}`: {', '.join(parts + [f'{k} {v}' for k, v in shown.items()])}."


def mlp_table(found: dict[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        times = {k: harness.microseconds(v["median"]) for k, v in row["seconds"].items()}
        rows.append(
            {
                "layers": row["workload"], "batch": row["batch"], "optimiser": row["optimizer"],
                "fastnn µs": times.get("fastnn"), "PyTorch µs": times.get("torch", "-"),
                "JAX µs": times.get("jax", "-"), "scikit-learn µs": times.get("sklearn", "-"),
                "× best peer": harness.ranged(found, row, "ratio"),
                "× PyTorch": harness.ranged(found, row, "ratio_torch"),
                "share of FMA peak": harness.ranged(found, row, "share_of_peak", ".0%"),
            }
        )  # fmt: skip
    return harness.table(rows, list(rows[0]))


def kernel_table(found: dict[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        times = {k: harness.microseconds(v["median"]) for k, v in row["seconds"].items()}
        rows.append(
            {
                "kernel": row["workload"], "fastnn µs": times.get("fastnn"),
                "PyTorch µs": times.get("torch", "-"),
                "× PyTorch": harness.ranged(found, row, "ratio_torch"),
                "GB/s": f"{row['gbytes_per_second']:.1f}",
                "share of bandwidth": harness.ranged(found, row, "share_of_bandwidth", ".0%"),
            }
        )  # fmt: skip
    return harness.table(rows, list(rows[0]))


def matmul_table(found: dict[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        times = {k: harness.microseconds(v["median"]) for k, v in row["seconds"].items()}
        rows.append(
            {
                "product": row["workload"], "kernel": row["kernel"], "fastnn µs": times["fastnn"],
                "PyTorch µs": times.get("torch", "-"),
                "× PyTorch": harness.ranged(found, row, "ratio_torch"),
                "GFLOP/s": f"{row['gflops']:.0f}",
                "share of FMA peak": harness.ranged(found, row, "share_of_peak", ".0%"),
            }
        )  # fmt: skip
    return harness.table(rows, list(rows[0]))


def recurrent_table(found: dict[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        times = {k: f"{v['median'] * 1e3:.2f}" for k, v in row["seconds"].items()}
        rows.append(
            {
                "net": row["kind"], "T, B, in, H": ", ".join(map(str, row["size"])),
                "loss at": row["loss"], "lengths": row["lengths"], "fastnn ms": times["fastnn"],
                "PyTorch ms": times.get("torch", "-"),
                "PackedSequence ms": times.get("torch packed", ""),
                "JAX ms": times.get("jax", ""),
                "× best peer": harness.ranged(found, row, "ratio"),
                "× ideal": harness.ranged(found, row, "over_ideal") if "over_ideal" in row else "",
                "share of FMA peak": harness.ranged(found, row, "share_of_peak", ".0%"),
            }
        )  # fmt: skip
    return harness.table(rows, list(rows[0]))


def sequence_table(found: dict[str, Any]) -> str:
    sides = ("fastnn", "PyTorch", "JAX")
    rows = [
        {
            "step": row["what"], **{f"{s} ms": row.get(f"{s} ms", "-") for s in sides},
            "× best peer": harness.ranged(found, row, "ratio"), "best peer": row["against"],
        }
        for row in found["rows"]
    ]  # fmt: skip
    return harness.table(rows, list(rows[0]))


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
            for threads in sorted({min(t, cores) for t in THREADS[name]}):
                run(name, threads, options.turns)
    page = harness.RESULTS / "README.md"
    page.write_text(summary())
    print(summary())


if __name__ == "__main__":
    main()
