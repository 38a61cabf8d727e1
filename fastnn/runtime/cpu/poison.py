"""How the CPU fills memory in the mode of `fastnn/runtime/poison.py`: at a barrier of its own."""

from __future__ import annotations

import numpy as np

from fastnn.kernels.declare import KERNELS
from fastnn.plan.program import Program
from fastnn.runtime import poison
from fastnn.runtime.cpu import compiler, layout


class Poison:
    """The calls of a kernel that fill a program's memory, and the row of the table that makes them.

    Args:
        program: the program.
        memory: its segments.
        first: how many calls stand before these in the table.
    """

    def __init__(self, program: Program, memory: dict[str, np.ndarray], first: int):
        places = [
            (memory[segment].ctypes.data + begin, size // 8)
            for segment, begin, size in poison.spans(program)
        ]
        places.append((0, 0))  # local memory, of which there is none before workers are known
        self.records = np.array([[*place, poison.WORD] for place in places], np.int64)
        address = compiler.address(KERNELS["fill"], "float32")
        self.calls = [[address, record.ctypes.data, 1, 0] for record in self.records]
        self.row = [layout.BARRIER, 0, 0, 0, first, len(self.calls), 0, 0]

    def local(self, memory: np.ndarray) -> None:
        """Local memory has (another) place."""
        self.records[-1, :2] = memory.ctypes.data, memory.nbytes // 8
