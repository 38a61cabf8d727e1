"""What exp, tanh and their like cost where nothing else does: their instructions and their cycles.

    python -m benchmarks.ports

Each function is computed for 1,024 numbers in the L1 cache, again and again, four vectors in each
turn of the loop: loads and stores have ports of their own, so what is measured is the function. The
cycles are those of one vector, by the clock that the multiply-add peak of the same run implies (two
multiply-adds a cycle). Beside them is what `llvm-mca`, a model of the processor, says of the loop's
machine code, if it is installed (Debian's package `llvm`): instructions, micro-operations, the
cycles that the busiest ports need, and those that it expects.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import harness, limits
from fastnn.kernels.cpu import target
from fastnn.kernels.declare import Kernel, kernel
from fastnn.kernels.random.shared import philox, to_uniform
from fastnn.kernels.simd import lanes, load, sqrt, store, words
from fastnn.kernels.vector_math import exp, log, sigmoid, tanh
from fastnn.runtime.cpu import codegen, compiler
from fastnn.runtime.segment import aligned_zeros
from fastnn.testing.kernels import record

#: numbers in the cache, and how often a call computes them all
NUMBERS, TIMES = 1024, 128
#: a line of assembly that is a label, or a jump to one
LABEL = re.compile(r"^([.\w$]+):")
JUMP = re.compile(r"^\s+j\w+\s+([.\w$]+)")


@kernel
def bench_exp(x: "in whole f[N]", y: "out whole f[N]", times: "int"):
    """exp of all numbers."""
    for _ in range(times):
        for i in range(0, x.size, 4 * lanes(x)):
            for k in range(4):
                store(y, i + k * lanes(x), exp(load(x, i + k * lanes(x))))


@kernel
def bench_tanh(x: "in whole f[N]", y: "out whole f[N]", times: "int"):
    """tanh of all numbers."""
    for _ in range(times):
        for i in range(0, x.size, 4 * lanes(x)):
            for k in range(4):
                store(y, i + k * lanes(x), tanh(load(x, i + k * lanes(x))))


@kernel
def bench_sigmoid(x: "in whole f[N]", y: "out whole f[N]", times: "int"):
    """sigmoid of all numbers."""
    for _ in range(times):
        for i in range(0, x.size, 4 * lanes(x)):
            for k in range(4):
                store(y, i + k * lanes(x), sigmoid(load(x, i + k * lanes(x))))


@kernel
def bench_log(x: "in whole f[N]", y: "out whole f[N]", times: "int"):
    """log of all numbers."""
    for _ in range(times):
        for i in range(0, x.size, 4 * lanes(x)):
            for k in range(4):
                store(y, i + k * lanes(x), log(load(x, i + k * lanes(x))))


@kernel
def bench_root(x: "in whole f[N]", y: "out whole f[N]", times: "int"):
    """The roots of all numbers."""
    for _ in range(times):
        for i in range(0, x.size, 4 * lanes(x)):
            for k in range(4):
                store(y, i + k * lanes(x), sqrt(load(x, i + k * lanes(x))))


@kernel
def bench_divide(x: "in whole f[N]", y: "out whole f[N]", times: "int"):
    """A quotient for each number."""
    for _ in range(times):
        for i in range(0, x.size, 4 * lanes(x)):
            for k in range(4):
                store(y, i + k * lanes(x), 3.0 / load(x, i + k * lanes(x)))


@kernel
def bench_root_and_quotient(x: "in whole f[N]", y: "out whole f[N]", times: "int"):
    """A root and a quotient for each number, as an optimiser's update has them."""
    for _ in range(times):
        for i in range(0, x.size, 4 * lanes(x)):
            for k in range(4):
                v = load(x, i + k * lanes(x))
                store(y, i + k * lanes(x), v / (sqrt(v) + 1e-8))


@kernel
def bench_random(x: "in whole f[N]", y: "out whole f[N]", times: "int"):
    """A random number in place of each (Philox: a block makes four)."""
    for _ in range(times):
        for i in range(0, x.size, 4 * lanes(x)):
            zero = words(x, 0) & 0
            a, b, c, d = philox(words(x, i), zero ^ 1, zero ^ 2, zero ^ 3, times, 5)
            store(y, i, to_uniform(a))
            store(y, i + lanes(x), to_uniform(b))
            store(y, i + 2 * lanes(x), to_uniform(c))
            store(y, i + 3 * lanes(x), to_uniform(d))


