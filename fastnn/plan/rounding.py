"""Factors of products rounded to 16 bits before the product, where the precision is lower.

A copy of each factor is made by a call of its own, element by element: it joins the group of what
made the factor, or of the product. A factor that several products take is rounded once, a weight
that is packed before it is packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.graph.memo import Memo
from fastnn.graph.value import Repeat
from fastnn.kernels import rounding
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import Lowering

PRECISIONS = ("highest", "high", "medium", "bf16", "fp16")


def rounded(lowered: Lowering, given: Sequence[Call]) -> list[Call]:
    """The calls, with the factors of products rounded as the precision says."""
    kernel = rounding.KERNELS.get(lowered.precision)
    if kernel is None or lowered.parts:  # the tile unit's products round what they cut
        return list(given)
    calls: list[Call] = []
    copies = Memo()
    done = set(lowered.rounded)  # and what is packed from rounded numbers
    loops: tuple[Repeat, ...] = ()
    for call in given:
        if call.repeats != loops:  # a loop's first step may find what a later one may not
            copies, loops = Memo(), call.repeats
        traits = kernel_of(call.kernel).traits
        found = {}
        for name in traits.rounds:
            value = call.operands[name]
            if value is None or value.root in done:
                continue
            key = (value.root, value.shift, value.shape, *value.strides.items())
            if key not in copies:
                copies[key] = lowered.value(
                    value.shape, name=f"rounded {value.name}", batched=value.batched
                )
                calls.append(replaced(call, kernel, {"x": value, "y": copies[key]}))
            found[name] = copies[key]
        if traits.packs:
            done.add(call.operands["packed"].root)
        calls.append(replaced(call, call.kernel, {**call.operands, **found}))
        if copies:  # what is written anew has to be rounded anew
            written = {value.root for _, parameter, value in call.arrays() if parameter.writes}
            copies.keep(lambda key, _: key[0] not in written)  # noqa: B023
    return calls


def replaced(call: Call, kernel: str, operands: dict[str, Any]) -> Call:
    """A call of a kernel in a call's place: of the same layer, in the same loops."""
    return Call(kernel, operands, call.scope, repeats=call.repeats, final=call.final)
