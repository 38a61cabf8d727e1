"""Calls of kernels, which lowering makes of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastnn.cached import cached
from fastnn.graph.value import Repeat, Value
from fastnn.kernels.declare import Array, kernel_of


@dataclass(eq=False)
class Call:
    """One call of a kernel: operands by parameter name (None: an absent array of size 0).

    Neighbours in the list of calls that are in the same loop are made together, step by step.
    """

    kernel: str
    operands: dict[str, Any]
    scope: str
    final: bool = False  # belongs to the very end of the step
    repeats: tuple[Repeat, ...] = ()  # the loops that it is in, the outermost first

    @cached
    def _arrays(self) -> list[tuple[str, Array, Value]]:
        operands = self.operands
        return [
            (name, parameter, value)
            for name, parameter in kernel_of(self.kernel).arrays.items()
            if isinstance(value := operands[name], Value)
        ]

    def arrays(self) -> list[tuple[str, Array, Value]]:
        """Its arrays that are not absent: name and use of the parameter, and the value."""
        return self._arrays


def nested(calls: Sequence[Call], depth: int = 0) -> list[Call | tuple[Repeat, list[Call]]]:
    """Calls in the same `depth` loops, neighbours that share a further one gathered under it."""
    found: list[Call | tuple[Repeat, list[Call]]] = []
    for call in calls:
        if len(call.repeats) <= depth:
            found.append(call)
            continue
        loop, before = call.repeats[depth], found[-1] if found else None
        if isinstance(before, tuple) and before[0] is loop:
            before[1].append(call)
        else:
            found.append((loop, [call]))
    return found
