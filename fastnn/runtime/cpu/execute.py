"""Bind programs to memory: the tables that the run loop reads."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from fastnn.cached import cached
from fastnn.kernels import types
from fastnn.kernels.declare import KERNELS
from fastnn.plan.program import Operand, PlannedCall, Program, time_steps
from fastnn.runtime import poison
from fastnn.runtime.cpu import compiler, layout
from fastnn.runtime.cpu.memory import Memory, constants_of
from fastnn.runtime.cpu.placed import Placed, addresses
from fastnn.runtime.cpu.poison import refuse_beside
from fastnn.runtime.cpu.records import Tables, slots
from fastnn.runtime.cpu.sizes import Sizes
from fastnn.runtime.segment import aligned_zeros


class BoundProgram:
    """A program with addresses: the tables that the run loop reads.

    Keeps the memory it points to alive.
    """

    def __init__(self, program: Program, memory: Memory):
        self.program = program
        self.memory = memory
        tables = Tables(program, memory)
        table, self.poison = tables.table, tables.poison
        if poison.enabled():
            refuse_beside(program, table, memory)
        #: the calls of the table, None where a loop begins or ends
        self.called = table.calls
        self.loops: Any = table.loops
        #: for each call the words that its kernel unpacks: one row; or one as it is in the first
        #: step of all loops, and one for each worker
        self.records = [np.array([record], np.int64) for record in tables.records]
        #: the records of calls of the host, by their address
        self.asks = {
            record.ctypes.data: record
            for call, record in zip(table.calls, self.records, strict=True)
            if call is not None and KERNELS[call.kernel].traits.host
        }
        self.placed = Placed(program, tables)
        self.local: Any = tables.local
        self.moves: Any = tables.moves
        self.sizes = Sizes(self, tables)
        self.size = self.sizes.own
        #: whether buffers are copied after each good step
        self.keeps = any(
            parameter.writes and operand.segment == "saved/buffers"
            for call in program.calls()
            for _, parameter, operand in call.arrays()
        )
        #: by input, the mark of what has written the address of its numbers to the records last
        self.fed: dict[str, object] = {}
        #: programs in the same memory, by the formulas that others of them follow from
        self.by_formula: dict[Any, Any] = {}
        self._readers: dict[tuple[str, int], list[tuple[int, int]]] = {}
        rows, words = table.words(self.placed.words.ctypes.data)
        for k, (call, record) in enumerate(zip(table.calls, self.records, strict=True)):
            if call is not None:
                words[k] = [
                    _address(program, call, memory), record.ctypes.data, call.multiplier, 0
                ]  # fmt: skip
        self.rows = np.array(rows, np.int64)
        words += self.poison.calls if self.poison else []
        self.calls = np.array(words, np.int64).reshape(-1, layout.CALL_WORDS)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the words of `Tables.vector` are: numbers and addresses, of some several."""
        calls = np.array([k for k, call in enumerate(self.called) if call is not None])
        found = [
            addresses(self.rows.reshape(-1)),
            self.calls.ctypes.data + self.calls.strides[0] * calls + 8 * 2,
            addresses(self.placed.words[:, 0]),
            *(addresses(watch) for watch in self.placed.watches.values()),
        ]
        begin, copies = sum(map(len, found)), []
        for record in self.records:
            found.append(addresses(record[0]))
            copies += [(begin, addresses(copy)) for copy in record[1:]]
            begin += len(found[-1])
        found += self.placed.places()
        numbers = [np.arange(sum(map(len, found)))]
        numbers += [np.arange(first, first + len(copy)) for first, copy in copies]
        found += [copy for _, copy in copies]
        return np.concatenate(numbers), np.concatenate(found)

    def tables_of(self, program: Program) -> Tables:
        """The tables of a smaller program in the same memory."""
        tables = Tables(program, self.memory, self.poison, self.sizes.tables)
        if poison.enabled():
            refuse_beside(program, tables.table, self.memory)
        return tables

    def readers(self, segment: str, offset: int) -> list[tuple[int, int]]:
        """Where the address of something in memory is: calls, and words of their records."""
        if (segment, offset) not in self._readers:
            self._readers[segment, offset] = [
                (number, slot)
                for number, call in enumerate(self.called)
                for slot, operand in slots(call)
                if isinstance(operand, Operand)
                and operand.offset == offset and operand.segment == segment
            ]  # fmt: skip
        return self._readers[segment, offset]

    @property
    def base(self) -> BoundProgram:
        """The bound program whose tables these are."""
        return self

    def ready(self, workers: int) -> None:
        """Have memory for so many workers."""
        if workers > self.placed.workers:
            self.placed.provide(workers, self.records, self.calls, self.poison)
            self.base.sizes.renew()
            self.placed.workers = workers

    @cached
    def order(self) -> list[tuple[int, PlannedCall, tuple[int, ...]]]:
        """The calls of a step in the order in which one worker makes them, those of loops as often
        as they are made: number in the table, call, and the steps of the loops around it."""
        numbers = [k for k, call in enumerate(self.called) if call and call.scope != poison.SCOPE]
        return [(numbers[k], call, steps) for k, call, steps in self.program.steps()]

    @property
    def planned(self) -> list[PlannedCall]:
        return [call for _, call, _ in self.order]

    def segment(self, steps: int, workers: int) -> list[int]:
        """The row of a run's description that means: this program, so many times."""
        self.ready(workers)
        times = self.placed.times
        return [
            self.rows.ctypes.data, len(self.rows), self.calls.ctypes.data, steps,
            times.ctypes.data, times.strides[0], self.size.cell.ctypes.data,
        ]  # fmt: skip

    def where(self, number: int, worker: int) -> str:
        """In which step of loops a worker was that made a call of the table."""
        loops = self.loops[number]
        steps = self.placed.times[worker].tolist() if loops else []
        return time_steps(loops, steps[: len(loops)])

    @property
    def nbytes(self) -> int:
        """About how much memory it holds alone: tables, constants, and what it is made of."""
        tables = self.rows.nbytes + self.calls.nbytes + sum(r.nbytes + 200 for r in self.records)
        own = self.memory["constant"].nbytes if self.program.constants else 0
        return self.program.nbytes + tables + own + self.placed.memory.nbytes

    def data_type(self, call: PlannedCall) -> str:
        """NumPy type name of a call's 'd' array, or ""."""
        return data_type_of(call, self.memory)

    def view(self, name: str) -> np.ndarray:
        """The array in memory at one of the program's places."""
        return view(self.program, self.program.places[name], self.memory)


