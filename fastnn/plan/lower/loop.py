"""How a loop is computed: the calls of its body, once, in a `Repeat`.

They are made on slices of stacked arrays that move on from step to step: what the body computes at
step t lies in slice t of a buffer (T, ...), and a carried state in slice t of one of T + 1. The
gradient repeats the calls of the body's gradient in reverse. (What only one step uses gets
memory for one step: `fastnn/plan/private.py`.)

What belongs to a step is decided by memory: a call that reads or writes anything of a step is made
in each, and whatever it writes belongs to the step, too. All others (a packed weight) stand before
the loop. Of gradients to what comes from outside, sums over the rows of a step (those of weights)
become one sum over the rows of all steps, after the loop: one large matrix product, not T small
ones. Others are added up in place, step by step, in reverse time; memory that only one step's
backward pass needs is used again by the next.

A loop that ends where its sequences do (`Loop.running`) has steps that may not be made. What
sequences go on is set to zero for all steps before, so that it is known in each. States and their
gradients are carried in memory that does not move: it holds the last ones, whichever step that was.
What is read of all steps together is made zero first in those that were not made.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastnn.errors import ProgramError, where
from fastnn.graph.history import check_written
from fastnn.graph.loop import Backward, Loop, whole
from fastnn.graph.node import Call, Node
from fastnn.graph.value import Counter, Repeat, Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.lower.lowering import Lowering, Values, forward, gradient, lie_in


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
class _Stack:
    """A buffer with a slice for each step; `first` is the slice of step 0."""

    buffer: Value
    first: int = 0


@dataclass
class _Steps:
    """Stacks of all values that differ from step to step, by their roots."""

    to: Lowering
    length: int
    running: Value | None = None  # says which sequences go on in a step
    stacks: dict[Value, _Stack] = field(default_factory=dict)
    cleared: set[Value] = field(default_factory=set)
    repeats: list[Repeat] = field(default_factory=list)

    def add(self, root: Value, extra: int = 0, first: int = 0) -> _Stack:
        buffer = self.to.value(
            (self.length + extra, *root.shape), root.dtype, name=f"steps of {root.name}"
        )
        self.stacks[root] = _Stack(buffer, first)
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
                each.together = len(self.repeats) > 1
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


def _arrays(call: Call, *modes: str) -> list[Value]:
    """The operands that a call uses in one of these ways."""
    return [value for _, parameter, value in call.arrays() if parameter.mode in modes]


def _roots(call: Call, *modes: str) -> list[Value]:
    """The memory that a call uses in one of these ways."""
    return [value.root for value in _arrays(call, *modes)]


def _reads(call: Call) -> list[Value]:
    return _roots(call, "in", "inout", "part")


def _writes(call: Call) -> list[Value]:
    return _roots(call, "out", "inout", "part")


def _belongs(call: Call, local: Container[Value]) -> bool:
    """Whether a call has to be made in each step: something that it reads or writes is a step's."""
    touched = (*_reads(call), *_writes(call))
    return "stream" in call.operands or any(root in local for root in touched)


def _grow(local: dict[Value, None], nodes: Sequence[Node], calls: Sequence[Call]) -> None:
    """Let `local`, the memory that belongs to a step, grow to all that depends on it."""
    before = -1
    while before != len(local):
        before = len(local)
        for node in nodes:
            if any(v is not None and v.root in local for v in node.inputs.values()):
                local.update(dict.fromkeys(v.root for v in node.outputs.values()))
        for call in calls:
            if _belongs(call, local):
                local.update(dict.fromkeys(_writes(call)))


def _split(calls: list[Call], local: Container[Value]) -> tuple[list[Call], list[Call]]:
    """Calls that have nothing to do with a step, and those to be made in each."""
    outside = [call for call in calls if not _belongs(call, local)]
    return outside, [call for call in calls if _belongs(call, local)]


@dataclass
class _Lowered:
    """A loop whose forward pass is there.

    Attributes:
        steps: the memory of its steps.
        local: what belongs to a step.
        once: what was computed once for all steps.
    """

    steps: _Steps
    local: dict[Value, None]
    once: set[Value]


