"""A program at other sizes: the schedule and the memory of one that was planned for larger ones.

Programs for batches of other sizes, or for sequences of other lengths, have mostly the same calls,
on arrays of other shapes. Such a program need not be planned: it takes over the phases, the groups
and the memory of the larger one, and keeps its own shapes, numbers of steps and numbers. Each call
is the one that a program of its own would make, so all bits are the same.

That is right where the order of the larger one is right, too. Planning looks at which memory calls
touch, at whether the spans that two of them touch meet, and at how their items are split: so all of
that is compared. Spans that never meet, or are alike, have to be so in both graphs, and calls that
are split alike, too. (A loop's first step may be its last; a longer one does not tell.) The numbers
that a program computes with, and constants of a few words, may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from fastnn.graph.constants import SymbolicArray, in_type
from fastnn.graph.sizes import compute, distinct, most
from fastnn.graph.value import Counter, Repeat, Value
from fastnn.kernels.types import storage
from fastnn.plan.instruction import Instruction, flat, instructions_of
from fastnn.plan.outline import Buffer, Looked, Numbers, Plan, outline_of, spans_of
from fastnn.plan.program import (
    Count,
    Operand,
    PlannedCall,
    PlannedGroup,
    PlannedPhase,
    PlannedRepeat,
    Program,
    along,
    calls_of,
    item_size,
)
from fastnn.plan.schedule import block_of
from fastnn.plan.spans import Span, alike, apart

#: bytes of a constant that may differ
CONSTANT = 1 << 16


class _Different(Exception):
    """The program can't be had from the other one."""


def resized(plan: Plan, graph: Looked) -> Program | None:
    """The program of a graph, in the memory of one for larger sizes; None: it can't be had so."""
    if len(graph.calls) != len(plan.outlines) or graph.dtype != plan.program.dtype:
        return None
    try:
        return _Resized(plan, graph).program()
    except _Different:
        return None


