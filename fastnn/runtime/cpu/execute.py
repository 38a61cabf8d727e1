"""Bind programs to memory: the tables that the run loop reads."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.cached import cached
from fastnn.errors import ProgramError
from fastnn.graph.fold import fold
from fastnn.kernels import types
from fastnn.kernels.declare import KERNELS, Array
from fastnn.plan.program import Count, Operand, PlannedCall, Program, time_steps
from fastnn.runtime import poison
from fastnn.runtime.cpu import compiler, layout
from fastnn.runtime.cpu.memory import aligned_zeros, constants_of
from fastnn.runtime.cpu.poison import Poison
from fastnn.runtime.cpu.sizes import Sizes
from fastnn.runtime.cpu.table import Table

#: the memory of a run: segment name -> array
Memory = dict[str, np.ndarray]


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
        return np.array(found, np.int64)


class BoundProgram:
    """A program with addresses: the tables that the run loop reads.

    Keeps the memory it points to alive.
    """

    def __init__(self, program: Program, memory: Memory):
        self.program = program
        self.memory = memory
        tables = Tables(program, memory)
        table, self.poison = tables.table, tables.poison
        #: the calls of the table, None where a loop begins or ends
        self.called = table.calls
        self.loops = table.loops
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
        self.local, self.moves = tables.local, tables.moves
        self.sizes = Sizes(self, tables)
        self.size = self.sizes.own
        #: by input, what has written the address of its numbers to the records last
        self.fed: dict[str, object] = {}
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
            _addresses(self.rows.reshape(-1)),
            self.calls.ctypes.data + self.calls.strides[0] * calls + 8 * 2,
            _addresses(self.placed.words[:, 0]),
            *(_addresses(watch) for watch in self.placed.watches.values()),
        ]
        begin, copies = sum(map(len, found)), []
        for record in self.records:
            found.append(_addresses(record[0]))
            copies += [(begin, _addresses(copy)) for copy in record[1:]]
            begin += len(found[-1])
        found += self.placed.places()
        numbers = [np.arange(sum(map(len, found)))]
        numbers += [np.arange(first, first + len(copy)) for first, copy in copies]
        found += [copy for _, copy in copies]
        return np.concatenate(numbers), np.concatenate(found)

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
            number = operand if parameter.kind == "int" else np.float64(operand).view(np.int64)  # type: ignore[arg-type]
            record.append(int(number))  # type: ignore[arg-type]
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


class Placed:
    """Operands whose addresses change while a program runs.

    Of local memory each worker has its own piece, for one block of a group's items at a time. Such
    an operand has no address of its own: the run loop writes one into the worker's own copy of the
    record, so that the block's first item lies at the beginning of the worker's piece. What moves
    in loops is placed there, too; `times` has the steps in which each worker is.
    """

    def __init__(self, program: Program, tables: Tables):
        self.size = -(-program.sizes.get("local", 0) // 4096) * 4096
        self.tables, table = tables, tables.table
        self.local, self.moves, self.by_loop = tables.local, tables.moves, tables.by_loop
        self.numbers = tables.numbers
        #: the words of loops, and the lists in them
        self.words = np.zeros((len(table.lengths), layout.LOOP_WORDS), np.int64)
        self.words[:, 0], self.words[:, 5] = table.lengths, table.reverse
        self.watches = {k: np.array(watch, np.int64) for k, watch in tables.watches.items()}
        for loop, watch in self.watches.items():
            self.words[loop, 6] = watch.ctypes.data
        self.lists: dict[int, list[np.ndarray]] = {}
        #: for how many workers there is memory
        self.workers = 0 if self.numbers or table.depth else sys.maxsize
        self.depth = -(-max(table.depth, 1) // 8) * 8  # cache lines of their own
        self.placing: list[np.ndarray] = []
        self.earlier: list[np.ndarray] = []
        self.memory, self.times = aligned_zeros(0), np.zeros((1, self.depth), np.int64)

    def provide(
        self, workers: int, records: list[np.ndarray], calls: np.ndarray, poison: Poison | None
    ) -> None:
        """Memory for so many workers, and a copy of the records for each; `workers` is for the
        caller to set, when all is done."""
        self.workers, self.placing = 0, []  # for nobody, should an interrupt come before the end
        self.memory = aligned_zeros(workers * self.size)
        self.earlier.append(self.times)  # runs that were described before go on with it
        self.times = aligned_zeros(workers * self.depth, np.int64).reshape(workers, self.depth)
        tables: dict[int, list[int]] = {}
        advances: dict[int, list[list[int]]] = {}
        for number in self.numbers:
            record = np.repeat(records[number][:1], workers + 1, axis=0)
            local, moves = self.local.get(number, []), self.moves.get(number, [])
            words = [record.strides[0], record.ctypes.data, len(local), len(moves)]
            for slot, operand in local:
                start = self.memory.ctypes.data + operand.offset
                words += [slot, start, self.size, operand.per_item]
            for move in moves:
                words += move
            self.placing.append(np.array(words, np.int64))
            records[number] = record
            calls[number, 1] = record.ctypes.data
            calls[number, 3] = self.placing[-1].ctypes.data
            if number in self.by_loop:
                calls[number, 3] = -record.strides[0]
                loop = self.by_loop[number]
                tables.setdefault(loop, []).append(self.placing[-1].ctypes.data)
                advances.setdefault(loop, []).extend(
                    [record[1, slot:].ctypes.data, record.strides[0], by]
                    for slot, by in self.tables.advances(number)
                )
        self.lists = {}
        for loop, addresses in tables.items():
            lists = [np.array(addresses, np.int64), np.array(advances[loop], np.int64)]
            counts = len(addresses), len(advances[loop])
            for k, (count, array) in enumerate(zip(counts, lists, strict=True)):
                self.words[loop, 1 + 2 * k : 3 + 2 * k] = count, array.ctypes.data
            self.lists[loop] = lists
        if poison is not None:
            poison.local(self.memory)

    def places(self) -> list[np.ndarray]:
        """Where the words of `Tables.vector` are that are about placing, in its order."""
        found: list[np.ndarray] = []
        passed = dict.fromkeys(self.lists, 0)
        for number, words in zip(self.numbers, self.placing, strict=True):
            local, moves = len(self.local.get(number, ())), len(self.moves.get(number, ()))
            end = layout.PLACED_WORDS + layout.LOCAL_OPERAND_WORDS * local
            found.append(
                _addresses(words[layout.PLACED_WORDS + 3 : end][:: layout.LOCAL_OPERAND_WORDS])
            )
            found.append(
                _addresses(words[end + 2 : end + layout.MOVE_WORDS * moves][:: layout.MOVE_WORDS])
            )
            if number in self.by_loop:
                loop, count = self.by_loop[number], len(self.tables.advances(number))
                first = passed[loop]
                found.append(
                    _addresses(
                        self.lists[loop][1].reshape(-1, layout.ADVANCE_WORDS)[
                            first : first + count, 2
                        ]
                    )
                )
                passed[loop] += count
        return found


def _addresses(words: np.ndarray) -> np.ndarray:
    """The addresses of an array's words."""
    return words.ctypes.data + words.strides[0] * np.arange(len(words))


def slots(call: PlannedCall | None) -> Iterator[tuple[int, Any]]:
    """A call's operands, each with its first word in the record."""
    slot = 0
    params = KERNELS[call.kernel].params.values() if call else ()
    for parameter, operand in zip(params, call.operands if call else (), strict=True):
        yield slot, operand
        slot += 1 + (len(parameter.dims) if isinstance(parameter, Array) else 0)


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


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
