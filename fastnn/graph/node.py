"""Nodes, which apply ops, and what they become or ask for: calls of kernels, limits of integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastnn.cached import cached
from fastnn.errors import ShapeError, where
from fastnn.graph.op import Op
from fastnn.graph.value import Repeat, Value
from fastnn.kernels.declare import Array, kernel_of


@dataclass(eq=False)
class Node:
    """One application of an op.

    A gradient node (`of` is the node whose gradient it is) has as inputs what that node takes and
    gives, by the same names, and the gradients that have arrived at its outputs, `d<output>`; its
    outputs are `d<input>`.
    """

    op: Op
    inputs: dict[str, Value | None]
    outputs: dict[str, Value]
    attrs: dict[str, Any]
    scope: str
    of: Node | None = None


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


def check_operands(kernel: str, operands: Mapping[str, Any], scope: str) -> None:
    """Refuse operands that are not those of the kernel: KeyError where there is none of the name,
    else ShapeError; `scope` is the layer that calls it."""
    params = kernel_of(kernel).params
    if set(operands) != set(params):
        raise ShapeError(
            f"{where(scope)}kernel {kernel!r} takes {sorted(params)}, got {sorted(operands)}"
        )


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


@dataclass(frozen=True)
class Range:
    """Integers in `value` must be in low..high-1, or `ignored`; `scope` is the layer that asks.

    `steps`: they are lengths of sequences of high-1 steps.
    """

    value: Value | None  # None once the program is planned
    low: int
    high: int
    scope: str
    ignored: int | None = None
    steps: bool = False


@dataclass(frozen=True)
class Check:
    """What inputs have to be together: `rule` takes their arrays and raises DataError."""

    values: tuple[Value, ...]
    rule: Callable[..., None]
