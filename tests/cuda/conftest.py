"""Tests of the CUDA runtime: on a device, or with `NUMBA_ENABLE_CUDASIM=1` in the simulator.

Without either they are left out here: `tests/runtime/test_cuda_simulator.py` runs them.
"""

from __future__ import annotations

import pytest

from fastnn.runtime import _cuda

collect_ignore_glob = [] if _cuda.available() else ["test_*.py"]


@pytest.fixture(autouse=True, scope="session")
def _needs_cuda() -> None:
    """Files that are asked for by name are collected all the same."""
    if not _cuda.available():
        pytest.skip(f"set NUMBA_ENABLE_CUDASIM=1: {_cuda.reason()}")
