"""Page-locked buffers in a ring: batches on their way from the host to a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.kernels import types
from fastnn.plan.program import Program
from fastnn.runtime.cuda.place import Launch, Piece, nothing

#: buffers of a ring, at most; bytes that all of them take, unless two take more
SLOTS, BYTES = 8, 1 << 28


class Slot:
    """One batch on its way.

    Args:
        gpu: the device.
        size: bytes of the largest inputs.

    Attributes:
        host: page-locked bytes, laid out like the inputs of the program that reads them.
        piece: as many bytes on the device. They are copied on to the program's inputs when the step
            before needs those no more.
        size: bytes in use.
    """

    def __init__(self, gpu: Any, size: int):
        self.host = gpu.pinned(size)
        self.piece: Piece = gpu.allocate(size, "input")
        self.size = 0
        self._gpu = gpu
        self._forward: Launch = nothing
        self._way: tuple[Piece | None, int] = None, 0  # of `_forward`: where to, how many bytes
        self._program: Program | None = None
        self._views: dict[str, np.ndarray] = {}

    def fill(self, program: Program, names: Sequence[str], arrays: Sequence[Any]) -> None:
        """Write a program's inputs, in the program's element types."""
        if self._program is not program:
            self._program, self._views, self.size = None, {}, 0
            for name, place in program.places.items():
                if place.segment == "input":
                    kind = np.dtype(types.storage(place.dtype, program.dtype))
                    count = int(np.prod(place.dims, dtype=np.int64))
                    end = place.offset + count * kind.itemsize
                    raw = self.host[place.offset : end]
                    self.size = max(self.size, end)
                    self._views[name] = raw.view(kind).reshape(place.dims)
            self._program = program
        for name, array in zip(names, arrays, strict=True):
            np.copyto(self._views[name], array, casting="unsafe")

    def forward(self, target: Piece) -> None:
        """Have what was written copied to the program's inputs."""
        if self._way[0] is not target or self._way[1] != self.size:
            self._forward = self._gpu.forwarding(self.host, self.piece, target, self.size)
            self._way = target, self.size
        self._forward()


def ring(gpu: Any, size: int) -> list[Slot]:
    """Buffers for inputs of so many bytes."""
    count = max(2, min(SLOTS, BYTES // max(size, 1)))
    slots = [Slot(gpu, size) for _ in range(count)]
    gpu.sync()  # new memory is set to zero by the stream of the steps, which copies run beside
    return slots
