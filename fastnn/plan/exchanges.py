"""What blocks of CUDA kernels exchange lies side by side, and is cleared by one launch a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import Lowering, lie_in

#: words between the beginnings of two exchanges: whole cache lines
LINE = 32


def cleared_at_once(lowered: Lowering, calls: Sequence[Call]) -> list[Call]:
    """The calls with the first clearing for all that follow; in a loop each step has its own."""
    own = [call.operands["words"] for call in calls if _clears(call)]
    if len(own) < 2:
        return list(calls)
    whole = _whole(lowered, own)
    found: list[Call] = []
    for call in calls:
        if not _clears(call):
            found.append(call)
        elif call.operands["words"] is own[0]:
            found.append(replace(call, operands={"words": whole}, scope=""))
    return found


def _clears(call: Call) -> bool:
    return kernel_of(call.kernel).traits.clears and not call.repeats


def _whole(lowered: Lowering, own: Sequence[Value]) -> Value:
    """The memory that all of them lie in."""
    if own[0].base is not None:  # these calls have been planned before
        return own[0].root
    begins = [0]
    for value in own:
        begins.append(begins[-1] + -(-value.size // LINE) * LINE)
    whole = lowered.value((begins[-1],), "i", name="exchanges")
    for value, begin in zip(own, begins, strict=False):
        lie_in(value, whole)
        value.begin = begin
    return whole
