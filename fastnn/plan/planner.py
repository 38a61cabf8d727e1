"""From a graph to a program: instructions, schedule, memory, and the check of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastnn.graph.constants import in_type
from fastnn.graph.graph import Graph
from fastnn.graph.value import Counter, Repeat, Value
from fastnn.kernels.types import storage
from fastnn.plan import memory
from fastnn.plan.in_place import in_place
from fastnn.plan.instruction import Instruction, Repeated, Work, flat, instructions_of
from fastnn.plan.launches import in_order, in_turn
from fastnn.plan.lower import Lowering
from fastnn.plan.outline import Looked, Plan, plan_of
from fastnn.plan.private import shared_by_steps
from fastnn.plan.products import chosen
from fastnn.plan.program import (
    Count,
    Operand,
    PlannedCall,
    PlannedGroup,
    PlannedPhase,
    PlannedRepeat,
    Program,
    along,
    calls_of,
    item_size,
)
from fastnn.plan.schedule import Phase, Phases, leaves, schedule
from fastnn.plan.unread import of_use, without_unread
from fastnn.plan.verify import verify

#: bytes beyond the fewest that work memory may take so that launches can run side by side
APART_BYTES = 64 << 20


def plan(
    graph: Graph | Lowering, places: Mapping[str, Value], carried: Sequence[str] = ()
) -> Program:
    """Plan a graph as one step.

    Args:
        graph: the graph, complete (differentiated, with updates), or its lowering for a device; a
            graph is lowered for the CPU.
        places: values whose memory is of interest after a step (outputs, losses), by name; their
            memory is not shared with other buffers.
        carried: segments of the caller's own that hold something before a step begins.
    """
    lowered = graph if isinstance(graph, Lowering) else Lowering(graph)
    return _planned(look(lowered, places), lowered, carried)[0]


def look(lowered: Lowering, places: Mapping[str, Value]) -> Looked:
    """A lowered graph with all that its sizes decide: which products, whose memory steps share."""
    _ = lowered.calls  # lowers what is left: from here on it is known where values lie
    kept = [v.root for v in places.values()]
    spare = {*lowered.graph.last, *lowered.graph.passed}
    calls = without_unread(chosen(lowered, kept), spare, kept)
    if lowered.derived:
        calls = of_use(calls, kept)
    calls, private = shared_by_steps(in_place(calls, kept, lowered.graph.dtype), kept)
    return Looked(calls, places, private, lowered.batch, lowered.dtype)


def plan_for_sizes(looked: Looked, lowered: Lowering) -> Plan:
    """Plan a graph, and note what programs of smaller sizes are compared with."""
    program, work, layout = _planned(looked, lowered, ())
    found = list(flat(work))
    begins = {v: layout.local.get(v) or (layout.offset_of(v), 0) for v in layout.numbers}
    return plan_of(program, found, layout.order, looked, begins, layout.numbers)


def _planned(
    looked: Looked, lowered: Lowering, carried: Sequence[str]
) -> tuple[Program, list[Work], _Layout]:
    graph, places, private = lowered.graph, looked.places, looked.private
    kept = [v.root for v in places.values()]
    work = instructions_of(looked.calls, looked.batch)
    phases = in_order(work) if lowered.device == "cuda" else schedule(work)
    layout = _Layout(graph.dtype, memory.ALIGNMENT[lowered.device], private)
    if lowered.device == "cpu":
        layout.place_local(phases, kept)
    layout.place_work(phases, kept)
    planned = tuple(layout.phase(phase) for phase in phases)
    where = {name: layout.operand(value, value.shape) for name, value in places.items()}
    program = Program(
        planned,
        layout.sizes,
        tuple(layout.constants),
        where,
        graph.dtype,
        graph.batch,
        carried=tuple(carried),
    )
    verify(program)
    return program, work, layout


class _Layout:
    """Segments and offsets of values while a program is put together."""

    def __init__(self, dtype: str, alignment: int, private: memory.Private):
        self.dtype, self.alignment, self.private = dtype, alignment, private
        self.sizes: dict[str, int] = {"work": 0, "constant": 0, "input": 0, "local": 0}
        self.local: dict[Value, tuple[int, int]] = {}
        self.offsets: dict[Value, int] = {}
        self.numbers: dict[Value, int] = {}
        self.constants: list[tuple[int, np.ndarray]] = []
        self.order: list[Instruction] = []

    def bytes_of(self, value: Value) -> int:
        return value.size * item_size(value.dtype, self.dtype)

    def place_local(self, phases: Sequence[Phase | Phases], kept: list[Value]) -> None:
        """Local memory for the buffers that only one group uses."""
        local = memory.local_buffers(phases, kept)
        sizes = {value: self.bytes_of(value) for value in local}
        self.local, self.sizes["local"] = memory.place_local(local, sizes)

    def place_work(self, phases: Sequence[Phase | Phases], kept: list[Value]) -> None:
        """Offsets for all work buffers; those in `kept` live to the end of the step."""
        lives = memory.lifetimes(phases, self.private)
        lives = {v: l for v, l in lives.items() if v not in self.local}
        for value in kept:
            if value in lives:
                lives[value] = (lives[value][0], sum(1 for _ in leaves(phases)))
        sizes = {value: self.bytes_of(value) for value in lives}
        self.offsets, self.sizes["work"] = memory.place(lives, sizes, self.alignment)
        if self.alignment == memory.ALIGNMENT["cuda"]:
            apart = memory.place(lives, sizes, self.alignment, in_turn(phases, kept))
            if apart[1] <= self.sizes["work"] + APART_BYTES:
                self.offsets, self.sizes["work"] = apart

    def offset_of(self, root: Value) -> int:
        """Byte offset of a value that owns its memory."""
        if root.offset is not None:
            return root.offset * item_size(root.dtype, self.dtype)
        if root.external:
            return 0
        if root not in self.offsets:
            begin = self.sizes[root.segment]
            self.sizes[root.segment] = begin + memory.padded(self.bytes_of(root), self.alignment)
            self.offsets[root] = begin
            if root.data is not None:
                self.constants.append((begin, in_type(root.data, storage(root.dtype, self.dtype))))
        return self.offsets[root]

    def operand(self, value: Value, dims: tuple[int, ...], loops: Sequence[Repeat] = ()) -> Operand:
        root = value.root
        number = self.numbers.setdefault(root, len(self.numbers))
        if root in self.local:
            offset, per_item = self.local[root]
            return Operand("local", offset, tuple(dims), value.dtype, False, number, per_item)
        size = item_size(value.dtype, self.dtype)
        offset, strides = self.offset_of(root) + value.shift * size, along(value.strides, loops)
        return Operand(
            root.segment, offset, tuple(dims), value.dtype, root.external, number,
            strides=tuple(stride * size for stride in strides),
        )  # fmt: skip

    def phase(
        self, phase: Phase | Phases, loops: tuple[Repeat, ...] = ()
    ) -> PlannedPhase | PlannedRepeat:
        if isinstance(phase, Phases):
            inner = (*loops, phase.loop)
            return self.repeat(phase.loop, tuple(self.phase(p, inner) for p in phase.body), inner)
        groups = tuple(
            PlannedGroup(
                g.items, g.grain, g.block, tuple(self.planned(i, loops) for i in g.instructions)
            )
            for g in phase.groups
        )
        serial = tuple(self.call(i) for i in phase.serial)
        return PlannedPhase(groups, serial)

    def repeat(
        self, loop: Repeat, body: tuple[Any, ...], loops: tuple[Repeat, ...]
    ) -> PlannedRepeat:
        used = {o.buffer for c in calls_of(body) for o in c.operands if isinstance(o, Operand)}
        fresh = tuple(
            self.operand(root, (root.size,))
            for root, loops in self.private.items()
            if loops[-1] is loop and self.numbers.get(root) in used
        )
        running = None
        if loop.running is not None:
            running = self.operand(loop.running, loop.running.shape, loops)
        return PlannedRepeat(loop.length, body, fresh, loop.reverse, running)

    def planned(self, work: Work, loops: tuple[Repeat, ...]) -> PlannedCall | PlannedRepeat:
        if isinstance(work, Repeated):
            inner = (*loops, work.loop)
            return self.repeat(work.loop, tuple(self.planned(w, inner) for w in work.body), inner)
        return self.call(work)

    def call(self, instruction: Instruction) -> PlannedCall:
        self.order.append(instruction)
        operands: list[Any] = []
        loops = instruction.repeats
        for name in instruction.kernel.params:
            value = instruction.operands[name]
            if isinstance(value, Value):
                operands.append(self.operand(value, instruction.dims[name], loops))
            elif isinstance(value, Counter):
                operands.append(Count(value.first, along(value.strides, loops)))
            else:
                operands.append(value)
        return PlannedCall(
            instruction.kernel.name, tuple(operands), instruction.multiplier, instruction.scope
        )
