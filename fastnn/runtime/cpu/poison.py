"""What the CPU does in the mode of `fastnn/runtime/poison.py`: it fills memory, at a barrier of its
own, and looks whether all operands of a program lie in the memory that there is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fastnn.errors import ProgramError
from fastnn.kernels.declare import KERNELS
from fastnn.plan.program import Operand, Program, item_size
from fastnn.runtime import poison
from fastnn.runtime.cpu import compiler, layout
from fastnn.runtime.cpu.table import Table


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


def refuse_beside(program: Program, table: Table, memory: Mapping[str, np.ndarray]) -> None:
    """Refuse a program of which a call would read or write beside its segments, in any step of its
    loops: what lies there is somebody else's, and the process may end much later."""
    for call, loops in zip(table.calls, table.loops, strict=True):
        if call is None or KERNELS[call.kernel].traits.host:
            continue
        lengths = [loop.length for loop in loops]
        for name, _, operand in call.arrays():
            if operand.external or operand.segment == "local":
                continue
            begin, end = _reach(operand, lengths, item_size(operand.dtype, program.dtype))
            size = memory[operand.segment].nbytes
            if begin < end and (begin < 0 or end > size):
                raise ProgramError(
                    f"{call.kernel}, {name}: bytes {begin:,} to {end:,} of {operand.segment!r}, "
                    f"which has {size:,}"
                )


def _reach(operand: Operand, lengths: list[int], item: int) -> tuple[int, int]:
    """The first byte of an operand in all steps of its loops, and the one after its last."""
    moves = [s * max(n - 1, 0) for s, n in zip(operand.strides, lengths, strict=False)]
    size = item * math.prod(operand.dims)
    begin = operand.offset + sum(min(move, 0) for move in moves)
    return begin, operand.offset + sum(max(move, 0) for move in moves) + size if size else begin
