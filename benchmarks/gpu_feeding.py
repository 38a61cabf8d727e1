"""What a training step costs the host, from an iterable of batches and from arrays.

    python -m benchmarks.gpu_feeding [--device cuda] [--steps 2000]

Microseconds of the process's CPUs (all threads) and of the wall, for each step of a whole `fit`;
checks of the data are included. Sides take turns; the least of the turns counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import harness
from fastnn import nn, optim

#: inputs, hidden units, batch
SIZES = ((64, 128, 32), (784, 128, 128))


class Again:
    """The same batch so many times."""

    def __init__(self, batch: tuple[np.ndarray, ...], steps: int):
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        for _ in range(self.steps):
            yield self.batch


def row(size: tuple[int, int, int], device: str, steps: int, turns: int = 3) -> dict[str, Any]:
    inputs, hidden, batch = size
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, inputs)).astype(np.float32)
    y = rng.integers(0, 10, batch)
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(1e-4), device=device)
    many = np.tile(x, (steps, 1)), np.tile(y, steps)
    sides = {
        "iterable": lambda: trainer.fit(Again((x, y), steps), epochs=1, verbose=False),
        "arrays": lambda: trainer.fit(
            *many, epochs=1, batch_size=batch, shuffle=False, verbose=False
        ),
    }
    found: dict[str, Any] = {"name": f"MLP {inputs}-{hidden}-10 B{batch}", "steps": steps}
    for name, side in sides.items():
        side()
        cpu, wall = [], []
        for _ in range(turns):
            before, start = time.process_time(), time.perf_counter()
            side()
            cpu.append((time.process_time() - before) / steps * 1e6)
            wall.append((time.perf_counter() - start) / steps * 1e6)
        found[name] = {"host": min(cpu), "wall": min(wall)}
    text = ", ".join(
        f"{name} {found[name]['host']:.1f} us of CPU, {found[name]['wall']:.1f} us in all"
        for name in sides
    )
    print(f"{found['name']}: {text}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder to write to")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        rows.append(row(size, options.device, options.steps))
        harness.write(
            "gpu-feeding", "python -m benchmarks.gpu_feeding", rows, options.results,
            device=options.device,
        )  # fmt: skip


if __name__ == "__main__":
    main()
