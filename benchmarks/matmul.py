"""Matrix products of training against PyTorch and the machine's multiply-add peak.

python -m benchmarks.matmul --threads 1 [--quick] [--only forward]

The kernel is the one that a net of these sizes uses (`choose_linear`, `cpu_turned`), packing
counted: it comes before the product in each step, and threads meet after each call, as in a
training. Each product is checked against float64 first. The peak is measured by chains of
multiply-adds in registers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import harness, limits
from benchmarks.kernels import aligned
from benchmarks.together import steps_of
from fastnn.kernels.declare import KERNELS, Kernel
from fastnn.kernels.matmul import cpu_blocked as matmul_blocked
from fastnn.kernels.matmul.cpu import choose_linear, packed_shape
from fastnn.kernels.matmul.cpu_columns import (
    BLOCK_COLUMNS,
    columns_scratch,
    columns_turned,
    pays_by_columns,
)
from fastnn.kernels.matmul.cpu_own import own_scratch
from fastnn.kernels.matmul.cpu_turned import blocks_pay, pays, turned_columns

SQUARE = (64, 128, 256, 512, 1024, 2048)
CASES = [
    *(("forward", n, n, n) for n in SQUARE),
    *((p, n, n, n) for p in ("backward_input", "backward_weight") for n in SQUARE[1:]),
    *(("backward_weight", 2048, c, k) for c, k in ((256, 768), (512, 512))),
    *((p, 128, 128, k) for p in ("forward", "backward_weight") for k in (8, 16, 17, 24, 25, 100)),
    *(("forward", n, s, s) for s in (64, 256, 1024) for n in (1, 2, 4, 8, 16)),
    *(
        (p, n, c, k)
        for c, k in ((784, 128), (128, 10))
        for p in ("forward", "backward_input", "backward_weight")
        for n in (1, 32, 128)
    ),
]


class Product:
    """One product: our calls in order, their result, what is expected, PyTorch's call."""

    def __init__(self, kind: str, n: int, c: int, k: int, threads: int):
        self.threads = threads
        rng = np.random.default_rng(0)
        self.x, self.w, self.dy = (
            aligned(rng.standard_normal(s).astype(np.float32)) for s in ((n, c), (c, k), (n, k))
        )
        self.bias = rng.standard_normal(k).astype(np.float32)
        self.calls: list[tuple[Kernel, dict[str, Any]]] = []
        self.kernel = getattr(choose_linear(n, c, k, 4, threads), kind)
        traits = KERNELS[self.kernel].traits
        if pays_by_columns(n, c, k, 4) and traits.turned_columns_as:
            turn = columns_turned(n, c, k, 4)
            self.kernel = traits.turned_columns_as if turn else traits.blocked_columns_as
        elif pays(n, c, k, 4):
            self.kernel = traits.turned_as or self.kernel
        elif blocks_pay(n):
            self.kernel = traits.blocked_as or self.kernel
        getattr(self, kind)()

    def call(self, name: str, **operands: Any) -> None:
        if "scratch" in KERNELS[name].params:
            (n, c), k = self.x.shape, self.dy.shape[1]
            shapes = {
                "linear_backward_input_blocked": (n, matmul_blocked.own_columns(n, c, k, 4)),
                "linear_backward_input_turned": (n, turned_columns(k)),
                "linear_backward_input_turned_columns": (c, columns_scratch(n, k)),
                "linear_backward_input_blocked_columns": (c, BLOCK_COLUMNS),
                "linear_backward_weight_own": (c, own_scratch(n)),
            }
            shape = shapes.get(name, (n, matmul_blocked.scratch_columns(n, 4)))
            operands["scratch"] = aligned(np.zeros(shape, np.float32))
        self.calls.append((KERNELS[name], operands))

    def packed(self, a: np.ndarray) -> np.ndarray:
        rows, columns = a.shape[::-1]
        result = aligned(np.zeros(packed_shape(rows, columns, 4), np.float32))
        self.call("pack_panels_transposed", w=a, packed=result)
        return result

    def forward(self) -> None:
        self.result = aligned(np.zeros_like(self.dy))
        self.call(self.kernel, x=self.x, w=self.w, bias=self.bias, y=self.result)
        self.expected = self.x.astype(float) @ self.w + self.bias
        self.peer = ("addmm", self.bias, self.x, self.w)

    def backward_input(self) -> None:
        self.result = aligned(np.zeros_like(self.x))
        plain = self.kernel != "linear_backward_input"
        weight = {"w": self.w} if plain else {"w_packed": self.packed(self.w)}
        self.call(self.kernel, dy=self.dy, dx=self.result, **weight)
        self.expected = self.dy.astype(float) @ self.w.T
        self.peer = ("mm", self.dy, self.w.T)

    def backward_weight(self) -> None:
        self.result = aligned(np.zeros_like(self.w))
        self.call(self.kernel, x=self.x, dy=self.dy, dw=self.result)
        self.expected = self.x.T.astype(float) @ self.dy
        self.peer = ("mm", self.x.T, self.dy)

    def check(self) -> None:
        self.result[...] = np.nan
        steps_of(self.calls, self.threads)(1)
        error = np.abs(self.result - self.expected).max() / np.abs(self.expected).max()
        if not error < 3e-5:
            raise AssertionError(f"{self.kernel} {self.x.shape} {self.w.shape}: error {error}")

    def sides(self) -> dict[str, Callable[[int], None]]:
        sides: dict[str, Callable[[int], None]] = {"fastnn": steps_of(self.calls, self.threads)}
        try:
            import torch
        except ImportError:
            return sides
        torch.set_num_threads(self.threads)
        name, *arrays = self.peer
        operands = [torch.as_tensor(a) for a in arrays]
        out = torch.as_tensor(np.zeros_like(self.result))
        function = getattr(torch, name)
        sides["torch"] = lambda count: [function(*operands, out=out) for _ in range(count)] and None
        return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="small sizes only, nothing written")
    parser.add_argument("--only", default="", help="only products whose name contains this")
    options = parser.parse_args()
    rows = []
    for kind, n, c, k in CASES:
        name = f"{kind} {n}x{c}x{k}"
        if options.only not in name or (options.quick and n * c * k > 2e8):
            continue
        product = Product(kind, n, c, k, options.threads)
        product.check()
        peak = limits.fma_peak() * options.threads
        budget, trip = 0.5 if options.quick else 1.5, harness.trip_of(options.threads)
        seconds = harness.alternate(product.sides(), options.turns, budget, trip=trip)
        rate = 2e-9 * n * c * k / seconds["fastnn"]["median"]
        peer = seconds.get("torch")
        row = {
            "workload": name, "kernel": product.kernel, "threads": options.threads,
            "seconds": seconds, "gflops": rate, "share_of_peak": rate / peak,
            "ratio_torch": peer["median"] / seconds["fastnn"]["median"] if peer else None,
        }  # fmt: skip
        rows.append(row)
        ours = harness.microseconds(seconds["fastnn"]["median"])
        print(
            f"{name:32}{product.kernel:32}{ours:>9} µs{rate:8.1f} GFLOP/s, {rate / peak:.0%} of "
            f"the peak{row['ratio_torch'] or 0:7.2f} x PyTorch",
            flush=True,
        )
    if not (options.quick or options.only):
        command = f"python -m benchmarks.matmul --threads {options.threads}"
        path = harness.write(f"matmul-{options.threads}", command, rows)
        print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
