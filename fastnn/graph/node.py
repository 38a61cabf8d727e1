"""Nodes, which apply ops, and what they ask for: limits of integers, rules for inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.op import Op
from fastnn.graph.value import Value
from fastnn.kernels.declare import declared, kernel_of


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


def memory_written(node: Node) -> Iterator[Value]:
    """The memory that a node writes: its outputs, and what its kernel changes of its inputs."""
    yield from (value.root for value in node.outputs.values())
    found = declared(node.op.forward_kernel) if node.of is None else None
    for name, parameter in found.arrays.items() if found is not None else ():
        value = node.inputs.get(name)
        if parameter.writes and value is not None:
            yield value.root


def check_operands(kernel: str, operands: Iterable[str], scope: str) -> None:
    """Refuse operands that are not those of the kernel: KeyError where there is none of the name,
    else ShapeError; `scope` is the layer that calls it."""
    params = kernel_of(kernel).params
    if set(operands) != set(params):
        raise ShapeError(
            f"{where(scope)}kernel {kernel!r} takes {sorted(params)}, got {sorted(operands)}"
        )


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
