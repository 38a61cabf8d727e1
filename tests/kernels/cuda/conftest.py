"""Tests of CUDA kernels: they run in the simulator or on a device.

The simulator has to be chosen before Numba is imported (NUMBA_ENABLE_CUDASIM=1), so an ordinary run
of pytest collects this folder only where there is a device; `tests/runtime/test_cuda_simulator.py`
runs it in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fastnn.runtime import _cuda


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """None (decide as usual) where kernels can run, else leave the tests to that process."""
    return None if _cuda.available() else True


@pytest.fixture(autouse=True, scope="session")
def _needs_cuda() -> None:
    """Files that are asked for by name are collected all the same."""
    if not _cuda.available():
        pytest.skip(f"set NUMBA_ENABLE_CUDASIM=1: {_cuda.reason()}")
