"""Programs bound on the CPU: reading and writing what they hold, and their calls one by one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from operator import is_
from typing import Any

import numpy as np

from fastnn.cached import cached
from fastnn.kernels.declare import KERNELS, kernel_of
from fastnn.plan.program import Operand, PlannedCall, Program
from fastnn.runtime.cpu import compiler
from fastnn.runtime.cpu.execute import BoundProgram, view
from fastnn.runtime.cpu.memory import Memory
from fastnn.runtime.cpu.records import Tables
from fastnn.runtime.cpu.sizes import Size
from fastnn.runtime.segment import aligned_zeros

#: what the names of segments begin with that are arrays of users
DATA = "data/"
#: memory that programs bring along
ITS_OWN = ("work", "input", "constant")


class CpuProgram(BoundProgram):
    """A program with addresses, and access to what it computes."""

    def __init__(self, program: Program, memory: Memory):
        super().__init__(program, memory)
        self.wholes: dict[int, np.ndarray] = {}
        #: where the users' arrays lie that it has let go
        self._places: dict[str, tuple[Any, ...]] = {}

    def reads(self, memory: Memory) -> bool:
        """Whether it reads the caller's arrays of this memory (its own it keeps), or has read such
        as lay where these do."""
        if all(map(is_, map(memory.get, self._callers), map(self.memory.get, self._callers))):
            return True
        for name in self._callers:
            now = memory.get(name)
            if self.memory.get(name) is not now and (
                now is None or name in self.memory or self._places.get(name) != place_of(now)
            ):
                return False
        return True

    def let_go(self) -> None:
        """Keep none of the users' arrays: only where they lie."""
        for name in self._data:
            array = self.memory.pop(name, None)
            if array is not None and name not in self._places:
                self._places[name] = place_of(array)

    def take(self, memory: Memory) -> None:
        """Read these arrays, which lie where those did that it has let go."""
        self.memory.update((name, memory[name]) for name in self._places if name in memory)

    @cached
    def _callers(self) -> set[str]:
        """The segments that are not its own."""
        used = {o.segment for call in self.called if call for _, _, o in call.arrays()}
        return used - {"local", *ITS_OWN}

    @cached
    def _data(self) -> list[str]:
        """Those that are users' arrays."""
        return [name for name in self._callers if name.startswith(DATA)]

    def write(self, name: str, array: Any) -> None:
        self.view(name)[...] = array

    def edit(self, names: Sequence[str]) -> Any:
        return contextlib.nullcontext({name: self.view(name) for name in names})

    def read(self, operand: Operand) -> np.ndarray:
        if operand.segment == "local":
            return self.whole(operand).view(self.program.dtype).reshape(operand.dims)
        return view(self.program, operand, self.memory)

    def run_call(self, number: int) -> None:
        function, record, items = self.alone(number)
        function(record.ctypes.data, 0, items)

    def timed(self) -> Iterator[tuple[Sequence[int], float]]:
        clock = time.perf_counter
        begin = clock()
        idle = clock() - begin
        for number, call in enumerate(self.planned):
            if kernel_of(call.kernel).traits.host:
                continue
            function, record, items = self.alone(number)
            address = record.ctypes.data
            begin = clock()
            function(address, 0, items)
            yield [number], max(clock() - begin - idle, 0.0)

    def segment_sizes(self) -> dict[str, int]:
        used = {o.segment for call in self.planned for _, _, o in call.arrays()} - {"local"}
        found = {name: self.memory[name].nbytes for name in sorted(used)}
        return found | {n: size for n, size in self.program.sizes.items() if size and n in used}

    def alone(self, number: int) -> tuple[Any, np.ndarray, int]:
        """What makes a call over all its items: compiled function, record, number of items."""
        at, call, steps = self.order[number]
        self.ready(1)
        self.size.stand()
        record = self.records[at][0].copy()
        for slot, operand in self.local.get(at, ()):
            record[slot] = self.whole(operand).ctypes.data
        for slot, depth, by in self.moves.get(at, ()):
            record[slot] += by * steps[depth]
        address = compiler.address(KERNELS[call.kernel], self.program.dtype, self.data_type(call))
        return compiler.CALL(address), record, _items(call)

    def whole(self, operand: Operand) -> np.ndarray:
        """Memory for all items of a local buffer, for calls that are made one by one."""
        size = int(np.prod(operand.dims, dtype=np.int64)) * np.dtype(self.program.dtype).itemsize
        return self.wholes.setdefault(operand.buffer, aligned_zeros(size))


class ResizedProgram(CpuProgram):
    """A program within a larger one, whose tables and memory it has (`plan/sizes.py`).

    Args:
        program: the program.
        base: the larger one, bound.
        size: how the tables come to hold what is this program's.
    """

    def __init__(self, program: Program, base: CpuProgram, size: Size):
        self.program, self.memory, self._base = program, base.memory, base
        self.poison, self.called = base.poison, base.called
        self.records, self.placed = base.records, base.placed
        self.size, self.fed, self.rows, self.calls = size, base.fed, base.rows, base.calls
        self.asks, self.keeps, self.wholes = base.asks, base.keeps, {}

    @cached
    def _tables(self) -> Tables:
        """What its tables hold."""
        return self._base.tables_of(self.program)

    @cached
    def loops(self) -> Any:
        return self._tables.table.loops

    @cached
    def local(self) -> Any:
        return self._tables.local

    @cached
    def moves(self) -> Any:
        return self._tables.moves

    @property
    def base(self) -> BoundProgram:
        return self._base

    @property
    def nbytes(self) -> int:
        return self.program.nbytes + self.size.nbytes


def place_of(array: np.ndarray) -> tuple[Any, ...]:
    """Which piece of memory an array is, and how it is read."""
    return array.ctypes.data, array.dtype, array.shape, array.strides


def _items(call: PlannedCall) -> int:
    for _, parameter, operand in call.arrays():
        if parameter.item_letter:
            return operand.dims[0] if parameter.axis == "rows" else operand.dims[-1]
    return 1
