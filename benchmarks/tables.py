"""The page of results: the tables of all benchmarks from the files that they have written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks import (
    auto_workers,
    convolution,
    growth,
    harness,
    loop_lengths,
    ports,
    precision_curves,
    roofline,
)


def load(name: str) -> list[dict[str, Any]]:
    """The results of this name, one for each kind of CPU."""
    paths = [harness.RESULTS / f"{name}.json", *sorted(harness.RESULTS.glob(f"{name}-*.json"))]
    found = [json.loads(path.read_text()) for path in paths if path.exists()]
    return [each for each, path in zip(found, [p for p in paths if p.exists()], strict=True)
            if path.stem in (name, f"{name}-{each['environment'].get('cpu')}")]  # fmt: skip


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
        "raw_audio": ("A net on raw samples", audio_table),
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
    once: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
        "precision": ("Precision of products", precision_table),
        "precision-curves": (
            "Trainings at each precision",
            lambda found: precision_curves.table(found["rows"]),
        ),
        "roofline": ("Each kernel beside its limit", roofline.table),
        "ports": ("Functions in the L1 cache", lambda found: ports.table(found["rows"])),
        "auto-workers": ("Workers chosen by measurement", workers_table),
        "auto-workers-busy": ("The same while one core is busy", workers_table),
        "loop-lengths": ("Steps of loops", lambda found: loop_lengths.table(found["rows"])),
        "growth": ("How cost grows", lambda found: growth.table(found["rows"])),
    }
    for name, (title, table) in once.items():
        for found in load(name):
            parts += [f"## {title}", "", table(found), "", machine(found), ""]
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


def audio_table(found: dict[str, Any]) -> str:
    rows = [
        {
            "side": row["row"], "ms": f"{1e3 * row['median']:.2f}",
            "at least": f"{1e3 * row['minimum']:.2f}",
            "× its time by fastnn": harness.ranged(found, row, "ratio"),
        }
        for row in found["rows"]
    ]  # fmt: skip
    return harness.table(rows, list(rows[0]))


def precision_table(found: dict[str, Any]) -> str:
    rows = [
        {
            "step": row["workload"],
            **{f"{k} ms": f"{1e3 * v['median']:.2f}" for k, v in row["seconds"].items()},
        }
        for row in found["rows"]
    ]
    return harness.table(rows, list(dict.fromkeys(c for row in rows for c in row)))


def workers_table(found: dict[str, Any]) -> str:
    rows = [
        {
            "net": row["workload"],
            **{
                f"{w} µs": harness.microseconds(row["seconds"][str(w)])
                for w in auto_workers.WORKERS
            },
            "runs on": row["runs_on"], "× the better one's time":
            harness.ranged(found, row, "over_best"),
        }
        for row in found["rows"]
    ]  # fmt: skip
    return harness.table(rows, list(rows[0]))
