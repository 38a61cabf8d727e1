"""Memory that a step of a loop has for itself: one piece does for all steps.

The loop gives whatever its body computes a slice for each step, since a gradient may ask for it.
Where nothing does, a slice is written before it is read in the same step, and nobody looks at it
afterwards: then all steps can have the same one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fastnn.graph.value import Repeat, Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call
from fastnn.plan.strides import Strides, hull, strides_of
from fastnn.plan.written import unwritten

#: a call, the name of an operand and the operand
Use = tuple[Call, str, Value]


def shared_by_steps(
    calls: list[Call], kept: Iterable[Value]
) -> tuple[list[Call], dict[Value, tuple[Repeat, ...]]]:
    """Let steps share the memory that each of them writes anew.

    Args:
        calls: all calls.
        kept: memory that is looked at after the last one.

    Returns:
        The calls, and for each piece of such memory the loops, from the outermost on, of which a
        step needs nothing that was there before it.
    """
    others, uses = set(kept), _uses(calls)
    others |= {
        loop.running.root for call in calls for loop in call.repeats if loop.running is not None
    }
    private: dict[Value, tuple[Repeat, ...]] = {}
    moved: dict[Value, tuple[Value, int, tuple[Repeat, ...]]] = {}
    for root, found in uses.items():
        loops = _common([call.repeats for call, _, _ in found])
        if root in others or root.segment != "work" or not loops:
            continue
        depth = _own(root, found, len(loops))
        if not depth:
            continue
        spans = [_extent(value, call, depth) for call, _, value in found]
        low, high = min(begin for begin, _ in spans), max(end for _, end in spans)
        piece = root
        if high - low < root.size:
            value = found[0][2]
            shape = value.shape if value.size == high - low else (high - low,)
            piece = root.graph.value(shape, root.dtype, batched=value.batched, name=root.name)
            moved[root] = piece, low, loops[:depth]
        private[piece] = loops[:depth]
    if not moved:
        return calls, private
    return [_changed(call, moved) for call in calls], private


def _uses(calls: list[Call]) -> dict[Value, list[Use]]:
    """The uses of each piece of memory that a call in a loop touches."""
    found: dict[Value, list[Use]] = {
        value.root: []
        for call in calls
        if call.repeats
        for value in call.operands.values()
        if isinstance(value, Value)
    }
    for call in calls if found else ():
        for name, value in call.operands.items():
            if isinstance(value, Value) and value.root in found:
                found[value.root].append((call, name, value))
    return found


def _common(nests: list[tuple[Repeat, ...]]) -> tuple[Repeat, ...]:
    """The loops that all are in."""
    found = nests[0]
    for nest in nests[1:]:
        same = 0
        while same < min(len(found), len(nest)) and found[same] is nest[same]:
            same += 1
        found = found[:same]
    return found


def _own(root: Value, uses: list[Use], most: int) -> int:
    """Of how many loops (the outermost ones) each step writes the memory before it reads it."""
    calls = list(dict.fromkeys(call for call, _, _ in uses))

    def touched(call: Call, name: str, parameter: Any, value: Value) -> bool:
        return value.root is root

    for depth in range(most, 0, -1):
        ways: set[Strides] = {strides_of(value, call)[:depth] for call, _, value in uses}
        if len(ways) == 1 and unwritten(calls, touched, depth) is None:
            return depth
    return 0


def _extent(value: Value, call: Call, depth: int) -> tuple[int, int]:
    """From where to where an operand moves in one step of the `depth` outermost loops."""
    lengths = [loop.length for loop in call.repeats[depth:]]
    return hull(value.shift, value.shift + value.size, strides_of(value, call, depth), lengths)


def _changed(call: Call, moved: dict[Value, tuple[Value, int, tuple[Repeat, ...]]]) -> Call:
    """The call on memory that has moved."""
    kernel = kernel_of(call.kernel)
    operands = dict(call.operands)
    for name in kernel.arrays:
        value = operands[name]
        if isinstance(value, Value) and value.root in moved:
            piece, low, loops = moved[value.root]
            steps = {loop: by for loop, by in value.strides.items() if loop not in loops}
            operands[name] = piece.graph.view(
                piece, value.shape, value.batched, value.shift - low, steps
            )
    return replace(call, operands=operands)