FUNCTIONS: dict[str, Kernel] = {
    "exp": bench_exp, "tanh": bench_tanh, "sigmoid": bench_sigmoid, "log": bench_log,
    "root": bench_root, "quotient": bench_divide,
    "root and quotient": bench_root_and_quotient, "random": bench_random,
}  # fmt: skip


def seconds(name: str, clock: Callable[[], float] = time.thread_time, turns: int = 60) -> float:
    """Seconds that one number takes: the least of some turns."""
    kernel = FUNCTIONS[name]
    x, y = aligned_zeros(NUMBERS, np.float32), aligned_zeros(NUMBERS, np.float32)
    x[:] = np.linspace(0.5, 2.0, NUMBERS)
    words, *_ = record(kernel, {"x": x, "y": y, "times": TIMES})
    function, address = compiler.CALL(compiler.address(kernel, "float32")), words.ctypes.data
    function(address, 0, 1)
    times = []
    for _ in range(turns):
        begin = clock()
        function(address, 0, 1)
        times.append(clock() - begin)
    return min(times) / (NUMBERS * TIMES)


def loop_of(assembly: str) -> list[str]:
    """The instructions of a kernel's inner loop: of those that no other lies within, the one that
    has most of its instructions on vectors."""
    lines = assembly.splitlines()
    labels = {m[1]: k for k, line in enumerate(lines) if (m := LABEL.match(line))}
    found: list[list[str]] = []
    for end, line in enumerate(lines):
        jump = JUMP.match(line)
        if jump and labels.get(jump[1], end) < end:
            body = lines[labels[jump[1]] : end + 1]
            inner = [m[1] for b in body[:-1] if (m := JUMP.match(b))]
            if not any(labels.get(name, 0) > labels[jump[1]] for name in inner):
                found.append([b for b in body if not LABEL.match(b)])
    if not found:
        raise ValueError("expected a loop in the assembly")
    return max(found, key=lambda body: sum("ymm" in b or "zmm" in b or "xmm" in b for b in body))


def model(body: list[str], cpu: str) -> dict[str, float]:
    """What llvm-mca says of a turn of a loop; {} where it isn't installed or doesn't know the CPU:
    instructions, micro-operations, cycles by the busiest port and as expected."""
    tool = shutil.which("llvm-mca")
    if tool is None:
        return {}
    done = subprocess.run(
        [tool, f"-mcpu={cpu}", "-iterations=200"], input="\n".join(body) + "\n", text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return {}

    def number(what: str) -> float:
        return float(re.search(rf"{what}:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]

    return {
        "instructions": number("Instructions") / 200, "uops": number("Total uOps") / 200,
        "ports": number("Block RThroughput"), "expected": number("Total Cycles") / 200,
    }  # fmt: skip


def measure() -> list[dict[str, Any]]:
    """A row for each function."""
    host = target.host()
    width = host.lanes(4)
    clock_rate = limits.fma_peak() / (4 * width)  # GHz: two multiply-adds of `width` numbers
    rows = []
    for name, function in FUNCTIONS.items():
        body = loop_of(codegen.assembly(function))
        stores = sum(bool(re.match(r"\s+v?mov[aupsd]+\s+%[xyz]mm\d+, .*\(", b)) for b in body)
        found = model(body, host.cpu) if stores else {}  # else a loop within the function's own
        each = seconds(name)
        rows.append(
            {
                "row": name, "picoseconds": 1e12 * each, "cycles": each * width * clock_rate * 1e9,
                "vectors": stores, **{k: v / max(stores, 1) for k, v in found.items()},
            }
        )  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    def shown(row: dict[str, Any], field: str, form: str) -> str:
        return format(row[field], form) if field in row else "-"

    return harness.table(
        [
            {
                "function": row["row"], "ps a number": f"{row['picoseconds']:.0f}",
                "cycles a vector": f"{row['cycles']:.1f}",
                "instructions": shown(row, "instructions", ".1f"),
                "busiest ports, cycles": shown(row, "ports", ".1f"),
                "expected, cycles": shown(row, "expected", ".1f"),
            }
            for row in rows
        ],
        ["function", "ps a number", "cycles a vector", "instructions", "busiest ports, cycles",
         "expected, cycles"],
    )  # fmt: skip


def main() -> None:
    rows = measure()
    print(table(rows))
    path = harness.write(
        "ports", "python -m benchmarks.ports", rows, fma_peak_gflops=limits.fma_peak()
    )
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
