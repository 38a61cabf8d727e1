"""Writes the table of `benchmarks/results/mlp-*.json` into the README, between its marks.

python -m benchmarks.readme
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from benchmarks import harness

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- measured: python -m benchmarks.readme -->", "<!-- end of measured -->"
LIBRARIES = {
    "fastnn": "fastnn",
    "torch": "PyTorch",
    "torch.compile": "torch.compile",
    "jax": "JAX",
    "jax loop": "JAX, compiled loop",
    "sklearn": "scikit-learn",
}


def wrapped(text: str) -> str:
    """A paragraph in lines."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def runs(found: dict[str, Any]) -> str:
    """How many runs the ranges come from."""
    dates = [run["environment"]["date"] for run in found.get("earlier", [])]
    if not dates:
        return ""
    return f"; ratios with their range over {len(dates) + 1} runs since {min(dates)}"


def table(path: Path) -> str:
    """One run's table, with where and how it was measured."""
    found = json.loads(path.read_text(encoding="utf-8"))
    where, rows = found["environment"], found["rows"]
    threads = sorted({row["threads"] for row in rows})
    head = (
        f"Microseconds a training step, median, {'/'.join(map(str, threads))} thread"
        f"{'s' if threads != [1] else ''}, float32; {where['cpu']} ({where['simd']}), Python "
        f"{where['python']}, PyTorch {where['torch']}, JAX {where['jax']}, scikit-learn "
        f"{where['scikit-learn']}; {where['date']}, `{found['command']}`"
        f"{', on a busy machine' if where['load'] > where['cores'] + 0.5 else ''}{runs(found)}:"
    )
    libraries = [k for k in LIBRARIES if any(k in row["seconds"] for row in rows)]
    names = " | ".join(LIBRARIES[k] for k in libraries)
    lines = [
        wrapped(head),
        "",
        f"| net | batch | optimiser | {names} | best peer / fastnn |",
        "|---|--:|---|" + "--:|" * len(libraries) + "--:|",
    ]
    for row in rows:
        cells = []
        for library in libraries:
            seconds = row["seconds"].get(library)
            cells.append(f"{1e6 * seconds['median']:,.0f}" if seconds else "")
        lines.append(
            f"| {row['workload']} | {row['batch']} | {row['optimizer']} | {' | '.join(cells)} | "
            f"{harness.ranged(found, row, 'ratio')} |"
        )
    return "\n".join(lines)


def recurrent(path: Path) -> str:
    """The same for recurrent nets."""
    found = json.loads(path.read_text(encoding="utf-8"))
    where, threads = found["environment"], sorted({row["threads"] for row in found["rows"]})
    head = (
        f"Milliseconds a training step of recurrent nets with Adam, median, "
        f"{'/'.join(map(str, threads))} thread{'s' if threads != [1] else ''}; {where['cpu']} "
        f"({where['simd']}), {where['date']}, `{found['command']}`"
        f"{', on a busy machine' if where['load'] > where['cores'] + 0.5 else ''}{runs(found)}:"
    )
    lines = [
        wrapped(head),
        "",
        "| net | steps, batch, inputs, units | loss at | lengths | fastnn | PyTorch | JAX | "
        "best peer / fastnn |",
        "|---|---|---|---|--:|--:|--:|--:|",
    ]
    for row in found["rows"]:
        times = {k: f"{v['median'] * 1e3:.2f}" for k, v in row["seconds"].items()}
        torch = times.get("torch", "")
        if "torch packed" in times:
            torch += f" (packed {times['torch packed']})"
        lines.append(
            f"| {row['kind']} | {', '.join(map(str, row['size']))} | {row['loss']} | "
            f"{row['lengths']} | {times['fastnn']} | {torch} | {times.get('jax', '')} | "
            f"{harness.ranged(found, row, 'ratio')} |"
        )
    return "\n".join(lines)


def measured(text: str, results: Path) -> str:
    """The README's text with the tables of these results."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    tables = [table(path) for path in sorted(results.glob("mlp-*.json"))]
    tables += [recurrent(path) for path in sorted(results.glob("recurrent-*.json"))]
    body = "\n\n".join(tables) or "Nothing yet: `make bench`."
    return f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}"


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(measured(text, ROOT / "benchmarks" / "results"), encoding="utf-8")


if __name__ == "__main__":
    main()
