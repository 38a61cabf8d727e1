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

from collections.abc import Container, Sequence
from dataclasses import dataclass

from fastnn.errors import ProgramError, where
from fastnn.graph.loop import Backward, Loop, whole
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import Lowering, Values, forward, gradient, lie_in
from fastnn.plan.lower.steps import (
    Stack,
    Steps,
    Sum,
    arrays_of,
    copy,
    grow,
    place_at,
    reads,
    split,
    swap,
    writes,
)
from fastnn.plan.written import check_written


@dataclass
class _Lowered:
    """A loop whose forward pass is there.

    Attributes:
        steps: the memory of its steps.
        local: what belongs to a step.
        once: what was computed once for all steps.
    """

    steps: Steps
    local: dict[Value, None]
    once: set[Value]


@forward("loop")
def _loop(to: Lowering, node: Node) -> None:
    """All steps: the outputs (batch-first) and the final states."""
    loop: Loop = node.attrs["loop"]
    steps = Steps(to, loop.length, loop.running)
    with to.aside() as made:
        for inner in loop.nodes:
            to.lower(inner)
    local = dict.fromkeys((*loop.x_in, *loop.s_in, *loop.copies))
    grow(local, loop.nodes, made)
    with to.aside() as settling:
        taken = {*loop.x_in, *loop.s_in}
        states = []
        for new in loop.s_out:
            states.append(_own(to, new, local, taken))
            taken.add(states[-1].root)
        outputs = [_own(to, output, local, set()) for output in loop.outputs]
    made += settling
    before, calls = split(made, local)
    calls, after = _after(calls, local, [*states, *outputs]) if loop.sums else (calls, [])
    once = {root for call in after for root in writes(call)}
    local = {root: None for root in local if root not in once}
    check_written(calls, local, [*loop.x_in, *loop.s_in], "loop")
    to.loops[node] = _Lowered(steps, local, once)
    to.derived = to.derived or loop.derived
    to.add(before)
    first, last = (loop.length - 1, 0) if loop.reverse else (0, loop.length - 1)
    for k, placeholder in enumerate(loop.x_in):
        steps.stacks[placeholder] = Stack(swap(to, _given(node, f"x{k}")))
    for k, (placeholder, new) in enumerate(zip(loop.s_in, states, strict=True)):
        stack = steps.add(placeholder, extra=1, first=int(loop.reverse))
        steps.stacks[new.root] = Stack(stack.buffer, 1 - int(loop.reverse))
        if placeholder is loop.running:
            to.call("full", y=stack.buffer, number=0.0)
        copy(to, _given(node, f"s{k}"), steps.at(placeholder, first))
    for root in local:
        if root not in steps.stacks and root.segment == "work":
            steps.add(root)
    finals = [steps.at(new, last) for new in states]
    if loop.running is not None:
        finals = _carried(to, calls, [(s, _given(node, f"s{k}")) for k, s in enumerate(states)])
    sums = [Sum(to, like, node.outputs[f"g{k}"]) for k, (like, _) in enumerate(loop.sums)]
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
            steps.stacks[seed] = Stack(swap(to, douts[f"y{k}"]))
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
        steps.stacks[found.root] = Stack(stack.buffer, 1 - back)
        zeros = to.full(placeholder.shape, 0.0, batched=True) if final is None else final
        copy(to, zeros, steps.at(placeholder, last))
    for root in pass_.stacked:
        if root not in steps.stacks:
            steps.add(root)
    d_first = [steps.at(found, first) for found in pass_.d_states]
    if loop.running is not None:
        d_first = _carried_back(to, pass_, steps, backward.d_new, d_finals)
    sums = [Sum(to, value, written.get(name)) for name, value, _ in backward.invariants]
    terms = [parts for _, _, parts in backward.invariants]
    _add_up(to, steps, pass_.calls, pass_.after, sums, terms, not loop.reverse)
    needed = [k for k, x in enumerate(loop.x_in) if any(x is other for other in backward.xs)]
    steps.clear(pass_.d_xs)
    for k, found in zip(needed, pass_.d_xs, strict=True):
        swap(to, steps.all(found), written[f"x{k}"])
    for k, found in enumerate(d_first):
        if f"s{k}" in written:
            place_at(to, found, written[f"s{k}"])


