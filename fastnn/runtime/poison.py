"""A mode for tests: before each step, memory that it may read only after writing holds NaN.

`FASTNN_POISON=1` turns it on (fastnn's own tests run with it): work and local memory, the gradients
that the step writes and the rows of predictions are filled with a pattern that is a signalling NaN
in either float type and an absurd number as an integer. So a call that reads what nobody wrote
shows in the results, instead of finding what an earlier step left there. In loops each step fills
what it may not have from the step before. A program with an operand beside its segment's memory is
refused. Programs are the same otherwise; where the mode is off, nothing of it is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastnn import switches
from fastnn.plan.program import (
    Operand,
    PlannedCall,
    PlannedGroup,
    PlannedPhase,
    PlannedRepeat,
    Program,
    calls_of,
)

#: NaN as a float64, and each half as a float32; 9.2e18 as an integer
WORD = 0x7FF7FFFF7FBFFFFF
#: of the calls that fill memory in loops
SCOPE = "FASTNN_POISON"


def enabled() -> bool:
    return switches.on(SCOPE)


def fill(array: np.ndarray) -> None:
    """Fill an array (C-contiguous) now."""
    raw = array.reshape(-1).view(np.uint8)
    whole = raw.size // 8 * 8
    raw[:whole].view(np.int64)[:] = WORD
    raw[whole : raw.size // 4 * 4].view(np.int32)[:] = WORD & 0xFFFFFFFF


def spans(program: Program) -> list[tuple[str, int, int]]:
    """What a step writes before it reads it: segment, first byte, number of bytes."""
    found = {("work", 0, program.sizes["work"])}
    item = np.dtype(program.dtype).itemsize
    for call in program.calls():
        arrays = [(parameter, operand) for _, parameter, operand in call.arrays()]
        changed = [operand for parameter, operand in arrays if parameter.reads]
        for parameter, operand in arrays:
            # what is changed in place has been written before
            if operand.segment == "grads" and parameter.writes and operand not in changed:
                size = int(np.prod(operand.dims, dtype=np.int64)) * item
                found.add(("grads", operand.offset, size))
    return sorted(span for span in found if span[2] >= 8)


def in_loops(program: Program) -> Program:
    """The program with calls at the beginning of each loop's step that fill its fresh memory."""
    return replace(program, phases=tuple(_phase(phase, ()) for phase in program.phases))


def _phase(
    phase: PlannedPhase | PlannedRepeat, local: tuple[Operand, ...]
) -> PlannedPhase | PlannedRepeat:
    """A phase with such calls; `local`: the fresh local memory of the loops of phases around."""
    if isinstance(phase, PlannedRepeat):
        inner = (*local, *(o for o in phase.fresh if o.segment == "local"))
        groups = tuple(
            PlannedGroup(operand.dims[0], 1, operand.dims[0], (_fill(operand, operand.dims[0]),))
            for operand in phase.fresh
            if operand.dtype == "f" and operand.segment == "work"
        )
        body = tuple(_phase(one, inner) for one in phase.body)
        return replace(phase, body=(PlannedPhase(groups, ()), *body) if groups else body)
    return replace(phase, groups=tuple(_group(g, local) for g in phase.groups))


def _group(group: PlannedGroup, local: tuple[Operand, ...]) -> PlannedGroup:
    def filled(calls: Sequence[Any], fresh: Sequence[Operand]) -> tuple[Any, ...]:
        rows = _rows(calls)
        fills = [_fill(o, group.items) for o in fresh if o.buffer in rows and o.dtype == "f"]
        loops = (
            replace(c, body=filled(c.body, c.fresh)) if isinstance(c, PlannedRepeat) else c
            for c in calls
        )
        return (*fills, *loops)

    return replace(group, calls=filled(group.calls, local))


def _rows(calls: Sequence[Any]) -> set[int]:
    """The buffers of which a group's item touches its own rows only."""
    found: dict[int, set[str]] = {}
    for call in calls_of(calls):
        for _, parameter, operand in call.arrays():
            found.setdefault(operand.buffer, set()).add(parameter.axis)
    return {buffer for buffer, axes in found.items() if axes == {"rows"}}


def _fill(operand: Operand, items: int) -> PlannedCall:
    dims = (items, operand.dims[0] // items)
    return PlannedCall("full", (replace(operand, dims=dims), float("nan")), 1, SCOPE)
