"""Bind programs to memory: the tables that the run loop reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np

from fastnn.errors import ProgramError
from fastnn.graph.fold import fold
from fastnn.kernels import types
from fastnn.kernels.declare import KERNELS, Array, Kernel
from fastnn.plan.program import Operand, PlannedCall, Program
from fastnn.runtime import poison
from fastnn.runtime.cpu import compiler, layout
from fastnn.runtime.cpu.memory import aligned_zeros
from fastnn.runtime.cpu.poison import Poison

#: the memory of a run: segment name -> array
Memory = dict[str, np.ndarray]


class BoundProgram:
    """A program with addresses: the tables that the run loop reads.

    Keeps the memory it points to alive.
    """

    def __init__(self, program: Program, memory: Memory):
        self.program = program
        self.memory = memory
        rows: list[list[int]] = []
        calls: list[PlannedCall] = []
        rotations: dict[tuple[int, int], int] = {}
        for phase in program.phases:
            for group in phase.groups:
                few = group.items <= group.grain * 4
                turn = rotations.setdefault((group.items, group.grain), len(rotations))
                rows.append(
                    [layout.GROUP, group.items, group.grain, group.block, len(calls),
                     len(group.calls), turn if few else 0, 0]
                )  # fmt: skip
                calls.extend(group.calls)
            rows.append([layout.BARRIER, 0, 0, 0, len(calls), len(phase.serial), 0, 0])
            calls.extend(phase.serial)
        self.planned = calls
        self.poison = Poison(program, memory, len(calls)) if poison.enabled() else None
        if self.poison is not None:
            rows.insert(0, self.poison.row)
        self.rows = np.array(rows, np.int64)
        #: for each call the words that its kernel unpacks: one row, or one for each worker
        self.records = [_record(program, call, memory).reshape(1, -1) for call in calls]
        self.calls = np.array(
            [
                [_address(program, call, memory), record.ctypes.data, call.multiplier, 0]
                for call, record in zip(calls, self.records, strict=True)
            ]
            + (self.poison.calls if self.poison else []),
            np.int64,
        ).reshape(-1, layout.CALL_WORDS)
        self.local = LocalMemory(program, calls)

    def segment(self, steps: int, workers: int) -> list[int]:
        """The row of a run's description that means: this program, so many times."""
        if workers > self.local.workers:
            self.local.provide(workers, self.records, self.calls, self.poison)
        return [self.rows.ctypes.data, len(self.rows), self.calls.ctypes.data, steps]

    @property
    def nbytes(self) -> int:
        """About how much memory it holds alone: tables, constants, and what it is made of."""
        tables = self.rows.nbytes + self.calls.nbytes + sum(r.nbytes + 200 for r in self.records)
        own = self.memory["constant"].nbytes if "constant" in self.memory else 0
        return self.program.nbytes + tables + own + self.local.memory.nbytes

    def data_type(self, call: PlannedCall) -> str:
        """NumPy type name of a call's 'd' array, or ""."""
        return _data_type(KERNELS[call.kernel], call, self.memory)

    def view(self, name: str) -> np.ndarray:
        """The array in memory at one of the program's places."""
        return view(self.program, self.program.places[name], self.memory)


def view(program: Program, place: Operand, memory: Memory) -> np.ndarray:
    """The array that an operand means, as a NumPy view."""
    dtype = types.storage(place.dtype, program.dtype)
    raw = memory[place.segment].reshape(-1).view(np.uint8)
    size = int(np.prod(place.dims, dtype=np.int64)) * np.dtype(dtype).itemsize
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
    constants = aligned_zeros(program.sizes["constant"])
    for offset, data in program.constants:
        constants[offset : offset + data.nbytes] = np.ascontiguousarray(data).reshape(-1).view("u1")
    memory["constant"] = constants


def _data_type(kernel: Kernel, call: PlannedCall, memory: Memory) -> str:
    for parameter, operand in zip(kernel.params.values(), call.operands, strict=True):
        if isinstance(parameter, Array) and parameter.dtype == "d" and isinstance(operand, Operand):
            return memory[operand.segment].dtype.name
    return ""


def _address(program: Program, call: PlannedCall, memory: Memory) -> int:
    kernel = KERNELS[call.kernel]
    return compiler.address(kernel, program.dtype, _data_type(kernel, call, memory))


def _record(program: Program, call: PlannedCall, memory: Memory) -> np.ndarray:
    """The words that the compiled kernel unpacks."""
    kernel = KERNELS[call.kernel]
    record: list[int] = []
    for (name, parameter), operand in zip(kernel.params.items(), call.operands, strict=True):
        if not isinstance(parameter, Array):
            number = operand if parameter.kind == "int" else np.float64(operand).view(np.int64)  # type: ignore[arg-type]
            record.append(int(number))  # type: ignore[arg-type]
        elif operand is None:
            record += [0] * (1 + len(parameter.dims))
        else:
            assert isinstance(operand, Operand)
            if operand.segment == "local":
                record += [0, *operand.dims]
                continue
            segment = memory.get(operand.segment)
            if segment is None:
                raise ProgramError(f"{call.kernel}, {name}: no memory for {operand.segment!r}")
            dims = operand.dims
            if operand.external:
                dims = fold(segment.shape, len(parameter.dims))
            record += [segment.ctypes.data + operand.offset, *dims]
    return np.array(record, np.int64)


class LocalMemory:
    """Memory of which each worker has its own piece, for one block of a group's items at a time.

    An operand in it has no address of its own: the run loop writes one into the worker's own copy
    of the record, so that the block's first item lies at the beginning of the worker's piece.
    """

    def __init__(self, program: Program, calls: Sequence[PlannedCall]):
        self.size = -(-program.sizes.get("local", 0) // 4096) * 4096
        self.operands = {k: found for k, call in enumerate(calls) if (found := _local(call))}
        self.workers = 0 if self.operands else sys.maxsize  # for how many there is memory
        self.tables: list[np.ndarray] = []
        self.memory = aligned_zeros(0)

    def provide(
        self, workers: int, records: list[np.ndarray], calls: np.ndarray, poison: Poison | None
    ) -> None:
        """Memory for so many workers, and a copy of the records for each."""
        self.workers, self.tables = 0, []  # for nobody, should an interrupt come before the end
        self.memory = aligned_zeros(workers * self.size)
        for number, operands in self.operands.items():
            record = np.repeat(records[number][:1], workers, axis=0)
            words = [record.shape[1] * record.itemsize, len(operands)]
            for slot, operand in operands:
                start = self.memory.ctypes.data + operand.offset
                words += [slot, start, self.size, operand.per_item]
            self.tables.append(np.array(words, np.int64))
            records[number] = record
            calls[number, 1] = record.ctypes.data
            calls[number, 3] = self.tables[-1].ctypes.data
        if poison is not None:
            poison.local(self.memory)
        self.workers = workers


def _local(call: PlannedCall) -> list[tuple[int, Operand]]:
    """A call's operands in local memory, each with the word of its address in the record."""
    found, slot = [], 0
    for parameter, operand in zip(KERNELS[call.kernel].params.values(), call.operands, strict=True):
        if isinstance(operand, Operand) and operand.segment == "local":
            found.append((slot, operand))
        slot += 1 + (len(parameter.dims) if isinstance(parameter, Array) else 0)
    return found


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
