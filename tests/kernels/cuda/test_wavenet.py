"""Samples that CUDA draws from a WaveNet, beside the CPU's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.declare import CUDA_KERNELS, KERNELS
from fastnn.kernels.wavenet.shared import room
from fastnn.testing.kernels import call_cuda
from tests.kernels.direct import DIRECT


@pytest.mark.parametrize("mixtures", [0, 1])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_both_devices_draw_the_same(mixtures: int, temperature: float) -> None:
    given: dict[str, Any] = {
        name: value.astype(np.float64) if value.dtype.kind == "f" else value.copy()
        for name, value in DIRECT["wavenet_sample"].items()
        if isinstance(value, np.ndarray)
    } | {
        name: value
        for name, value in DIRECT["wavenet_sample"].items()
        if not isinstance(value, np.ndarray)
    }
    given |= {"mixtures": mixtures, "temperature": temperature}
    if mixtures:
        given |= {"table": given["table"][:2], "levels": 40, "each": None, "frames": None}
    given["room"] = np.zeros((2, room(3, 2, 2, 5, 4, 3)))
    found = np.full((2, 4), -7)
    call_cuda(CUDA_KERNELS["wavenet_sample"], **{**given, "y": found})
    KERNELS["wavenet_sample"](*_all(given | {"room": given["room"].copy()}), 0, 2)
    np.testing.assert_array_equal(found, given["y"])
    assert (found >= 0).all()


def _all(given: dict[str, Any]) -> list[Any]:
    """Arguments in the kernel's order, an absent array of no elements."""
    empty = {n: np.zeros((0,) * len(p.dims)) for n, p in KERNELS["wavenet_sample"].arrays.items()}
    return [
        empty[name] if given[name] is None else given[name]
        for name in KERNELS["wavenet_sample"].params
    ]
