"""Compiles CUDA kernels in several processes at once, on a machine's first run.

A worker process (`python -m fastnn.runtime.cuda.ahead`) compiles the variants it reads, one a line
of JSON, into the cache. It compiles only what is the same there (the path in the cache is a hash of
the code): users' own kernels are left to the process that needs them. Nothing here can fail a run.
`fastnn warmup --device cuda` compiles all of fastnn's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from fastnn import switches
from fastnn.kernels import external
from fastnn.kernels.cuda import joined
from fastnn.kernels.declare import CUDA_KERNELS, CudaKernel
from fastnn.runtime.cpu.execute import available_cores
from fastnn.runtime.cuda import compiler, rows
from fastnn.runtime.keys import Unkeyed

#: kernel, float type, type of the data ("" where it reads none), compute capability
Variant = tuple[CudaKernel, str, str, tuple[int, int]]
#: fewer missing kernels than this are not worth a worker process
FEW = 3
MOST_WORKERS = 16


def compile_missing(wanted: Iterable[Variant], from_rows: Iterable[Variant] = ()) -> int:
    """Compile what is not in the cache; returns how many were compiled. Says so if it takes long.

    Where that is not worth worker processes nothing is done: `compiler.code` compiles when asked.
    Those of `from_rows` are compiled to read their arguments from rows, too (`rows.py`).
    """
    both = [v for v in dict.fromkeys(from_rows) if not rows.is_there(*v)]
    absent = [v for v in dict.fromkeys(wanted) if v not in both and not _is_there(v)]
    absent += both
    count = min(available_cores(), len(absent) // 2, MOST_WORKERS)
    if len(absent) < FEW or count < 2 or not sys.executable:
        return 0
    sys.stderr.write(f"compiling {len(absent)} CUDA kernels (once per machine)...\n")
    sys.stderr.flush()
    workers: list[subprocess.Popen[str]] = []
    try:
        with contextlib.suppress(OSError):
            for k in range(count):
                own = [(v, v in both) for v in absent[k::count]]
                workers.append(_start(own))
        for worker in workers:
            worker.wait()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return sum(_is_there(v) for v in absent)


def _is_there(variant: Variant) -> bool:
    """Whether a variant is in the cache; one that can't be cached is left to who needs it."""
    try:
        return os.path.exists(compiler.code_path(*variant))
    except Unkeyed:
        return True


def _start(variants: list[tuple[Variant, bool]]) -> subprocess.Popen[str]:
    """A worker that compiles these, some of them to read their arguments from rows, too."""
    paths = [str(Path(p).resolve()) for p in sys.path if p]
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "fastnn.runtime.cuda.ahead", *external.MODULES],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=None if switches.on("FASTNN_DEBUG") else subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert worker.stdin is not None
    with contextlib.suppress(OSError), worker.stdin as lines:
        for (kernel, dtype, data, cc), row in variants:
            path = str(compiler.code_path(kernel, dtype, data, cc))
            lines.write(json.dumps([kernel.name, dtype, data, cc, path, row]) + "\n")
    return worker


def common_variants(cc: tuple[int, int]) -> list[Variant]:
    """All of fastnn's kernels, for the common types."""
    from fastnn.runtime.cuda.report import declare_all

    declare_all()
    common = (joined.find(joined.AND.join(names)) for names in joined.COMMON)
    kernels = [*CUDA_KERNELS.values(), *(kernel for kernel in common if kernel is not None)]
    return [
        (kernel, dtype, data, cc)
        for dtype in ("float32", "float64")
        for kernel in kernels
        if kernel.runs_on(cc) and not (dtype == "float64" and kernel.traits.only_float32)
        for data in (
            ("float32", "uint8", "int64")
            if any(p.dtype == "d" for p in kernel.arrays.values())
            else ("",)
        )
    ]


def main(modules: list[str]) -> None:
    """What a worker process does; it declares these modules' kernels, too."""
    from fastnn.runtime.cuda.report import declare_all

    declare_all(modules)
    for line in sys.stdin:
        name, dtype, data, cc, path, row = json.loads(line)
        kernel = joined.find(name)
        if kernel and str(compiler.code_path(kernel, dtype, data, tuple(cc))) == path:
            with contextlib.suppress(Exception):  # the process that needs it says what is wrong
                (rows if row else compiler).code(kernel, dtype, data, tuple(cc))


if __name__ == "__main__":
    main(sys.argv[1:])
