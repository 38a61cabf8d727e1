"""What a plan is remembered by: all of a graph that planning has looked at.

A graph at other sizes may take over the plan if this is the same (`sizes.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastnn.graph.sizes import kind
from fastnn.graph.value import Repeat, Value
from fastnn.plan.call import Call
from fastnn.plan.instruction import Instruction
from fastnn.plan.program import Program, item_size
from fastnn.plan.spans import Span


class Outline(NamedTuple):
    """What planning sees of a call, whatever its sizes.

    `split`: what its items are of. `by_batch`: an item is a sample, which has several rows.
    `operands`: the buffers' numbers, or the types of what are no arrays.
    """

    kernel: str
    loops: tuple[tuple[int, bool, int | None], ...]
    final: bool
    split: str | None
    by_batch: bool
    operands: tuple[Any, ...]


class Buffer(NamedTuple):
    """A piece of memory: what graphs know of it, its sizes, and where the planner has put it.

    `per_item`: bytes of an item in local memory. `shown`: its number in the program's operands.
    """

    segment: str
    dtype: str
    offset: int | None
    nbytes: int
    size: int
    begin: int
    per_item: int
    shown: int


@dataclass(frozen=True)
class Plan:
    """A planned program, and what has to be the same for one at other sizes.

    Attributes:
        program: the program.
        order: for each of its calls the number among the graph's calls.
        outlines, keys: of the graph's calls; those with equal keys are split alike.
        spans: by the buffers' numbers, in the order of the calls.
        buffers: by number.
        private: by number the loops, from the outermost on, of which a step needs nothing that was
            there before it.
        places: buffers of the places, by name.
    """

    program: Program
    order: tuple[int, ...]
    outlines: tuple[Outline, ...]
    keys: tuple[tuple[str, int] | None, ...]
    spans: tuple[tuple[Span, ...], ...]
    buffers: tuple[Buffer, ...]
    private: Mapping[int, tuple[int, ...]]
    places: Mapping[str, int]


class Looked(NamedTuple):
    """A lowered graph, as far as the planner looks at it: all that is compared."""

    calls: Sequence[Call]
    places: Mapping[str, Value]
    private: Mapping[Value, tuple[Repeat, ...]]
    batch: int
    dtype: str


class Numbers(dict[Any, int]):
    """Numbers things in the order in which they come."""

    def __missing__(self, key: Any) -> int:
        self[key] = len(self)
        return self[key]


def outline_of(one: Instruction, loops: Numbers, roots: Numbers) -> Outline:
    operands = tuple(
        roots[v.root] if isinstance(v := one.operands[name], Value) else kind(v)
        for name in one.kernel.params
    )
    return Outline(
        one.kernel.name,
        tuple(
            (loops[loop], loop.reverse, None if (r := loop.running) is None else roots[r.root])
            for loop in one.repeats
        ),
        one.final,
        None if one.key is None else one.key[0],
        one.key is not None and one.key[0] == "batch" and one.multiplier > 1,
        operands,
    )


def spans_of(found: Sequence[Instruction], roots: Mapping[Value, int]) -> tuple[list[Span], ...]:
    """By number of a buffer the spans that the calls touch, in their order."""
    spans: tuple[list[Span], ...] = tuple([] for _ in roots)
    for one in found:
        for access in one.accesses:
            spans[roots[access.root]].append(access.span)
    return spans


def plan_of(
    program: Program, found: Sequence[Instruction], order: Sequence[Instruction], graph: Looked,
    begins: Mapping[Value, tuple[int, int]], shown: Mapping[Value, int],
) -> Plan:  # fmt: skip
    """What a program is compared by.

    Args:
        program: planned just now.
        found: its instructions in the graph's order.
        order: the same as they stand in the program.
        begins: where each piece of memory begins in its segment, and the bytes of an item in local
            memory.
        shown: their numbers in the program's operands.
    """
    loops, roots = Numbers(), Numbers()
    outlines = tuple(outline_of(one, loops, roots) for one in found)
    places = {name: roots[value.root] for name, value in graph.places.items()}
    buffers: list[Buffer] = []
    for root in roots:
        nbytes = root.size * item_size(root.dtype, graph.dtype)
        buffers.append(
            Buffer(
                root.segment, root.dtype, root.offset, nbytes, root.size, *begins[root], shown[root]
            )
        )
    numbers = {id(one): k for k, one in enumerate(found)}
    private = {
        roots[v]: tuple(loops[r] for r in nest) for v, nest in graph.private.items() if v in roots
    }
    spans = tuple(tuple(part) for part in spans_of(found, roots))
    return Plan(
        program, tuple(numbers[id(one)] for one in order), outlines,
        tuple(one.key for one in found), spans, tuple(buffers), private, places,
    )  # fmt: skip
