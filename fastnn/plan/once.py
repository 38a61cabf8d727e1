"""What is computed twice from the same memory is computed once.

Both players of a game judge the same samples, say: one pass of the discriminator for its own
gradient, another, with its parameters as constants, for the generator's (`fastnn.generative.GAN`).
Two calls of a kernel with the same numbers and with arrays in the same memory give the same, if
nothing is written in between; then the second one is left out, and its result lies where the first
one's does. What a call changes (running statistics, say) it changes each time. The gradient of each
parameter has memory of its own: sums over rows are left as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import lie_in


def computed_once(calls: Sequence[Call], kept: Collection[Value]) -> list[Call]:
    """The calls in their order, without those that would compute an earlier one's results again.

    `kept`: memory that is looked at after the step.
    """
    writers: dict[Value, int] = {}
    for call in calls:
        for root in _written(call):
            writers[root] = writers.get(root, 0) + 1
    apart, left = frozenset(kept), []
    before: dict[Any, list[tuple[Call, dict[Value, int]]]] = {}
    times: dict[Value, int] = {}  # how often memory has been written by now
    for call in calls:
        key = _key(call)
        if key is not None:
            same = before.setdefault(key, [])
            read = {value.root: times.get(value.root, 0) for value in _reads(call)}
            earlier = next((c for c, then in same if then == read and _alike(c, call)), None)
            if earlier is None:
                same.append((call, read))
            elif _lie_together(earlier, call, times):
                continue
            elif all(writers[value.root] == 1 for value in _results(earlier)) and all(
                _movable(value, writers, apart) for value in _results(call)
            ):
                for place, value in zip(_results(earlier), _results(call), strict=True):
                    lie_in(value.root, place)
                continue
        left.append(call)
        for root in _written(call):
            times[root] = times.get(root, 0) + 1
    return left


def _reads(call: Call) -> list[Value]:
    return [value for _, p, value in call.arrays() if p.reads]


def _results(call: Call) -> list[Value]:
    return [value for _, p, value in call.arrays() if p.mode == "out"]


def _written(call: Call) -> list[Value]:
    return list(dict.fromkeys(v.root for _, p, v in call.arrays() if p.writes))


def _key(call: Call) -> Any:
    """What calls that compute the same have in common; None for a call that does more than to write
    results."""
    kernel = kernel_of(call.kernel)
    modes = {parameter.mode for _, parameter, _ in call.arrays()}
    if call.repeats or call.final or kernel.may_raise or kernel.traits.sums_rows:
        return None
    if "out" not in modes or not modes <= {"in", "out", "scratch"}:
        return None
    return call.kernel, *(id(value.root) for value in _reads(call))


def _alike(one: Call, other: Call) -> bool:
    """Whether two calls of a kernel have the same numbers, absent arrays, and places to read."""
    arrays = kernel_of(one.kernel).arrays
    for name, a in one.operands.items():
        b = other.operands[name]
        if not isinstance(a, Value) or not isinstance(b, Value):
            alike = type(a) is type(b) and a == b
        else:
            alike = a.shape == b.shape and a.dtype == b.dtype and not a.strides and not b.strides
            if arrays[name].reads:
                alike = alike and a.root is b.root and a.shift == b.shift
        if not alike:
            return False
    return True


def _lie_together(one: Call, other: Call, times: dict[Value, int]) -> bool:
    """Whether results of two calls lie in the same memory, written once by now: so they do when a
    graph is planned again."""
    pairs = zip(_results(one), _results(other), strict=True)
    return all(a.root is b.root and a.shift == b.shift and times.get(a.root) == 1 for a, b in pairs)


def _movable(value: Value, writers: dict[Value, int], kept: Collection[Value]) -> bool:
    """Whether a result is a piece of work memory of its own, written once."""
    root = value.root
    alone = root.segment == "work" and root.offset is None and writers[root] == 1
    return alone and root not in kept and value.shift == 0 and value.size == root.size
