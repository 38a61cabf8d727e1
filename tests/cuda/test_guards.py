"""Memory with guards finds what a kernel writes beside it, on both sides and at any distance."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn.errors import DeviceError, OptionError
from fastnn.runtime.cuda.gpu import gpu
from fastnn.runtime.cuda.guards import ZONE


@pytest.mark.parametrize(
    ("offset", "size", "side"),
    [
        (7, 1, r"1 bytes past the end of the memory for 'work', the nearest 1 bytes away"),
        (7 + ZONE - 4, 4, r"4 bytes past the end .* nearest 253 bytes"),
        (-1, 1, r"1 bytes before the beginning .* nearest 1 bytes"),
        (-ZONE, 8, r"8 bytes before the beginning .* nearest 249 bytes"),
    ],
)
def test_a_write_beside_the_memory(monkeypatch, offset, size, side):
    monkeypatch.setenv("FASTNN_CUDA_GUARD", "1")
    device = gpu("cuda:0")
    piece, other = device.allocate(7, "work"), device.allocate(100, "params")
    device.upload(np.ones(7, np.uint8), piece)
    device.upload(np.ones(100, np.uint8), other)
    device.sync()
    device.upload(np.ones(size, np.uint8), piece, offset)
    with pytest.raises(DeviceError, match=side):
        device.sync()
    device.sync()  # it is said once


@pytest.mark.parametrize("mode", ["1", "exact"])
def test_contents_and_alignment_are_as_ever(monkeypatch, mode):
    monkeypatch.setenv("FASTNN_CUDA_GUARD", mode)
    device = gpu("cuda:0")
    piece, back = device.allocate(5, "work"), np.ones(5, np.uint8)
    assert piece.size == 5
    device.download(piece, back)
    assert not back.any()
    device.upload(np.arange(5, dtype=np.uint8), piece)
    device.download(piece, back)
    np.testing.assert_array_equal(back, np.arange(5))


def test_another_value_is_refused(monkeypatch):
    monkeypatch.setenv("FASTNN_CUDA_GUARD", "exactly")
    with pytest.raises(OptionError, match=r"FASTNN_CUDA_GUARD='exactly': .*, exact, or 0"):
        gpu("cuda:0").allocate(5, "work")
