"""fastnn without CUDA: nothing of it is imported, nor missed where it is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BLOCKED = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cuda", "numba_cuda") or name.startswith("numba.cuda"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
"""


def python(code: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_no_cuda() -> None:
    code = """
import sys
import fastnn as fnn
from fastnn import callbacks, data, nn, ops, optim
fnn.Trainer
import fastnn.runtime._cuda, fastnn.runtime.cuda.compiler, fastnn.testing.kernels
import fastnn.kernels.cuda.elementwise
print(sorted(m for m in sys.modules if m.split(".")[0] in ("cuda", "numba_cuda", "numba")))
"""
    assert python(code) == "[]\n"


def test_training_works_without_the_packages() -> None:
    code = """
import numpy as np
import fastnn as fnn
from fastnn import nn, optim
x, y = np.ones((64, 20), "f4"), np.arange(64) % 10
model = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 10))
history = fnn.Trainer(model, "cross_entropy", optim.Adam()).fit(x, y, verbose=False)
assert np.isfinite(history["loss"][0])
from fastnn.runtime import _cuda
print(_cuda.available(), _cuda.reason())
"""
    answer = python(BLOCKED + code)
    assert answer.startswith("False the CUDA packages are not installed: pip install")


def test_kernels_are_declared_without_the_packages() -> None:
    code = """
import sys
from fastnn.runtime.cuda import twins
from fastnn.kernels.declare import CUDA_KERNELS
twins.load_all()
print(len(CUDA_KERNELS))
"""
    assert int(python(BLOCKED + code)) > 100


@pytest.mark.parametrize("kernel", ["relu_forward"])
def test_a_direct_call_says_what_to_do(kernel: str) -> None:
    code = f"""
import numpy as np
import fastnn.kernels.cuda.elementwise
from fastnn.kernels.declare import CUDA_KERNELS
try:
    CUDA_KERNELS["{kernel}"].function(np.ones((2, 2)), np.ones((2, 2)))
except RuntimeError as error:
    print(error)
"""
    assert "call_cuda" in python(BLOCKED + code)
