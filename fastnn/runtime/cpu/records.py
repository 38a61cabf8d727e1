"""The numbers in the run loop's tables: rows, and the words that each call's kernel unpacks."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastnn.cached import cached
from fastnn.errors import ProgramError
from fastnn.graph.fold import fold
from fastnn.graph.sizes import bits, whole
from fastnn.kernels import types
from fastnn.kernels.declare import KERNELS, Array, Kernel
from fastnn.plan.program import Count, Operand, PlannedCall, Program
from fastnn.runtime import poison
from fastnn.runtime.cpu.memory import Memory
from fastnn.runtime.cpu.poison import Poison
from fastnn.runtime.cpu.table import Table


class Tables:
    """The run loop's tables for a program, as far as they are numbers: without their own addresses.

    Attributes:
        table: rows and calls.
        records: for each call the words that its kernel unpacks, in the first step of all loops.
        local: by call its operands in local memory, each with its first word in the record.
        moves: by call what changes in its record from step to step: word, depth of the loop, by how
            much.
        by_loop: calls that their innermost loop places once, with its number.

    Args:
        program: the program.
        memory: its segments.
        poisoned: what fills memory, of the larger program.
        like: the tables of the larger program in the same memory.
    """

    def __init__(
        self, program: Program, memory: Memory, poisoned: Poison | None = None,
        like: Tables | None = None,
    ):  # fmt: skip
        self.table = table = Table(poison.in_loops(program) if poison.enabled() else program)
        if poison.enabled():
            poisoned = poisoned or Poison(program, memory, len(table.calls))
            table.insert(poisoned.row)
        self.poison = poisoned
        begins = {segment: array.ctypes.data for segment, array in memory.items()}
        self.records: list[list[int]] = []
        self.local: dict[int, list[tuple[int, Operand]]] = {}
        self.moves: dict[int, list[tuple[int, int, int]]] = {}
        known = like.numbers_of if like is not None else {}
        for k, call in enumerate(table.calls):
            same = known.get(id(call))
            if like is not None and same is not None:  # the very same call
                self.records.append(like.records[same])
                local, moves = like.local.get(same), like.moves.get(same)
            else:
                self.records.append(_record(call, memory, begins) if call else [])
                local = _local(call) if program.sizes.get("local", 0) else None
                moves = _moves(call) if table.depth else None
            if local:
                self.local[k] = local
            if moves:
                self.moves[k] = moves
        #: where local memory lies depends on the block
        self.by_loop = {
            k: loop
            for k, loop in table.innermost.items()
            if not (loop in table.phases and k in self.local)
        }
        self.numbers = sorted({*self.local, *self.moves})
        self.program = program
        #: what loops look at, by their number
        self.watches = {
            loop: _watch(program, operand, items, begins)
            for loop, (operand, items) in table.watches.items()
        }

    @cached
    def numbers_of(self) -> dict[int, int]:
        """The numbers of its calls, by their identity."""
        return {id(call): k for k, call in enumerate(self.table.calls) if call is not None}

    def advances(self, number: int) -> list[tuple[int, int]]:
        """What a call's innermost loop adds to which words of its record."""
        depth = len(self.table.loops[number]) - 1
        return [(slot, by) for slot, level, by in self.moves.get(number, ()) if level == depth]

    def structure(self) -> tuple[Any, ...]:
        """What is the same for programs of all sizes that share tables."""
        return (
            [call and call.kernel for call in self.table.calls],
            {k: [slot for slot, _ in local] for k, local in self.local.items()},
            {k: [move[:2] for move in moves] for k, moves in self.moves.items()},
            self.by_loop,
            {loop: len(watch) for loop, watch in self.watches.items()},
        )

    def vector(self) -> np.ndarray:
        """All words that may differ from size to size, but for constants; see
        `BoundProgram.places`."""
        return np.array(self.words(), np.int64)

    def words(self) -> list[Any]:
        """The same, which of a program of formulas are formulas, too."""
        rows, _ = self.table.words(0)
        found = [word for row in rows for word in row]
        found += [call.multiplier for call in self.table.calls if call is not None]
        found += self.table.lengths
        for watch in self.watches.values():
            found += watch
        for record in self.records:
            found += record
        for number in self.numbers:
            found += [operand.per_item for _, operand in self.local.get(number, ())]
            found += [by for _, _, by in self.moves.get(number, ())]
            if number in self.by_loop:
                found += [by for _, by in self.advances(number)]
        return found


def _record(call: PlannedCall, memory: Memory, begins: dict[str, int]) -> list[int]:
    """The words that the compiled kernel unpacks; `begins` has the addresses of segments."""
    kernel = KERNELS[call.kernel]
    if kernel.traits.host:
        return [0, int(call.operands[0])]  # type: ignore[arg-type]
    record: list[int] = []
    for (name, parameter), operand in zip(kernel.params.items(), call.operands, strict=True):
        if isinstance(operand, Count):
            record.append(operand.first)
        elif not isinstance(parameter, Array):
            record.append(whole(operand) if parameter.kind == "int" else bits(operand))
        elif operand is None:
            record += [0] * (1 + len(parameter.dims))
        else:
            assert isinstance(operand, Operand)
            if operand.segment == "local":
                record += [0, *operand.dims]
                continue
            if operand.segment not in begins:
                raise ProgramError(f"{call.kernel}, {name}: no memory for {operand.segment!r}")
            dims = operand.dims
            if operand.external:
                dims = fold(memory[operand.segment].shape, len(parameter.dims))
            record += [begins[operand.segment] + operand.offset, *dims]
    return record


def _watch(program: Program, operand: Operand, items: int, begins: dict[str, int]) -> list[int]:
    """The words of what a loop looks at to see whether it goes on."""
    size = math.prod(operand.dims) * types.item_size(operand.dtype, program.dtype)
    begin = begins[operand.segment] + operand.offset
    return [begin, size // items, items, len(operand.strides), *operand.strides]


def slots(call: PlannedCall | None) -> Iterable[tuple[int, Any]]:
    """A call's operands, each with its first word in the record."""
    return zip(_slots(KERNELS[call.kernel]), call.operands, strict=True) if call else ()


@functools.cache
def _slots(kernel: Kernel) -> tuple[int, ...]:
    """The first word of each of a kernel's parameters in its record."""
    found, slot = [], 0
    for parameter in kernel.params.values():
        found.append(slot)
        slot += 1 + (len(parameter.dims) if isinstance(parameter, Array) else 0)
    return tuple(found)


def _local(call: PlannedCall | None) -> list[tuple[int, Operand]]:
    """A call's operands in local memory, each with the word of its address in the record."""
    return [(k, o) for k, o in slots(call) if isinstance(o, Operand) and o.segment == "local"]


def _moves(call: PlannedCall | None) -> list[tuple[int, int, int]]:
    """What changes in a call's record from step to step: word, depth of the loop, by how much."""
    return [
        (slot, depth, stride)
        for slot, operand in slots(call)
        if isinstance(operand, (Operand, Count))
        for depth, stride in enumerate(operand.strides)
        if stride
    ]
