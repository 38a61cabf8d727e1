"""Training steps at each `precision`, side by side with PyTorch and JAX.

    python -m benchmarks.precision [--turns 7] [--only LSTM]

PyTorch in float32, with `set_float32_matmul_precision("medium")` and under autocast to bfloat16;
JAX (for MLPs) in float32. One thread; what counts is CPU time, which neighbours on a busy machine
change little. Ratios are the quickest float32 peer's time by ours.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from typing import Any

from benchmarks import harness, limits, mlp, peers, recurrent

LEVELS = ("highest", "high", "medium", "bf16")
MLPS = [((784, 128, 10), 128, "adam"), ((784, 2048, 2048, 2048, 10), 256, "sgd")]
#: T, B, inputs, H
RECURRENT = [("LSTM", (200, 16, 256, 256)), ("LSTM", (100, 32, 128, 128))]


def as_medium(side: peers.Steps) -> peers.Steps:
    """A side of PyTorch's with its products at "medium"."""
    import torch

    def steps(count: int) -> None:
        torch.set_float32_matmul_precision("medium")
        side(count)
        torch.set_float32_matmul_precision("highest")

    return steps


def as_bf16(side: peers.Steps) -> peers.Steps:
    """A side of PyTorch's under autocast to bfloat16."""
    import torch

    def steps(count: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            side(count)

    return steps


def workloads(names: set[str]) -> Any:
    """Of each workload its name and a function that makes its sides."""
    for sizes, batch, optimizer in MLPS:
        name = "-".join(map(str, sizes))
        if not names or name in names:
            yield f"{name} B{batch}", mlp_sides(sizes, batch, optimizer)
    for kind, size in RECURRENT:
        if not names or kind in names:
            steps, batch, _, hidden = size
            yield f"{kind} T{steps} B{batch} H{hidden}", recurrent_sides(kind, size)


def with_torch(torch_side: Any) -> dict[str, peers.Steps]:
    return {
        "torch": torch_side(), "torch medium": as_medium(torch_side()),
        "torch bf16": as_bf16(torch_side()),
    }  # fmt: skip


def mlp_sides(sizes: tuple[int, ...], batch: int, optimizer: str) -> dict[str, peers.Steps]:
    sides = {p: mlp.ours(sizes, batch, 1, optimizer, precision=p)[0] for p in LEVELS}
    with contextlib.suppress(ImportError):
        sides |= with_torch(lambda: peers.torch_mlp(sizes, batch, 1, optimizer)[0])
        sides["jax"] = peers.jax_mlp(sizes, batch, optimizer)[0]
    return sides


def recurrent_sides(kind: str, size: tuple[int, int, int, int]) -> dict[str, peers.Steps]:
    data = recurrent.Data(size, every=False, varying=False)
    sides = {p: recurrent.ours(kind, size, data, 1, False, p)[0] for p in LEVELS}
    with contextlib.suppress(ImportError):
        sides |= with_torch(lambda: recurrent.torch_side(kind, size, data, 1, False)[0])
    return sides


def measure(turns: int, names: set[str], budget: float = 4.0) -> list[dict[str, Any]]:
    rows = []
    for name, sides in workloads(names):
        times = harness.alternate(sides, turns, budget, clock=time.process_time)
        float32 = {k: t["median"] for k, t in times.items() if k in ("torch", "jax")}
        best = min(float32, key=lambda k: float32[k]) if float32 else None
        ratios = {p: float32[best] / times[p]["median"] for p in LEVELS} if best else {}
        row = {"workload": name, "seconds": times, "best_peer": best, "ratios": ratios}
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    times = ", ".join(f"{k} {harness.microseconds(v['median'])}" for k, v in row["seconds"].items())
    ratios = ", ".join(f"{p} {r:.2f}" for p, r in row["ratios"].items())
    return f"{row['workload']}: {times} us; {ratios} x {row['best_peer']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, choices=[1])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    rows = measure(options.turns, set(options.only))
    if options.only:
        return
    path = harness.write(
        "precision", "python -m benchmarks.precision", rows, fma_peak_gflops=limits.fma_peak()
    )
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