class _Resized:
    """A graph that is compared with a plan, and its program."""

    def __init__(self, plan: Plan, graph: Looked):
        self.plan, self.graph = plan, graph
        loops, roots = Numbers(), Numbers()
        self.found: list[Instruction] = []
        #: by instruction, the key that the plan has in the place of its own
        self.keys: dict[Instruction, Any] = {}
        keys: dict[Any, Any] = {}
        named = [mine.kernel for mine in plan.outlines]
        _require([call.kernel for call in graph.calls] == named)
        work = flat(instructions_of(graph.calls, graph.batch))
        for one, mine, key in zip(work, plan.outlines, plan.keys, strict=True):
            if mine.by_batch and one.key is not None and one.key[0] == "batch":
                one = _by_batch(one, graph.batch)
            outline = outline_of(one, loops, roots)
            _require(outline[:4] == mine[:4] and outline.operands == mine.operands)
            _require(keys.setdefault(key, one.key) == one.key)
            self.found.append(one)
            self.keys[one] = key
        _require({n: roots[v.root] for n, v in graph.places.items()} == plan.places)
        _require(len(roots) == len(plan.buffers))
        private = {
            roots[v]: tuple(loops[r] for r in n) for v, n in graph.private.items() if v in roots
        }
        _require(all(private.get(n, ())[: len(nest)] == nest for n, nest in plan.private.items()))
        self.roots = roots
        #: bytes of an element, by its type's letter
        self.sizes = {
            letter: item_size(letter, graph.dtype) for letter in {root.dtype for root in roots}
        }
        #: bytes of an item in local memory, by root
        self.per_item: dict[Value, int] = {}
        self.loops: tuple[Repeat, ...] = ()  # around the call that was looked at last
        self.constants: dict[int, Any] = dict(plan.program.constants)
        for root, buffer in zip(roots, plan.buffers, strict=True):
            self._same_place(root, buffer)
        sizes = [(b.size, root.size) for b, root in zip(plan.buffers, roots, strict=True)]
        for size, *spans in zip(sizes, plan.spans, spans_of(self.found, roots), strict=True):
            _same_meetings(size, *spans)
        self.by_shown = {
            buffer.shown: (buffer, root) for buffer, root in zip(plan.buffers, roots, strict=True)
        }
        self.grains: dict[Any, int] = {}
        for one in self.found:
            if one.key is not None:
                key = self.keys[one]
                self.grains[key] = most(self.grains.get(key, 1), one.grain)

    def _same_place(self, root: Value, buffer: Buffer) -> None:
        """A buffer fits into the place of the other one."""
        place = (root.segment, root.dtype, root.offset)
        _require(place == (buffer.segment, buffer.dtype, buffer.offset))
        nbytes = root.size * item_size(root.dtype, self.graph.dtype)
        if root.segment == "constant":
            kind = storage(root.dtype, self.graph.dtype)
            held, mine = self.constants[buffer.begin], root.data
            if type(mine) is SymbolicArray:
                mine = SymbolicArray(mine.numbers, mine.shape, in_type(mine.array, kind))
                other = True
            else:
                mine = in_type(mine, kind)
                other = held.reshape(-1)[: mine.size].tobytes() != mine.tobytes()
            if other:
                _require(max(nbytes, buffer.nbytes) <= CONSTANT)
                self.constants[buffer.begin] = mine
        elif not root.external and root.segment not in ("work", "input"):
            _require(nbytes == buffer.nbytes)
        _require(root.external or nbytes <= buffer.nbytes)

    # ---------------------------------------------------------------- the program

    def program(self) -> Program:
        base = self.plan.program
        self.order = iter(self.plan.order)
        phases = tuple(self._phase(phase, 0) for phase in base.phases)
        places = {
            name: self._operand(value, value.shape, ()) for name, value in self.graph.places.items()
        }
        return replace(
            base, phases=phases, places=places, batch=self.graph.batch, within=base,
            constants=tuple(self.constants.items()),
        )  # fmt: skip

    def _next(self) -> Instruction:
        return self.found[next(self.order)]

    def _phase(self, phase: PlannedPhase | PlannedRepeat, depth: int) -> Any:
        if isinstance(phase, PlannedRepeat):
            body: list[Any] = [self._phase(inner, depth + 1) for inner in phase.body]
            return self._repeat(phase, body, depth)
        groups = tuple(self._group(group, depth) for group in phase.groups)
        serial = tuple(self._call(self._next(), call) for call in phase.serial)
        return PlannedPhase(groups, serial)

    def _group(self, group: PlannedGroup, depth: int) -> PlannedGroup:
        mine: list[Instruction] = []
        calls = self._taken(group.calls, mine)
        first = mine[0]
        grain = self.grains[self.keys[first]]
        block = block_of(mine, grain)
        for number in _local(group.calls):
            buffer, root = self.by_shown[number]
            nbytes = root.size * item_size(root.dtype, self.graph.dtype)
            _require(nbytes % first.items == 0 and nbytes > 0)
            each = self.per_item[root] = nbytes // first.items
            room = group.block * buffer.per_item // each
            block = compute(_within, block, room, first.items, grain)
        _require(block > 0)
        block = compute(min, block, most(first.items, 1))
        return PlannedGroup(first.items, grain, block, tuple(self._works(calls, depth)))

    def _taken(self, calls: Sequence[Any], mine: list[Instruction]) -> list[Any]:
        """The instructions of a group's calls and loops, nested like them."""
        found: list[Any] = []
        for call in calls:
            if isinstance(call, PlannedRepeat):
                found.append((call, self._taken(call.body, mine)))
            else:
                mine.append(self._next())
                found.append((call, mine[-1]))
        return found

    def _works(self, calls: list[Any], depth: int) -> Iterator[PlannedCall | PlannedRepeat]:
        for call, work in calls:
            if isinstance(call, PlannedRepeat):
                yield self._repeat(call, list(self._works(work, depth + 1)), depth)
            else:
                yield self._call(work, call)

    def _repeat(self, repeat: PlannedRepeat, body: list[Any], depth: int) -> PlannedRepeat:
        fresh = []
        for operand in repeat.fresh:
            root = self.by_shown[operand.buffer][1]
            fresh.append(self._operand(root, (root.size,), ()))
        loops = self.loops[: depth + 1]
        value, running = loops[-1].running, None
        if value is not None:
            running = self._operand(value, value.shape, loops)
        return replace(
            repeat, length=loops[-1].length, body=tuple(body), fresh=tuple(fresh), running=running
        )

    def _call(self, one: Instruction, like: PlannedCall) -> PlannedCall:
        operands: list[Any] = []
        for name, theirs in zip(one.kernel.params, like.operands, strict=True):
            value = one.operands[name]
            if isinstance(value, Value):
                assert isinstance(theirs, Operand)
                operands.append(self._operand(value, one.dims[name], one.repeats, theirs))
            elif isinstance(value, Counter):
                operands.append(Count(value.first, along(value.strides, one.repeats)))
            else:
                operands.append(value)
        self.loops = one.repeats
        same = one.multiplier == like.multiplier and one.scope == like.scope
        if same and all(map(_same, operands, like.operands)):
            return like
        return PlannedCall(one.kernel.name, tuple(operands), one.multiplier, one.scope)

    def _operand(
        self, value: Value, dims: tuple[int, ...], loops: Sequence[Repeat],
        like: Operand | None = None,
    ) -> Operand:  # fmt: skip
        """An operand; `like`: the one in the larger program, which is taken if it is the same."""
        root = value.root
        buffer = self.plan.buffers[self.roots[root]]
        if buffer.per_item:
            if like is not None and (like.dims, like.per_item) == (dims, self.per_item[root]):
                return like
            return Operand(
                "local", buffer.begin, dims, value.dtype, False, buffer.shown, self.per_item[root]
            )
        size = self.sizes[value.dtype]
        offset, strides = buffer.begin + value.shift * size, ()
        if loops:
            strides = tuple(stride * size for stride in along(value.strides, loops))
        if like is not None and (like.offset, like.dims, like.strides) == (offset, dims, strides):
            return like
        return Operand(
            root.segment, offset, dims, value.dtype, root.external, buffer.shown, strides=strides
        )


