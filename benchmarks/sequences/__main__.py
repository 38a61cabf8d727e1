"""Nets that turn sequences into sequences: fastnn beside PyTorch and JAX, in one run.

    python -m benchmarks.sequences [ROW ...] [--workers 1 2] [--wall] [--precision P]
        [--results FOLDER]

Without rows it takes all: losses (ctc, ctc-5000, crf), training steps with Adam (recognise,
translate, transformer, ntm), attention alone (causal), and writing (beam-search, characters). From
equal parameters the sides' results (of trainings: the losses of three steps) have to be equal, or
the row is an error. Then sides take turns; the figures are processor time divided by the threads,
by the fastest of the rounds, so other processes on the machine matter little, and time that threads
wait for each other counts as far as they spin. Of a side that leaves a thread idle that is half of
what one waits for: `--wall` takes the clock's time, on an idle machine. A ratio is against the
fastest other side. PyTorch's sides are eager, with its own layers and losses. JAX's are compiled
whole steps with optax; it takes its threads from the cores that the process may use, so measure one
worker under `taskset -c 0`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import harness
from benchmarks.sequences import attention, losses, machine, recurrent, writing
from benchmarks.sequences.sides import Row, Sides, compare, measure


def ctc(*sizes: int) -> Callable[[int, str], Sides]:
    return lambda threads, precision: losses.ctc(*sizes, threads)


ROWS = [
    Row("ctc", "CTC with gradient, B 32, T 200, L 30, 29 symbols", ctc(32, 200, 30, 29)),
    Row("ctc-5000", "CTC with gradient, B 16, T 150, L 20, 5,000 symbols", ctc(16, 150, 20, 5000)),
    Row("recognise", "BiLSTM 2x128 with CTC, 16 of AN4", recurrent.recognise, precise=True),
    Row("translate", "GRU-256 encoder-decoder, B 64, 8,000 symbols", recurrent.translate,
        precise=True),
    Row("transformer", "Transformer, 4 layers of 128, T 128, B 16", attention.transformer,
        precise=True),
    Row("causal", "causal attention, T 1,024, 4 heads of 64, B 4", attention.causal),
    Row("ntm", "NTM, 128x20, LSTM-100, T 40, B 16", machine.copy),
    Row("crf", "CRF, 9 tags, B 32, T 40", losses.crf),
    Row("beam-search", "beam search, width 8, a sentence", writing.beam_search, workers=(1,),
        precise=True),
    Row("characters", "a character of the 2x256 LSTM", writing.characters, workers=(1,),
        precise=True),
]  # fmt: skip


def line(
    row: Row, threads: int, precision: str, rounds: int | None, wall: bool = False
) -> dict[str, Any]:
    """Compare and measure one row."""
    import torch

    torch.set_num_threads(threads)
    sides = row.make(threads, precision if row.precise else "highest")
    compare(sides)
    ms = measure(sides, threads, rounds or row.rounds, wall=wall)
    ours = ms.pop("fastnn")
    best = min((t, name) for name, t in ms.items() if name not in sides.others)
    return {
        "row": row.name, "what": row.title, "workers": threads, "fastnn ms": round(ours, 3),
        **{f"{name} ms": round(t, 3) for name, t in ms.items()},
        "ratio": round(best[0] / ours, 2), "against": best[1],
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(r.name for r in ROWS))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--wall", action="store_true", help="the clock's time, of an idle machine")
    parser.add_argument("--precision", default="highest")
    parser.add_argument("--results", type=Path, default=None)
    a = parser.parse_args(arguments)
    unknown = set(a.rows) - {r.name for r in ROWS}
    if unknown:
        parser.error(f"expected rows of {', '.join(r.name for r in ROWS)}, got {unknown}")
    found = []
    for row in ROWS:
        for threads in a.workers:
            if (a.rows and row.name not in a.rows) or threads not in row.workers:
                continue
            found.append(line(row, threads, a.precision, a.rounds, a.wall))
            print({k: v for k, v in found[-1].items() if k != "what"}, flush=True)
    columns = ["what", "workers", "fastnn ms", "PyTorch ms", "JAX ms", "ratio", "against"]
    print(tabulate([[r.get(c) for c in columns] for r in found], columns))
    if a.results is not None:
        for threads in a.workers:
            command = f"python -m benchmarks.sequences --workers {threads}{' --wall' * a.wall}"
            rows = [row for row in found if row["workers"] == threads]
            harness.write(f"sequences-{threads}", command, rows, a.results, precision=a.precision)
    return found


if __name__ == "__main__":
    main()
