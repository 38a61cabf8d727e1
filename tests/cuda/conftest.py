"""Tests of the CUDA runtime: on a device, or with `NUMBA_ENABLE_CUDASIM=1` in the simulator.

Without either they are left out here: `tests/runtime/test_cuda_simulator.py` runs them.
"""

from __future__ import annotations

from fastnn.runtime import _cuda

collect_ignore_glob = [] if _cuda.available() else ["test_*.py"]