@forward("loop")
def _loop(to: Lowering, node: Node) -> None:
    """All steps: the outputs (batch-first) and the final states."""
    loop: Loop = node.attrs["loop"]
    steps = _Steps(to, loop.length, loop.running)
    with to.aside() as made:
        for inner in loop.nodes:
            to.lower(inner)
    local = dict.fromkeys((*loop.x_in, *loop.s_in, *loop.copies))
    _grow(local, loop.nodes, made)
    with to.aside() as settling:
        taken = {*loop.x_in, *loop.s_in}
        states = []
        for new in loop.s_out:
            states.append(_own(to, new, local, taken))
            taken.add(states[-1].root)
        outputs = [_own(to, output, local, set()) for output in loop.outputs]
    made += settling
    before, calls = _split(made, local)
    calls, after = _after(calls, local, [*states, *outputs]) if loop.sums else (calls, [])
    once = {root for call in after for root in _writes(call)}
    local = {root: None for root in local if root not in once}
    check_written(calls, local, [*loop.x_in, *loop.s_in], "loop")
    to.loops[node] = _Lowered(steps, local, once)
    to.derived = to.derived or loop.derived
    to.add(before)
    first, last = (loop.length - 1, 0) if loop.reverse else (0, loop.length - 1)
    for k, placeholder in enumerate(loop.x_in):
        steps.stacks[placeholder] = _Stack(swap(to, _given(node, f"x{k}")))
    for k, (placeholder, new) in enumerate(zip(loop.s_in, states, strict=True)):
        stack = steps.add(placeholder, extra=1, first=int(loop.reverse))
        steps.stacks[new.root] = _Stack(stack.buffer, 1 - int(loop.reverse))
        if placeholder is loop.running:
            to.call("full", y=stack.buffer, number=0.0)
        copy(to, _given(node, f"s{k}"), steps.at(placeholder, first))
    for root in local:
        if root not in steps.stacks and root.segment == "work":
            steps.add(root)
    finals = [steps.at(new, last) for new in states]
    if loop.running is not None:
        finals = _carried(to, calls, [(s, _given(node, f"s{k}")) for k, s in enumerate(states)])
    sums = [_Sum(to, like, node.outputs[f"g{k}"]) for k, (like, _) in enumerate(loop.sums)]
    parts = [terms for _, terms in loop.sums]
    _add_up(to, steps, calls, after, sums, parts, loop.reverse)
    steps.clear(outputs, ended=True)
    for k, output in enumerate(outputs):
        swap(to, steps.all(output), node.outputs[f"y{k}"])
    for k, final in enumerate(finals):
        lie_in(node.outputs[f"f{k}"], final)


def _carried(
    to: Lowering, calls: list[Call], pairs: Sequence[tuple[Value, Value | None]],
    places: Sequence[Value] | None = None,
) -> list[Value]:  # fmt: skip
    """Memory that holds a value of the last step that was made: `calls` are those of a step.

    Args:
        pairs: values of a step, with what stands for them before the first one (None: zeros).
        places: the memory; None: of its own.
    """
    found = list(places or ())
    for k, (value, before) in enumerate(pairs):
        if places is None:
            found.append(to.value(value.shape, batched=True, name=f"last {value.name}"))
        if before is None:
            to.call("full", y=found[k], number=0.0)
        else:
            copy(to, before, found[k])
        with to.aside() as keeping:
            copy(to, value, found[k])
        calls += keeping
    return found


def _own(to: Lowering, value: Value, local: dict[Value, None], taken: set[Value]) -> Value:
    """`value` if it is all of a piece of memory of the step's that is not taken, else a copy.

    It may lie in something else: the last state of a loop in the body lies in that loop's stack.
    """
    if whole(value, local) and value.root not in taken:
        return value
    fresh = to.value(value.shape, value.dtype, batched=True, name=value.name)
    copy(to, value, fresh)
    local[fresh] = None
    return fresh


def _given(node: Node, name: str) -> Value:
    value = node.inputs[name]
    assert value is not None
    return value