def _carried_back(
    to: Lowering, pass_: _Backward, steps: Steps, seeds: Sequence[Value],
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
        known = {id(value) for value in to.memo.values()}
        seeds = [*(seed for seed in traced.seeds if seed is not None), *traced.d_new]
        given = dict.fromkeys((*forward.local, *seeds))
        with to.aside() as calls:
            for node in traced.nodes:
                to.lower(node)
        local = dict(given)
        grow(local, (), calls)
        sums: list[Value] = []
        carried = set(traced.states)
        taken = set(given)
        with to.aside() as settling:
            for (value, adding), like in zip(
                traced.sums, [*traced.xs, *traced.states], strict=True
            ):
                for node in adding:
                    to.lower(node)
                shared = like in carried and value is not None and value.root in taken
                if value is None or shared or not whole(value, local):
                    value = self._copied(value, like, local)
                if like in carried:
                    taken.add(value.root)
                sums.append(value)
        calls += settling
        grow(local, (), calls)
        self.d_xs, self.d_states = sums[: len(traced.xs)], sums[len(traced.xs) :]
        self.before, inside = split(calls, local)
        self.calls, self.after = _after(inside, local, [*sums, *seeds])
        made_once = {root for call in self.after for root in writes(call)}
        check_summed([*inside, *self.before], forward.once)
        check_written(self.calls, local, list(given), "gradient of the loop")
        read_after = {root for call in self.after for root in reads(call)}
        self.stacked = [
            root for root in local
            if root.segment == "work" and root not in made_once
            and (root in read_after or root in {g.root for g in self.d_xs})
        ]  # fmt: skip
        # what was packed or transposed of a step's values is not there for a second gradient
        to.memo.keep(lambda _, value: id(value) in known or value.root not in local)

    def _copied(self, gradient: Value | None, like: Value, local: dict[Value, None]) -> Value:
        """A copy of a gradient (or zeros) in memory that belongs to the step."""
        fresh = self.to.value(like.shape, batched=True, name=f"d{like.name}")
        local[fresh] = None
        if gradient is None:
            gradient = self.to.full(like.shape, 0.0, batched=True)
        copy(self.to, gradient, fresh)
        return fresh


def _add_up(
    to: Lowering, steps: Steps, calls: Sequence[Call], after: Sequence[Call],
    sums: Sequence[Sum], terms: Sequence[list[Value]], reverse: bool,
) -> None:  # fmt: skip
    """Make all steps, and add up the terms of sums: those that are there once for all steps after
    the loop, the others in each.

    Args:
        calls, after: those of a step, and those made once for all.
    """
    made_once = {root for call in after for root in writes(call)}
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
        steps.clear(arrays_of(call, "in"))
        steps.emit_all(call)
    for running, parts in zip(sums, once, strict=True):
        for part in parts:
            running.add_kept(part)
    for running in sums:
        running.finish()


def check_summed(calls: Sequence[Call], once: Container[Value]) -> None:
    """Refuse a gradient that reads a step's part of what was computed for all steps together."""
    for call in calls:
        if any(root in once for root in reads(call)):
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
        if any(root in wanted for root in writes(call)) or not _stackable(call, local):
            inside.append(call)
            wanted.update((*reads(call), *writes(call)))
        else:
            after.append(call)
    return inside[::-1], after[::-1]


def _stackable(call: Call, local: Container[Value]) -> bool:
    """Whether a call on one step's rows may be made on the rows of all steps."""
    if not kernel_of(call.kernel).traits.sums_rows or "stream" in call.operands or call.repeats:
        return False
    reads = [value for _, parameter, value in call.arrays() if parameter.reads]
    return all(value.root in local and value.size == value.root.size for value in reads)
