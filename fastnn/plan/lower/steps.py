"""What the lowering of a loop is built on: memory of all steps, calls of a step, sums of terms."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastnn.graph.node import Node
from fastnn.graph.value import Counter, Repeat, Value
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import Lowering, forward, lie_in


def swap(to: Lowering, x: Value, y: Value | None = None) -> Value:
    """x with its first two dimensions exchanged, in y."""
    columns = x.size // max(x.shape[0] * x.shape[1], 1)
    if y is None:
        y = to.value((x.shape[1], x.shape[0], *x.shape[2:]), x.dtype)
    flat = [to.view(v, (*v.shape[:2], columns), batched=False) for v in (x, y)]
    to.call("swap_leading" if x.dtype == "f" else "swap_leading_ids", x=flat[0], y=flat[1])
    return y


@forward("copy")
def _copy(to: Lowering, node: Node) -> None:
    copy(to, node.inputs["x"], node.outputs["y"])


def copy(to: Lowering, source: Value | None, target: Value) -> None:
    to.call("affine", x=source, y=target, scale=1.0, shift=0.0)


@dataclass
class Stack:
    """A buffer with a slice for each step; `first` is the slice of step 0."""

    buffer: Value
    first: int = 0


@dataclass
class Steps:
    """Stacks of all values that differ from step to step, by their roots."""

    to: Lowering
    length: int
    running: Value | None = None  # says which sequences go on in a step
    stacks: dict[Value, Stack] = field(default_factory=dict)
    cleared: set[Value] = field(default_factory=set)
    repeats: list[Repeat] = field(default_factory=list)

    def add(self, root: Value, extra: int = 0, first: int = 0) -> Stack:
        buffer = self.to.value(
            (self.length + extra, *root.shape), root.dtype, name=f"steps of {root.name}"
        )
        self.stacks[root] = Stack(buffer, first)
        return self.stacks[root]

    def at(self, value: Any, t: int, repeat: Repeat | None = None) -> Any:
        """What stands for `value` at step t, the first of `repeat`."""
        if not isinstance(value, Value) or value.root not in self.stacks:
            return value
        stack, size = self.stacks[value.root], value.root.size
        steps = dict(value.strides)
        if repeat is not None:
            steps[repeat] = -size if repeat.reverse else size
        begin = (t + stack.first) * size + value.shift
        return self.to.view(stack.buffer, value.shape, value.batched, begin, steps)

    def all(self, value: Any) -> Any:
        """What stands for `value` at all steps together: (T, ...)."""
        if not isinstance(value, Value) or value.root not in self.stacks:
            return value
        stack = self.stacks[value.root]
        begin = stack.first * value.root.size
        return self.to.view(stack.buffer, (self.length, *value.shape), False, begin)

    def clear(self, values: Iterable[Value], ended: bool = False) -> None:
        """Make zero what stands in steps that were not made; with `ended`, in those past the end of
        each sequence, of values that run over the batch."""
        if self.running is None:
            return
        batch = self.running.size
        for root in dict.fromkeys(value.root for value in values):
            if root in self.stacks and root not in self.cleared and root is not self.running:
                self.cleared.add(root)
                sides = (batch, root.size // batch) if ended else (root.size,)
                y = self.to.view(self.all(root), (self.length, *sides), batched=False)
                running = self.to.view(self.all(self.running), (self.length, batch))
                self.to.call("clear_ended" if ended else "clear_idle", running=running, y=y)

    def emit(self, calls: Sequence[Call], reverse: bool = False) -> None:
        """Make calls in each step; random numbers get a stream of their own for each."""
        repeat = Repeat(self.length, reverse)
        first, by = (self.length - 1, -1) if reverse else (0, 1)
        if self.running is not None:
            repeat.running = self.at(self.running, first, repeat)
            self.repeats.append(repeat)
            for each in self.repeats:
                each.shares_mask = len(self.repeats) > 1
        for inner in dict.fromkeys(loop for call in calls for loop in call.repeats):
            inner.running = self.at(inner.running, first, repeat)
        for call in calls:
            operands = {name: self.at(v, first, repeat) for name, v in call.operands.items()}
            if "stream" in operands:
                operands["stream"] = _stream(operands["stream"], first, repeat, by)
            scope, repeats = call.scope or "loop", (repeat, *call.repeats)
            self.to.add([Call(call.kernel, operands, scope, repeats=repeats)])

    def emit_all(self, call: Call) -> None:
        """Make a call once for all steps."""
        operands = {name: self.all(value) for name, value in call.operands.items()}
        with self.to.inside_scope(call.scope):
            self.to.call(call.kernel, **operands)


def _stream(stream: int | Counter, first: int, repeat: Repeat, by: int) -> Counter:
    """A stream for each step: 2 ** 20 of them for each stream of the body."""
    inner = stream if isinstance(stream, Counter) else Counter(stream, {})
    strides = {loop: stride << 20 for loop, stride in inner.strides.items()}
    return Counter((inner.first << 20) + first + 1, {repeat: by, **strides})


def arrays_of(call: Call, *modes: str) -> list[Value]:
    """The operands that a call uses in one of these ways."""
    return [value for _, parameter, value in call.arrays() if parameter.mode in modes]


def roots_of(call: Call, *modes: str) -> list[Value]:
    """The memory that a call uses in one of these ways."""
    return [value.root for value in arrays_of(call, *modes)]


def reads(call: Call) -> list[Value]:
    return roots_of(call, "in", "inout", "part")


def writes(call: Call) -> list[Value]:
    return roots_of(call, "out", "inout", "part")


def belongs(call: Call, local: Container[Value]) -> bool:
    """Whether a call has to be made in each step: something that it reads or writes is a step's."""
    touched = (*reads(call), *writes(call))
    return "stream" in call.operands or any(root in local for root in touched)


