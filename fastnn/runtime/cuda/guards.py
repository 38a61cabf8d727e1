"""Allocations that show a kernel which touches what is not its own (`FASTNN_CUDA_GUARD`).

Ordinarily memory comes from the driver's pool in pieces of whole 256 bytes, where a tool like
compute-sanitizer sees no difference between an array's last byte and the next one.

- ``FASTNN_CUDA_GUARD=exact``: every piece is an allocation of its own, of exactly as many bytes as
  were asked for. compute-sanitizer then reports an access one byte past the end.
- ``FASTNN_CUDA_GUARD=1``: on both sides of every piece lie `ZONE` bytes of a pattern. They are
  compared whenever the device is waited for, and a difference is an error that names the piece. It
  needs no tool, and sees writes only.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from fastnn import switches
from fastnn.errors import DeviceError
from fastnn.runtime.cuda.place import Piece

#: bytes on each side; a piece stays aligned as it would be without
ZONE = 256
PATTERN = 0xC5


def mode() -> str:
    """ "" (off), "exact" or "1"."""
    found = switches.switch("FASTNN_CUDA_GUARD", also=("exact",))
    return found if isinstance(found, str) else "1" if found else ""


class Guard:
    """A piece's two zones; it keeps the memory alive.

    Args:
        name: what the piece is for.
        whole: the allocation, both zones included.
        end: where the second zone begins.
    """

    def __init__(self, name: str, whole: Piece, end: int):
        self.name, self.whole, self.end = name, whole, end


class Guards:
    """The zones of a device's pieces."""

    def __init__(self, device: Any):
        self.device = device
        self._live: weakref.WeakSet[Guard] = weakref.WeakSet()

    def around(self, whole: Piece, size: int, name: str) -> Piece:
        """The piece of `size` bytes inside an allocation that has room for two zones."""
        guard = Guard(name, whole, ZONE + size)
        zone = np.full(ZONE, PATTERN, np.uint8)
        for at in (0, guard.end):
            self.device.upload(zone, whole, at)
        self._live.add(guard)
        return Piece(whole.address + ZONE, size, guard)

    def check(self) -> None:
        """Raise DeviceError where a zone is not as it was. The device has been waited for."""
        for guard in list(self._live):
            for at, side in ((0, "before the beginning"), (guard.end, "past the end")):
                zone = np.empty(ZONE, np.uint8)
                self.device.fetch(guard.whole, zone, at)
                changed = np.flatnonzero(zone != PATTERN)
                if len(changed):
                    self._live.discard(guard)  # said once
                    far = int(changed[0]) + 1 if at else ZONE - int(changed[-1])
                    raise DeviceError(
                        f"{self.device.device}: a kernel has written {len(changed)} bytes {side} "
                        f"of the memory for {guard.name!r}, the nearest {far} bytes away; run it "
                        "with graphs=False and compute-sanitizer (FASTNN_CUDA_GUARD=exact), or in "
                        "the simulator (NUMBA_ENABLE_CUDASIM=1), to find which"
                    )