def _within(block: int, room: int, items: int, grain: int) -> int:
    """A block of items for so many of which there is room."""
    return min(block, room // grain * grain) if room < items else block


def _same(one: Any, other: Any) -> bool:
    """Whether two operands of a call are the same."""
    return one is other or (type(one) is type(other) and bool(one == other))


def _by_batch(one: Instruction, batch: int) -> Instruction:
    """An instruction whose items are the samples, although they are few."""
    count = one.items * one.multiplier
    _require(count % batch == 0)
    each = one.bytes_per_item * one.items // batch
    return replace(
        one, items=batch, multiplier=count // batch, key=("batch", batch), bytes_per_item=each
    )


def _local(calls: Sequence[Any]) -> set[int]:
    """The buffers of a group that lie in local memory."""
    operands = (operand for call in calls_of(calls) for _, _, operand in call.arrays())
    return {operand.buffer for operand in operands if operand.segment == "local"}


def _same_meetings(sizes: Sequence[int], mine: Sequence[Span], theirs: Sequence[Span]) -> None:
    """What is known of the spans of a piece of memory holds in the other graph, too."""
    pairs = distinct(zip(mine, theirs, strict=True))
    if pairs == [((0, sizes[0], (), ()), (0, sizes[1], (), ()))]:
        return
    for k, (one, other) in enumerate(pairs):
        _require(not _is_all(one, sizes[0]) or _is_all(other, sizes[1]))
        for first, second in pairs[: k + 1]:
            for depth in range(min(len(one.strides), len(first.strides)) + 1):
                away = apart(other, second, depth)
                _require(away or not apart(one, first, depth))
                _require(away or alike(other, second, depth) or not alike(one, first, depth))


def _is_all(span: Span, size: int) -> bool:
    return span.hull() == (0, size) and not any(span.strides)


def _require(condition: bool) -> None:
    if not condition:
        raise _Different
