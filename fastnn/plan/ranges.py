"""Limits of integer inputs, checked by a program of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fastnn.graph.node import Range
from fastnn.kernels import control_block
from fastnn.plan.program import Operand, PlannedCall, PlannedPhase, Program


def range_check(program: Program, ranges: Iterable[tuple[str, Range]]) -> Program:
    """A program that checks a step's integer inputs: it stops where one is out of range.

    Args:
        program: the step's.
        ranges: limits, by the input's name.
    """
    control = Operand("control", 0, (control_block.LENGTH,), "i", external=True)
    calls = []
    for name, limits in ranges:
        place = program.places[name]
        ids = Operand(place.segment, place.offset, (math.prod(place.dims),), "i")
        ignored = limits.low if limits.ignored is None else limits.ignored
        operands = (ids, control, limits.low, limits.high, ignored)
        calls.append(PlannedCall("check_range", operands, 1, limits.scope))
    return Program(
        (PlannedPhase((), tuple(calls)),), program.sizes, (), {}, program.dtype, program.batch
    )