@gradient("loop")
def _loop_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    """All steps in reverse: gradients of the sequences, initial states and invariants."""
    assert to.node is not None
    loop: Loop = node.attrs["loop"]
    backward: Backward = to.node.attrs["backward"]
    steps, back = to.loops[node].steps, int(not loop.reverse)
    first, last = (0, loop.length - 1) if back else (loop.length - 1, 0)
    for k, seed in enumerate(backward.seeds):
        if seed is not None:
            steps.stacks[seed] = _Stack(swap(to, douts[f"y{k}"]))
    for k, seed in enumerate(backward.d_sums):
        if seed is not None:
            lie_in(seed, douts[f"g{k}"])
    pass_ = _Backward(to, backward, to.loops[node])
    to.add(pass_.before)
    d_finals = [douts.get(f"f{k}") for k in range(len(loop.s_in))]
    for placeholder, found, final in zip(
        backward.d_new if loop.running is None else (), pass_.d_states, d_finals, strict=False
    ):
        stack = steps.add(placeholder, extra=1, first=back)
        steps.stacks[found] = _Stack(stack.buffer, 1 - back)
        zeros = to.full(placeholder.shape, 0.0, batched=True) if final is None else final
        copy(to, zeros, steps.at(placeholder, last))
    for root in pass_.stacked:
        if root not in steps.stacks:
            steps.add(root)
    d_first = [steps.at(found, first) for found in pass_.d_states]
    if loop.running is not None:
        d_first = _carried_back(to, pass_, steps, backward.d_new, d_finals)
    sums = [_Sum(to, value, written.get(name)) for name, value, _ in backward.invariants]
    terms = [parts for _, _, parts in backward.invariants]
    _add_up(to, steps, pass_.calls, pass_.after, sums, terms, not loop.reverse)
    needed = [k for k, x in enumerate(loop.x_in) if any(x is other for other in backward.xs)]
    steps.clear(pass_.d_xs)
    for k, found in zip(needed, pass_.d_xs, strict=True):
        swap(to, steps.all(found), written[f"x{k}"])
    for k, found in enumerate(d_first):
        if f"s{k}" in written:
            _placement(to, found, written[f"s{k}"])


def _carried_back(
    to: Lowering, pass_: _Backward, steps: _Steps, seeds: Sequence[Value],
    finals: Sequence[Value | None],
) -> list[Value]:  # fmt: skip
    """Memory that holds the gradient of a state before the step that was made last; a step begins
    with it as the gradient of the state after it."""
    places: list[Value] = []
    for seed in reversed(seeds):
        places.insert(0, seed)
        if seed in steps.stacks:
            places[0] = to.value(seed.shape, batched=True, name=f"last {seed.name}")
            with to.aside() as taking:
                copy(to, places[0], seed)
            pass_.calls[:0] = taking
    return _carried(to, pass_.calls, list(zip(pass_.d_states, finals, strict=True)), places)


def _placement(to: Lowering, value: Value, target: Value) -> None:
    """Let a value be what stands at `target`, by a copy where that has a place of its own."""
    if target.segment == "work" and target.offset is None:
        lie_in(target, value)
    else:
        copy(to, to.view(value, target.shape, batched=False), target)


