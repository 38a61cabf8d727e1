"""Matrix products: ours against PyTorch (where installed) and the FMA peak, on one thread.

    taskset -c 1 python benchmarks/matmul.py [--quick] [--dtype float64]

Each line is checked against float64 first; then the two sides take turns, and minima are compared.
The peak is the main tile's speed on operands in the L1 cache, measured in the same turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.kernels.cpu import matmul, tile
from fastnn.kernels.cpu.tile import MAIN
from fastnn.kernels.declare import kernel
from fastnn.runtime.cpu import compiler
from fastnn.testing.kernels import record

try:
    import torch
except ImportError:
    torch = None


def caller(kernel: Any, /, **operands: Any) -> Callable[[], None]:
    """A call of the compiled kernel over all items, with little overhead."""
    words, dtype, data_dtype, items = record(kernel, operands)
    function = compiler.CALL(compiler.address(kernel, dtype, data_dtype))
    pointer, keep = words.ctypes.data, (words, operands)
    return lambda _=keep: function(pointer, 0, items)


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An empty array that begins at a cache line, as a plan's buffers do."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def normal(rng: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    result = aligned(shape, dtype)
    result[...] = rng.standard_normal(shape)
    return result


def seconds(function: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def compare(sides: dict[str, Callable[[], Any]], turns: int, budget: float) -> dict[str, float]:
    """The smallest time of each side; the sides take turns of about `budget` seconds in all."""
    repeats = {}
    for name, function in sides.items():
        function()
        once = min(seconds(function, 1) for _ in range(3))
        repeats[name] = max(1, min(20000, int(budget / turns / once)))
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(turns):
        for name, function in sides.items():
            best[name] = min(best[name], seconds(function, repeats[name]))
    return best


@kernel
def tile_speed(x: "in whole f[M,T]", w: "in whole f[T,J]", y: "out whole f[M,J]", times: "int"):
    """The main tile, again and again on the same operands."""
    rows, depth = x.shape
    columns = y.shape[1]
    for _ in range(times):
        tile.tile(MAIN, x, 0, depth, 1, w, 0, columns, y, 0, columns, y, -1, depth, rows,
                  columns, True)  # fmt: skip


def peak_call(dtype: Any) -> tuple[Callable[[], None], float]:
    """The main tile on operands in L1, and the number of operations of one call."""
    rows = tile.shapes()[tile.MAIN][0]
    columns, depth, times = tile.panel_width(np.dtype(dtype).itemsize), 128, 200
    shapes = ((rows, depth), (depth, columns), (rows, columns))
    x, w, y = (aligned(shape, dtype) for shape in shapes)
    x[...], w[...] = 1, 1
    call = caller(tile_speed, x=x, w=w, y=y, times=times)
    return call, 2.0 * rows * columns * depth * times


class Case:
    """One product: our kernels by name, PyTorch's call, the result to check."""

    def __init__(self, product: str, n: int, c: int, k: int, dtype: Any):
        rng = np.random.default_rng(0)
        self.name, self.operations = f"{product} {n}x{c}x{k}", 2.0 * n * c * k
        x, w, dy = (normal(rng, s, dtype) for s in ((n, c), (c, k), (n, k)))
        bias = normal(rng, (k if product == "forward" else 0,), dtype)
        self.make = getattr(self, product)
        self.ours, self.packing, self.result, self.expected, self.torch = self.make(x, w, dy, bias)

    def check(self) -> None:
        scale = np.abs(self.expected).max()
        tolerance = 3e-5 if self.result.dtype == np.float32 else 1e-13
        for name, function in self.ours.items():
            self.result[...] = np.nan
            for pack in self.packing.values():
                pack()
            function()
            error = np.abs(self.result - self.expected).max() / scale
            if not error < tolerance:
                raise AssertionError(f"{self.name} {name}: error {error}")

    @staticmethod
    def forward(x: Any, w: Any, dy: Any, bias: Any) -> Any:
        y = aligned(dy.shape, dy.dtype)
        packed = aligned(matmul.packed_shape(*w.shape, w.itemsize), w.dtype)
        shared = {"x": x, "bias": bias, "y": y}
        ours = {
            "plain": caller(matmul.linear_forward, w=w, **shared),
            "packed": caller(matmul.linear_forward_packed, w_packed=packed, **shared),
        }
        packing = {"pack": caller(matmul.pack_panels, w=w, packed=packed)}
        return ours, packing, y, x.astype(float) @ w + bias, torch_call("addmm", bias, x, w, y)

    @staticmethod
    def backward_input(x: Any, w: Any, dy: Any, bias: Any) -> Any:
        dx = aligned(x.shape, x.dtype)
        packed = aligned(matmul.packed_shape(*w.T.shape, w.itemsize), w.dtype)
        ours = {
            "plain": caller(matmul.linear_backward_input_unpacked, dy=dy, w=w, dx=dx),
            "packed": caller(matmul.linear_backward_input, dy=dy, w_packed=packed, dx=dx),
        }
        packing = {"pack": caller(matmul.pack_panels_transposed, w=w, packed=packed)}
        return ours, packing, dx, dy.astype(float) @ w.T, torch_call("mm", dy, w.T, dx)

    @staticmethod
    def backward_weight(x: Any, w: Any, dy: Any, bias: Any) -> Any:
        dw = aligned(w.shape, w.dtype)
        x_packed, dy_packed = (
            aligned(matmul.packed_shape(*a.shape, a.itemsize), a.dtype) for a in (x, dy)
        )
        ours = {
            "plain": caller(matmul.linear_backward_weight, x=x, dy=dy, dw=dw),
            "packed": caller(
                matmul.linear_backward_weight_packed, x_packed=x_packed, dy_packed=dy_packed, dw=dw
            ),
        }
        packing = {
            "pack": caller(matmul.pack_panels, w=x, packed=x_packed),
            "pack 2": caller(matmul.pack_panels, w=dy, packed=dy_packed),
        }
        return ours, packing, dw, x.T.astype(float) @ dy, torch_call("mm", x.T, dy, dw)


