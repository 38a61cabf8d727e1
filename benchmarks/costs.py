"""What fastnn costs beside arithmetic: import, compilation, memory of the package.

python -m benchmarks.costs
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import harness

TRAIN = (
    "import numpy as np, fastnn as fnn; from fastnn import nn\n"
    "m = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))\n"
    "t = fnn.Trainer(m, 'cross_entropy', 'adam')\n"
    "x = np.zeros((64, 784), np.float32); y = np.zeros(64, np.int64)\n"
    "t.fit(x, y, batch_size=32, verbose=False)\n"
)


def seconds(code: str, **environment: str) -> float:
    """Wall seconds of a fresh Python that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment})
    return time.perf_counter() - start


def median(code: str, runs: int = 7, **environment: str) -> float:
    return statistics.median(seconds(code, **environment) for _ in range(runs))


def compile_seconds() -> list[dict[str, Any]]:
    """Seconds to compile each kernel that the MLP needs, one by one in this process."""
    import numpy as np

    import fastnn as fnn
    from fastnn import nn
    from fastnn.kernels.declare import KERNELS
    from fastnn.runtime.cpu import codegen

    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    trainer = fnn.Trainer(model, "cross_entropy", "adam", metrics=["accuracy"])
    x, y = np.zeros((64, 784), np.float32), np.zeros(64, np.int64)
    trainer.fit(x, y, batch_size=32, validation=(x, y), verbose=False)
    names = sorted({c.kernel for built in trainer._built.values() for c in built.program.calls()})
    rows = []
    for name in names:
        kernel = KERNELS[name]
        data = {"gather_rows": "float32", "gather_ids": "int64"}.get(name, "")
        start = time.perf_counter()
        codegen.compile_object(kernel, "float32", data)
        rows.append({"kernel": name, "seconds": round(time.perf_counter() - start, 3)})
    return sorted(rows, key=lambda r: -r["seconds"])


def main() -> None:
    rows: list[dict[str, Any]] = []
    for what, code in (
        ("import fastnn", "import fastnn"),
        ("import numba", "import numba"),
        ("import torch", "import torch"),
        ("first training steps, warm cache", TRAIN),
    ):
        try:
            rows.append({"what": what, "seconds": median(code)})
        except subprocess.CalledProcessError:
            continue
    with tempfile.TemporaryDirectory() as folder:
        cold = seconds(TRAIN, FASTNN_CACHE=folder)
    rows.append({"what": "first training steps, empty cache", "seconds": cold})
    kernels = compile_seconds()
    total = sum(r["seconds"] for r in kernels)
    rows.append({"what": f"compiling the {len(kernels)} kernels of an MLP, one by one",
                 "seconds": total})  # fmt: skip
    for row in rows:
        print(f"{row['what']}: {row['seconds']:.2f} s", file=sys.stderr)
    for row in kernels[:8]:
        print(f"    {row['kernel']}: {row['seconds']:.2f} s", file=sys.stderr)
    path = harness.write("costs", "python -m benchmarks.costs", rows, kernels=kernels)
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