def grow(local: dict[Value, None], nodes: Sequence[Node], calls: Sequence[Call]) -> None:
    """Let `local`, the memory that belongs to a step, grow to all that depends on it."""
    before = -1
    while before != len(local):
        before = len(local)
        for node in nodes:
            if any(v is not None and v.root in local for v in node.inputs.values()):
                local.update(dict.fromkeys(v.root for v in node.outputs.values()))
        for call in calls:
            if belongs(call, local):
                local.update(dict.fromkeys(writes(call)))


def split(calls: list[Call], local: Container[Value]) -> tuple[list[Call], list[Call]]:
    """Calls that have nothing to do with a step, and those to be made in each."""
    outside = [call for call in calls if not belongs(call, local)]
    return outside, [call for call in calls if belongs(call, local)]


def place_at(to: Lowering, value: Value, target: Value) -> None:
    """Let a value be what stands at `target`, by a copy where that has a place of its own."""
    if target.segment == "work" and target.offset is None:
        lie_in(target, value)
    else:
        copy(to, to.view(value, target.shape, batched=False), target)


class Sum:
    """Terms added up in place, in the order in which they come, into `target`."""

    def __init__(self, to: Lowering, like: Value, target: Value | None):
        self.to, self.like, self.target = to, like, target
        self.value: Value | None = None

    def begin(self) -> None:
        """Begin with zeros."""
        if self.target is not None:
            self.to.call("full", y=self.target, number=0.0)
            self.value = self.target

    def add(self, term: Value) -> None:
        to, before = self.to, self.value
        if self.target is None:
            return
        if term.shape != self.like.shape:
            term = to.view(term, self.like.shape)
        self.value = self.target
        if before is None:
            copy(to, term, self.target)
        else:
            to.call("add_forward", a=to.view(before, self.like.shape), b=term, y=self.target)

    def add_kept(self, term: Value) -> None:
        """Add a term that keeps its memory: alone, it is the sum itself."""
        if self.value is None:
            self.value = term
        else:
            self.add(term)

    def finish(self) -> None:
        value, target = self.value, self.target
        if value is None or target is None or value is target:
            return
        if value.base is None and value.size == target.size:
            lie_in(value, target)
        else:
            place_at(self.to, value, target)