def view(program: Program, place: Operand, memory: Memory) -> np.ndarray:
    """The array that an operand means, as a NumPy view."""
    dtype = types.storage(place.dtype, program.dtype)
    raw = memory[place.segment].reshape(-1).view(np.uint8)
    size = math.prod(place.dims) * np.dtype(dtype).itemsize
    return raw[place.offset : place.offset + size].view(dtype).reshape(place.dims)


def allocate(program: Program, memory: Memory) -> None:
    """Make sure the segments that the program defines exist and are large enough.

    Work and input memory is shared by all programs of a model. Programs bound before keep what they
    have; so that they hold little where sizes grow little by little, it grows by half at least.
    Constants belong to one program.
    """
    for segment in ("work", "input"):
        if segment not in memory or memory[segment].nbytes < program.sizes[segment]:
            before = memory[segment].nbytes if segment in memory else 0
            memory[segment] = aligned_zeros(max(program.sizes[segment], before + before // 2))
    memory["constant"] = constants_of(program)


def data_type_of(call: PlannedCall, memory: Memory) -> str:
    """The element type of the user's data that a call reads; "" where it reads none."""
    for _, parameter, operand in call.arrays():
        if parameter.dtype == "d":
            return memory[operand.segment].dtype.name
    return ""


def _address(program: Program, call: PlannedCall, memory: Memory) -> int:
    kernel = KERNELS[call.kernel]
    if kernel.traits.host:
        return compiler.loop_address("ask")
    return compiler.address(kernel, program.dtype, data_type_of(call, memory))


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
