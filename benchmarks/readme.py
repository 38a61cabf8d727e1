"""Writes what `benchmarks/results` holds of training steps into two pages, between their marks.

The README gets the newest figures of one thread and the ratios of all machines, `docs/measured.md`
every row.

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


def threads(found: dict[str, Any]) -> str:
    """`1 thread` or `2 threads`."""
    counts = sorted({row["threads"] for row in found["rows"]})
    return f"{'/'.join(map(str, counts))} thread{'s' if counts != [1] else ''}"


def busy(where: dict[str, Any]) -> str:
    return ", on a busy machine" if where["load"] > where["cores"] + 0.5 else ""


def table(found: dict[str, Any]) -> str:
    """One run's table, with where and how it was measured."""
    where, rows = found["environment"], found["rows"]
    head = (
        f"Microseconds a training step, median, {threads(found)}, float32; {where['cpu']} "
        f"({where['simd']}), Python {where['python']}, PyTorch {where['torch']}, JAX "
        f"{where['jax']}, scikit-learn {where['scikit-learn']}; {where['date']}, "
        f"`{found['command']}`{busy(where)}{runs(found)}:"
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


def recurrent(found: dict[str, Any]) -> str:
    """The same for recurrent nets."""
    where = found["environment"]
    head = (
        f"Milliseconds a training step of recurrent nets with Adam, median, {threads(found)}; "
        f"{where['cpu']} ({where['simd']}), {where['date']}, `{found['command']}`"
        f"{busy(where)}{runs(found)}:"
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


def in_unit(seconds: float) -> str:
    """Two or three digits in the unit that suits."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:,.{1 if seconds * factor < 9.95 else 0}f} {unit}"
    raise AssertionError(seconds)


def newest(files: list[dict[str, Any]]) -> dict[str, Any]:
    """The last of those with one thread (of all, where there are none)."""
    single = [found for found in files if threads(found) == "1 thread"]
    return max(single or files, key=lambda found: found["environment"]["date"])


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What is the same net in files of several machines."""
    fields = ("workload", "batch", "optimizer", "kind", "size", "loss", "lengths")
    return tuple(str(row.get(field)) for field in fields)


def ratios(files: list[dict[str, Any]], row: dict[str, Any]) -> list[str]:
    """A row's ratio in each file with its range, empty where it was not measured."""
    found = [[(file, r) for r in file["rows"] if key(r) == key(row)] for file in files]
    return [harness.ranged(*same[0], "ratio") if same else "" for same in found]


def missing(found: dict[str, Any], file: dict[str, Any]) -> list[str]:
    """Peers of one file that another one lacks: its best peer may not be the best."""
    ran = [{name for row in each["rows"] for name in row["seconds"]} for each in (found, file)]
    return [LIBRARIES[name] for name in LIBRARIES if name in ran[0] - ran[1]]


def short(files: list[dict[str, Any]]) -> str:
    """MLPs in the README: times of the newest file, the ratio to the best peer in all."""
    found = newest(files)
    where = found["environment"]
    peers = [k for k in LIBRARIES if k != "fastnn"]
    lacking = [missing(found, file) for file in files]
    without = sorted({name for names in lacking for name in names})
    note = f" (* without {', '.join(without)})" if without else ""
    heads = [
        f"{file['environment']['cpu']}, {threads(file)}{' *' if names else ''}"
        for file, names in zip(files, lacking, strict=True)
    ]
    lines = [
        wrapped(
            f"A training step of an MLP, median, {threads(found)} of a {where['cpu']} "
            f"({where['simd']}), {where['date']}; and the best peer's time "
            f"divided by fastnn's, there and elsewhere{note}:"
        ),
        "",
        f"| net | batch | fastnn | best peer | {' | '.join(heads)} |",
        "|---|--:|--:|--:|" + "--:|" * len(files),
    ]
    for row in found["rows"]:
        medians = {k: v["median"] for k, v in row["seconds"].items() if k in peers}
        best = min(medians, key=lambda name: medians[name], default=None)
        peer = "" if best is None else f"{in_unit(medians[best])} ({LIBRARIES[best]})"
        lines.append(
            f"| {row['workload']} | {row['batch']} | "
            f"{in_unit(row['seconds']['fastnn']['median'])} | {peer} | "
            f"{' | '.join(ratios(files, row))} |"
        )
    return "\n".join(lines)


def short_recurrent(files: list[dict[str, Any]]) -> str:
    """Recurrent nets in the README: a line for each size, a column for each kind."""
    found = newest(files)
    kinds = list(dict.fromkeys(row["kind"] for row in found["rows"]))
    shapes = list(dict.fromkeys(key({**row, "kind": ""}) for row in found["rows"]))
    lines = [
        wrapped(
            f"The same of recurrent nets, {threads(found)} of a {found['environment']['cpu']}, "
            f"{found['environment']['date']}, PyTorch and JAX being the peers; in brackets the "
            "ratio to the better one:"
        ),
        "",
        f"| steps, batch, inputs, units | loss at | lengths | {' | '.join(kinds)} |",
        "|---|---|---|" + "--:|" * len(kinds),
    ]
    for shape in shapes:
        rows = {r["kind"]: r for r in found["rows"] if key({**r, "kind": ""}) == shape}
        cells = [
            f"{in_unit(rows[kind]['seconds']['fastnn']['median'])} ({rows[kind]['ratio']:.2f})"
            if kind in rows
            else ""
            for kind in kinds
        ]
        one = next(iter(rows.values()))
        lines.append(
            f"| {', '.join(map(str, one['size']))} | {one['loss']} | {one['lengths']} | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines)


def read(results: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(results.glob(pattern))]


def between(text: str, tables: list[str]) -> str:
    """A page's text with these tables between its marks."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    body = "\n\n".join(tables) or "Nothing yet: `make bench`."
    return f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}"


def pages(results: Path) -> dict[str, list[str]]:
    """The tables of each page."""
    mlps, nets = read(results, "mlp-*.json"), read(results, "recurrent-*.json")
    return {
        "README.md": [
            *([short(mlps)] if mlps else []),
            *([short_recurrent(nets)] if nets else []),
        ],
        "docs/measured.md": [*map(table, mlps), *map(recurrent, nets)],
    }


def main() -> None:
    for name, tables in pages(ROOT / "benchmarks" / "results").items():
        page = ROOT / name
        page.write_text(between(page.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
