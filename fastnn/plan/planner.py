"""From a graph to a program: instructions, schedule, memory, and the check of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastnn.graph.graph import Graph, Value
from fastnn.kernels.types import item_size, storage
from fastnn.plan import memory
from fastnn.plan.instruction import Instruction, instructions_of
from fastnn.plan.launches import in_order
from fastnn.plan.lower import Lowering
from fastnn.plan.program import (
    Operand,
    PlannedCall,
    PlannedGroup,
    PlannedPhase,
    Program,
)
from fastnn.plan.schedule import Phase, schedule
from fastnn.plan.verify import verify


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
    graph = lowered.graph
    phases = (in_order if lowered.device == "cuda" else schedule)(instructions_of(lowered))
    layout = _Layout(graph.dtype, memory.ALIGNMENT[lowered.device])
    kept = [v.root for v in places.values()]
    if lowered.device == "cpu":
        layout.place_local(phases, kept)
    layout.place_work(phases, kept)
    planned = tuple(
        PlannedPhase(
            tuple(
                PlannedGroup(
                    g.items, g.grain, g.block, tuple(layout.planned(i) for i in g.instructions)
                )
                for g in phase.groups
            ),
            tuple(layout.planned(i) for i in phase.serial),
        )
        for phase in phases
    )
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
    return program


class _Layout:
    """Segments and offsets of values while a program is put together."""

    def __init__(self, dtype: str, alignment: int):
        self.dtype, self.alignment = dtype, alignment
        self.sizes: dict[str, int] = {"work": 0, "constant": 0, "input": 0, "local": 0}
        self.local: dict[Value, tuple[int, int]] = {}
        self.offsets: dict[Value, int] = {}
        self.numbers: dict[Value, int] = {}
        self.constants: list[tuple[int, np.ndarray]] = []

    def bytes_of(self, value: Value) -> int:
        return value.size * item_size(value.dtype, self.dtype)

    def place_local(self, phases: list[Phase], kept: list[Value]) -> None:
        """Local memory for the buffers that only one group uses."""
        local = memory.local_buffers(phases, kept)
        sizes = {value: self.bytes_of(value) for value in local}
        self.local, self.sizes["local"] = memory.place_local(local, sizes)

    def place_work(self, phases: list[Phase], kept: list[Value]) -> None:
        """Offsets for all work buffers; those in `kept` live to the end of the step."""
        lives = {v: l for v, l in memory.lifetimes(phases).items() if v not in self.local}
        for value in kept:
            if value in lives:
                lives[value] = (lives[value][0], len(phases))
        sizes = {value: self.bytes_of(value) for value in lives}
        self.offsets, self.sizes["work"] = memory.place(lives, sizes, self.alignment)

    def offset_of(self, root: Value) -> int:
        """Byte offset of a value that owns its memory."""
        if root.offset is not None:
            return root.offset * item_size(root.dtype, self.dtype)
        if root.external:
            return 0
        if root not in self.offsets:
            begin = self.sizes[root.home]
            self.sizes[root.home] = begin + memory.padded(self.bytes_of(root), self.alignment)
            self.offsets[root] = begin
            if root.data is not None:
                self.constants.append((begin, root.data.astype(storage(root.dtype, self.dtype))))
        return self.offsets[root]

    def operand(self, value: Value, dims: tuple[int, ...]) -> Operand:
        root = value.root
        number = self.numbers.setdefault(root, len(self.numbers))
        if root in self.local:
            offset, per_item = self.local[root]
            return Operand("local", offset, tuple(dims), value.dtype, False, number, per_item)
        offset = self.offset_of(root) + value.shift * item_size(value.dtype, self.dtype)
        return Operand(root.home, offset, tuple(dims), value.dtype, root.external, number)

    def planned(self, instruction: Instruction) -> PlannedCall:
        operands: list[Any] = []
        for name in instruction.kernel.params:
            value = instruction.operands[name]
            if isinstance(value, Value):
                operands.append(self.operand(value, instruction.dims[name]))
            else:
                operands.append(value)
        return PlannedCall(
            instruction.kernel.name, tuple(operands), instruction.multiplier, instruction.scope
        )
