"""Fewer launches for loss scaling on a GPU (`engine/scaling.py`).

The factor, and the losses' gradients that follow from it alone, are known when a step begins: they
are computed there by one block, and so a loss gives the logits' gradient at once. Gradients are
looked at where they are divided by the factor. The block that computes the factor also gathers the
step's first ids (targets, most often), where these are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastnn.graph.value import Value
from fastnn.kernels.declare import Traits, kernel_of
from fastnn.plan.call import Call

#: rows whose gradients one block computes, or ids that it gathers
FEW = 4096


def scaled(calls: Sequence[Call]) -> list[Call]:
    """The calls, in another order and some of them joined."""
    if not any(_traits(call).begins for call in calls):
        return list(calls)
    return _checked(_begun(calls))


def _begun(calls: Sequence[Call]) -> list[Call]:
    """The factor first, with what follows from it alone."""
    first: list[Call] = []
    rest: list[Call] = []
    known: set[Value] = set()
    gathers = False
    for call in calls:
        read = {value.root for _, parameter, value in call.arrays() if parameter.mode != "out"}
        if _traits(call).begins:
            first.append(call)
        elif _traits(call).few_as and read <= known and not call.repeats:
            few = call.operands["dx"].size <= FEW
            first.append(replace(call, kernel=_traits(call).few_as) if few else call)
        else:
            if not gathers and _traits(call).few_as and _reads_data(call):
                gathers = True
                if call.operands["y"].size <= FEW:
                    call = replace(call, kernel=_traits(call).few_as)
            rest.append(call)
            continue
        known |= {call.operands[n].root for n in ("scale", "dx") if n in call.operands}
    return [*first, *rest]


def _checked(calls: Sequence[Call]) -> list[Call]:
    """Gradients divided and looked at in one launch."""
    found: list[Call | None] = list(calls)
    for number, call in enumerate(calls):
        if not (_traits(call).checks and _traits(call).elementwise):
            continue
        x = call.operands["x"]
        for before in range(number - 1, -1, -1):
            other = found[before]
            if other is None or not any(
                p.writes and _overlap(value, x) for _, p, value in other.arrays()
            ):
                continue
            divides = _traits(other).checked_as and other.repeats == call.repeats
            if divides and _bytes(other.operands["y"]) == _bytes(x):
                operands = {**other.operands, "limit": call.operands["limit"]}
                found[before] = replace(other, kernel=_traits(other).checked_as, operands=operands)
                found[number] = None
            break
    return [call for call in found if call is not None]


def _reads_data(call: Call) -> bool:
    """Whether it reads the user's data, of any type: one such call at most may join others."""
    return any(parameter.dtype == "d" for _, parameter, _ in call.arrays())


def _traits(call: Call) -> Traits:
    return kernel_of(call.kernel).traits


def _bytes(value: Value) -> tuple[Any, ...]:
    """Which numbers a value is: several leaves may lie at the same place of a segment."""
    root = value.root
    memory = id(root) if root.offset is None else root.segment  # `==` of values is an op
    return memory, (root.offset or 0) + value.shift, value.size, tuple(value.strides.items())


def _overlap(a: Value, b: Value) -> bool:
    (left, a0, m, _), (right, b0, n, _) = _bytes(a), _bytes(b)
    strided = bool(a.strides or b.strides)
    return left == right and (strided or (a0 < b0 + n and b0 < a0 + m))
