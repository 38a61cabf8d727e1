"""Calls in vain are left out: of transposes, and of what differentiating a loop again computes.

A layer hands on its output with the channels first, say, and the next one takes what that is the
transpose of (`ops/layout.py`): then nobody reads the transpose. Nor a rectified image whose maxima
are taken first (`ops/pooling.py`).
And of a loop's tangent, or of the gradient of its gradient, often not all is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call


def without_unread(
    calls: Sequence[Call], spare: Collection[Value], kept: Collection[Value]
) -> list[Call]:
    """The calls in their order, without those that write nothing but some of `spare` which
    neither a call reads nor are in `kept`."""
    left, among = list(calls), {v.root for v in spare}.difference(kept)
    while among:
        unread = among.difference(v.root for call in left for _, p, v in call.arrays() if p.reads)
        found = [call for call in left if not _writes_only(call, unread)]
        if len(found) == len(left):
            break
        left = found
    return left


def _writes_only(call: Call, unread: set[Value]) -> bool:
    """Whether a call writes some of these, and nothing else. (One that writes nothing is made for
    something else: it checks numbers, say.)"""
    written = [p.mode == "out" and v.root in unread for _, p, v in call.arrays() if p.writes]
    return bool(written) and all(written)


def of_use(calls: list[Call], kept: Iterable[Value]) -> list[Call]:
    """The calls without those that write nothing but work memory that no other call of use reads.

    Args:
        calls: all calls.
        kept: memory that is looked at after the last one.
    """
    writers: dict[Value, list[int]] = {}
    found = [False] * len(calls)
    left: list[int] = []
    wanted = set(kept)

    def need(number: int) -> None:
        if not found[number]:
            found[number] = True
            left.append(number)

    for k, call in enumerate(calls):
        written = [value.root for _, parameter, value in call.arrays() if parameter.writes]
        for root in written:
            writers.setdefault(root, []).append(k)
        traits = kernel_of(call.kernel)
        if traits.may_raise or any(r.segment != "work" or r in wanted for r in written):
            need(k)
        for loop in call.repeats:
            if loop.running is not None:
                wanted.add(loop.running.root)
    for root in wanted:
        for number in writers.get(root, ()):
            need(number)
    while left:
        for _, parameter, value in calls[left.pop()].arrays():
            if parameter.reads:
                for number in writers.get(value.root, ()):
                    need(number)
    return [call for call, used in zip(calls, found, strict=True) if used]
