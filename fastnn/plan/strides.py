"""How places move in the steps of loops."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.graph.value import Value
from fastnn.plan.call import Call

#: how far a place moves in each step of the loops around it, the outermost first
Strides = tuple[int, ...]


def hull(begin: int, end: int, strides: Strides, lengths: Sequence[int]) -> tuple[int, int]:
    """From where to where a span moves."""
    for stride, length in zip(strides, lengths, strict=True):
        far = stride * (length - 1)
        begin, end = begin + min(far, 0), end + max(far, 0)
    return begin, end


def strides_of(value: Value, call: Call, depth: int = 0) -> Strides:
    """How an operand moves in the loops around a call, less the `depth` outermost ones."""
    if len(call.repeats) <= depth:
        return ()
    moving = value.strides
    return tuple(moving.get(loop, 0) for loop in call.repeats[depth:])
