"""States of a loop that stay where they are.

A loop gives a state a slice for each step, since a gradient may ask for any of them. Where nobody
does, a step can write the new state over the old one, if all that it reads of the old one has been
read by then. Kernels that change a part of a state and copy the rest have a variant that changes
that part only (`Traits.in_place`): then a step of a table of all steps costs what it writes.

So a decoder's keys and values, of T steps, take memory of the order of T, not T^2, and each step
adds its row. States that are small and not changed by such kernels keep their slices: to write over
them would only make calls wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastnn.graph.value import Repeat, Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call

#: from so many bytes of all steps on, any state is written over
LARGE = 1 << 17
#: number of the call in order, the call, the operand's name, its mode, the operand
Use = tuple[int, Call, str, str, Value]


def in_place(calls: list[Call], kept: Iterable[Value], dtype: str) -> list[Call]:
    """Calls whose states lie in one place where that can be.

    Args:
        calls: all calls.
        kept: memory that is looked at after the last one.
        dtype: of the program's floats.
    """
    loops = dict.fromkeys(call.repeats[0] for call in calls if call.repeats)
    if any(loop.reverse for loop in loops):  # a gradient, which asks for states of all steps
        return calls
    for loop in loops:
        kept_too = {*kept, *(r.running.root for r in loops if r.running is not None)}
        tried: set[Value] = set()
        while (state := _next(calls, loop, kept_too, tried, np.dtype(dtype).itemsize)) is not None:
            tried.add(state.root)
            calls = state.changed(calls)
    return calls


def _next(
    calls: list[Call], loop: Repeat, kept: set[Value], tried: set[Value], item: int
) -> _State | None:
    """A state of the loop that may lie in one place; what is none is added to `tried`."""
    inside = [call for call in calls if call.repeats[:1] == (loop,)]
    partial = any(kernel_of(call.kernel).traits.in_place for call in inside)
    roots = dict.fromkeys(
        value.root for call in inside for _, _, value in call.arrays() if loop in value.strides
    )
    uses: dict[Value, list[Use]] = {}
    for root in roots:
        large = root.size * item >= LARGE
        if root in tried or root in kept or root.segment != "work" or not (partial or large):
            continue
        uses = uses or _uses(calls)
        state = _State(root, loop, uses, kept)
        if state.is_one() and (state.follow() or (large and state.may_be_written_over())):
            return state
        tried.add(root)
    return None


def _uses(calls: Sequence[Call]) -> dict[Value, list[Use]]:
    found: dict[Value, list[Use]] = {}
    for k, call in enumerate(calls):
        for name, parameter, value in call.arrays():
            found.setdefault(value.root, []).append((k, call, name, parameter.mode, value))
    return found


@dataclass
class _State:
    """A stack of a state's slices: slice t before step t, slice t + 1 after it.

    Attributes:
        root: the stack.
        loop: whose state it is.
        uses: of all memory.
        kept: what has to stay as it is.
        changes: the calls with such a variant that make the new state of the old one, in order.
        between: memory that lies between them.
    """

    root: Value
    loop: Repeat
    uses: dict[Value, list[Use]]
    kept: set[Value]

    def __post_init__(self) -> None:
        self.changes: list[Call] = []
        self.between: list[Value] = []
        self.size = 0

    def is_one(self) -> bool:
        """Whether each step reads the slice before it and one call writes all of the next."""
        self.old: list[Use] = []
        self.new: list[Use] = []
        begins = [k for k, call, *_ in self.uses[self.root] if self.loop in call.repeats]
        for use in self.uses[self.root]:
            k, call, _, _, value = use
            if self.loop in call.repeats:
                self.size = value.strides.get(self.loop, 0)
                break
        if self.size <= 0 or self.root.size != (self.loop.length + 1) * self.size:
            return False
        final = self.loop.length * self.size
        for use in self.uses[self.root]:
            k, call, _, mode, value = use
            if self.loop in call.repeats:
                if call.repeats != (self.loop,) or value.strides != {self.loop: self.size}:
                    return False
                if value.shift + value.size <= self.size:
                    self.old.append(use)
                elif value.shift >= self.size and value.shift + value.size <= 2 * self.size:
                    self.new.append(use)
                else:
                    return False
            elif value.strides:
                return False
            elif k < begins[0]:
                if value.shift + value.size > self.size:
                    return False
            elif mode != "in" or k < begins[-1] or value.shift < final:
                return False
        writers = [use for use in self.new if use[3] != "in"]
        if len(writers) != 1 or not self.old or any(use[3] != "in" for use in self.old):
            return False
        self.writer = writers[0]
        return self.writer[3] == "out" and self.writer[4].size == self.size

    def may_be_written_over(self) -> bool:
        """Whether the new state is written after all of the old one is read, or by a call that
        reads each element of it before it writes the one in its place."""
        number, writer = self.writer[0], self.writer[1]
        by_element = kernel_of(writer.kernel).traits.elementwise
        return all(
            k < number or (call is writer and by_element and value.size == self.size)
            for k, call, _, _, value in self.old
        )

    def follow(self) -> bool:
        """Whether calls with such a variant make the new state of the old one; notes them."""
        readers = self.old
        for _ in range(len(self.uses)):
            _, call, name, _, value = max(readers, key=lambda use: use[0])
            variant = kernel_of(call.kernel).traits.in_place
            alone = sum(use[1] is call for use in readers) == 1
            if variant is None or name != variant.x or value.size != self.size or not alone:
                return self._nothing()
            self.changes.append(call)
            target = call.operands[variant.y]
            if target.root is self.root:
                return True
            if not self._is_between(target, call):
                return self._nothing()
            self.between.append(target.root)
            readers = [use for use in self.uses[target.root] if use[3] == "in"]
            if not readers:
                return self._nothing()
        return self._nothing()

    def _nothing(self) -> bool:
        self.changes, self.between = [], []
        return False

    def _is_between(self, target: Value, call: Call) -> bool:
        """Whether memory is a step's own and holds what this call makes, and nothing else."""
        root = target.root
        if root in self.kept or root.segment != "work" or target.size != self.size:
            return False
        if root.size not in (self.size, self.loop.length * self.size):
            return False
        return all(
            other.repeats == (self.loop,)
            and value.shift < self.size
            and (mode == "in" or (other is call and mode == "out"))
            for _, other, _, mode, value in self.uses[root]
        )

    def changed(self, calls: list[Call]) -> list[Call]:
        """The calls, with all slices in one place."""
        like = self.writer[4]
        place = self.root.graph.value(
            like.shape, self.root.dtype, batched=like.batched, name=self.root.name
        )
        moved = dict.fromkeys((self.root, *self.between), place)
        left_out: set[int] = set()
        last = self._last()
        if last is not None:
            moved[last] = place
            left_out = {id(call) for _, call, _, mode, _ in self.uses[last] if mode != "in"}
        return [self._on(call, moved) for call in calls if id(call) not in left_out]

    def _last(self) -> Value | None:
        """Memory that every step copies the new state to, for whoever reads it after the loop."""
        for _, call, _, mode, value in self.new:
            target = call.operands.get("y")
            if mode != "in" or value.size != self.size or not isinstance(target, Value):
                continue
            if not _is_copy(call):
                continue
            root = target.root
            if root in self.kept or root.segment != "work" or root.size != self.size:
                continue
            others = [use for use in self.uses[root] if use[1] is not call]
            writes = [use for use in others if use[3] != "in"]
            begin = min((k for k, inner, *_ in self.uses[self.root] if inner.repeats), default=0)
            if all(k < begin and not use.repeats for k, use, *_ in writes) and all(
                k > self.writer[0] and not use.repeats
                for k, use, _, how, _ in others
                if how == "in"
            ):
                return root
        return None

    def _on(self, call: Call, moved: dict[Value, Value]) -> Call:
        operands: dict[str, Any] = dict(call.operands)
        touched = False
        for name, value in call.operands.items():
            if isinstance(value, Value) and value.root in moved:
                place, touched = moved[value.root], True
                begin = value.shift
                if value.root is self.root and begin >= self.size:
                    final = begin >= self.loop.length * self.size
                    begin -= (self.loop.length if final else 1) * self.size
                operands[name] = place.graph.view(place, value.shape, value.batched, begin)
        if not touched:
            return call
        variant = kernel_of(call.kernel).traits.in_place
        if variant is None or not any(call is other for other in self.changes):
            return replace(call, operands=operands)
        del operands[variant.y]
        if variant.room:
            x = operands[variant.x]
            operands[variant.room] = x.graph.value(x.shape, x.dtype, batched=x.batched, name="room")
        return replace(call, kernel=variant.kernel, operands=operands)


def _is_copy(call: Call) -> bool:
    """Whether a call takes each element of its one array times 1 plus 0."""
    arrays, given = call.arrays(), call.operands
    elementwise = kernel_of(call.kernel).traits.elementwise
    factors = given.get("scale"), given.get("shift")
    return elementwise and len(list(arrays)) == 2 and factors == (1.0, 0.0)
