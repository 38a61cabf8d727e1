"""Runs the tests of CUDA kernels and of the CUDA runtime in the simulator, each file in a process.

Numba decides on the simulator when it is imported, so the tests can't run beside the others.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastnn.runtime import _cuda

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    str(path.relative_to(ROOT))
    for folder in ("tests/kernels/cuda", "tests/cuda")
    for path in sorted((ROOT / folder).glob("test_*.py"))
]
#: without other packages' plugins for pytest, of which loading costs a second
ENVIRONMENT = {"NUMBA_ENABLE_CUDASIM": "1", "COLUMNS": "100", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)
@pytest.mark.skipif(_cuda.available(), reason="these tests run on the CUDA device here")
@pytest.mark.parametrize("file", FILES)
def test_in_the_simulator(file: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{output[-20_000:]}"
    counts = re.search(r"(\d+) passed", output)
    assert counts, f"no test ran:\n{output}"
    print(f"{file}: {output.strip().splitlines()[-1]}")  # noqa: T201