class _Backward:
    """The backward pass of a loop's body, sorted into what is done when.

    Attributes:
        before: calls that stand before the loop.
        calls: those made in each step.
        after: those made once for all steps, after the loop.
        d_xs, d_states: gradients of the steps of sequences and of carried states, a step's own.
        stacked: memory of which each step has a slice of its own; other memory is used again.
    """

    def __init__(self, to: Lowering, traced: Backward, forward: _Lowered):
        self.to = to
        known = set(to.memo)
        seeds = [*(seed for seed in traced.seeds if seed is not None), *traced.d_new]
        given = dict.fromkeys((*forward.local, *seeds))
        with to.aside() as calls:
            for node in traced.nodes:
                to.lower(node)
        local = dict(given)
        _grow(local, (), calls)
        sums: list[Value] = []
        carried = set(traced.states)
        with to.aside() as settling:
            for (value, adding), like in zip(
                traced.sums, [*traced.xs, *traced.states], strict=True
            ):
                for node in adding:
                    to.lower(node)
                if value is None or like in carried or not whole(value, local):
                    value = self._copied(value, like, local)
                sums.append(value)
        calls += settling
        _grow(local, (), calls)
        self.d_xs, self.d_states = sums[: len(traced.xs)], sums[len(traced.xs) :]
        self.before, inside = _split(calls, local)
        self.calls, self.after = _after(inside, local, [*sums, *seeds])
        made_once = {root for call in self.after for root in _writes(call)}
        check_summed([*inside, *self.before], forward.once)
        check_written(self.calls, local, list(given), "gradient of the loop")
        read_after = {root for call in self.after for root in _reads(call)}
        self.stacked = [
            root for root in local
            if root.segment == "work" and root not in made_once
            and (root in read_after or root in {g.root for g in self.d_xs})
        ]  # fmt: skip
        # what was packed or transposed of a step's values is not there for a second gradient
        for key in set(to.memo) - known:
            if to.memo[key].root in local:
                del to.memo[key]

    def _copied(self, gradient: Value | None, like: Value, local: dict[Value, None]) -> Value:
        """A copy of a gradient (or zeros) in memory that belongs to the step."""
        fresh = self.to.value(like.shape, batched=True, name=f"d{like.name}")
        local[fresh] = None
        if gradient is None:
            gradient = self.to.full(like.shape, 0.0, batched=True)
        copy(self.to, gradient, fresh)
        return fresh


class _Sum:
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
            _placement(self.to, value, target)


def _add_up(
    to: Lowering, steps: _Steps, calls: Sequence[Call], after: Sequence[Call],
    sums: Sequence[_Sum], terms: Sequence[list[Value]], reverse: bool,
) -> None:  # fmt: skip
    """Make all steps, and add up the terms of sums: those that are there once for all steps after
    the loop, the others in each.

    Args:
        calls, after: those of a step, and those made once for all.
    """
    made_once = {root for call in after for root in _writes(call)}
    once = [[v for v in parts if v.root in made_once] for parts in terms]
    each = [[v for v in parts if v.root not in made_once] for parts in terms]
    for running, parts in zip(sums, each, strict=True):
        if parts:
            running.begin()
    with to.aside() as adding:
        for running, parts in zip(sums, each, strict=True):
            for part in parts:
                running.add(part)
    steps.emit([*calls, *adding], reverse)
    for call in after:
        steps.clear(_arrays(call, "in"))
        steps.emit_all(call)
    for running, parts in zip(sums, once, strict=True):
        for part in parts:
            running.add_kept(part)
    for running in sums:
        running.finish()


def check_summed(calls: Sequence[Call], once: Container[Value]) -> None:
    """Refuse a gradient that reads a step's part of what was computed for all steps together."""
    for call in calls:
        if any(root in once for root in _reads(call)):
            raise ProgramError(
                f"{where(call.scope)}gradient of the loop: {call.kernel} reads a term of a sum "
                "over the steps, which is computed for all of them at once"
            )


def _after(
    calls: list[Call], local: Container[Value], needed: Sequence[Value]
) -> tuple[list[Call], list[Call]]:
    """Take out the calls that can be made once for all steps: sums over the rows of a step that no
    step needs."""
    wanted = {value.root for value in needed}
    inside: list[Call] = []
    after: list[Call] = []
    for call in reversed(calls):
        if any(root in wanted for root in _writes(call)) or not _stackable(call, local):
            inside.append(call)
            wanted.update((*_reads(call), *_writes(call)))
        else:
            after.append(call)
    return inside[::-1], after[::-1]


def _stackable(call: Call, local: Container[Value]) -> bool:
    """Whether a call on one step's rows may be made on the rows of all steps."""
    if not kernel_of(call.kernel).traits.sums_rows or "stream" in call.operands or call.repeats:
        return False
    reads = [value for _, parameter, value in call.arrays() if parameter.reads]
    return all(value.root in local and value.size == value.root.size for value in reads)