def torch_call(name: str, *arrays: Any) -> Callable[[], Any] | None:
    if torch is None:
        return None
    *operands, out = (torch.as_tensor(a) for a in arrays)
    function = getattr(torch, name)
    return lambda: function(*operands, out=out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--quick", action="store_true", help="fewer sizes, shorter turns")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    options = parser.parse_args()
    if torch is not None:
        torch.set_num_threads(1)
    cases = [(p, n, n, n) for p in ("forward",) for n in (64, 128, 256, 512, 1024, 2048)]
    cases += [(p, n, n, n) for p in ("backward_input", "backward_weight") for n in (256, 1024)]
    cases += [("forward", n, s, s) for s in (64, 256, 1024) for n in (1, 2, 4, 8, 16)]
    cases += [
        (p, n, c, k)
        for c, k in ((784, 128), (128, 10))
        for p in ("forward", "backward_input", "backward_weight")
        for n in (1, 32, 128)
    ]
    peak, peak_operations = peak_call(options.dtype)
    print(f"{options.dtype}, PyTorch {torch.__version__ if torch else 'not installed'}; GFLOP/s")
    print(f"{'product N x C x K':32}{'plain':>8}{'packed':>8}{'+pack':>8}{'torch':>8}"
          f"{'ratio':>7}{'peak':>8}{'share':>7}{'µs':>10}")  # fmt: skip
    for product, n, c, k in cases:
        name = f"{product} {n}x{c}x{k}"
        if options.only not in name or (options.quick and n * c * k > 2e8):
            continue
        case = Case(product, n, c, k, options.dtype)
        case.check()
        sides = {"peak": peak, **case.ours, **case.packing}
        if case.torch is not None:
            sides["torch"] = case.torch
        time_of = compare(sides, 15, 0.1 if options.quick else 0.4)
        packing = sum(time_of[name] for name in case.packing)
        rate = {s: case.operations / t / 1e9 for s, t in time_of.items()}
        best = max(rate[s] for s in case.ours)
        top = peak_operations / time_of["peak"] / 1e9
        torch_rate = rate.get("torch", float("nan"))
        print(
            f"{case.name:32}{rate['plain']:8.1f}{rate['packed']:8.1f}"
            f"{case.operations / (time_of['packed'] + packing) / 1e9:8.1f}{torch_rate:8.1f}"
            f"{best / torch_rate:7.2f}{top:8.1f}{best / top:7.2f}"
            f"{case.operations / best / 1e3:10.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
