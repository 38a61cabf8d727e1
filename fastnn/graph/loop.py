"""The loop: a sub-graph repeated over time, with its gradient.

The body is traced once, on placeholders for one step. Its calls are then made for each time step on
slices of stacked arrays: what the body computes at step t lies in slice t of a buffer (T, ...), and
a carried state in slice t of one of T + 1. The gradient traces the body's backward calls once and
makes them for each step in reverse.

What belongs to a step is decided by memory: a call that reads or writes anything of a step is made
in each, and whatever it writes belongs to the step, too. All the rest of the body (a layer applied
to something from outside, a packed weight) stands before the loop, as if it were written there.
Of gradients to what comes from outside, sums over the rows of a step (those of weights) become one
sum over the rows of all steps, after the loop: one large matrix product, not T small ones. Others
are added up in place, step by step, in reverse time; memory that only one step's backward pass
needs is used again by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.coverage import check_written
from fastnn.graph.gradient import contributions, total
from fastnn.graph.graph import Call, Graph, Node, Value
from fastnn.graph.op import Op
from fastnn.kernels.declare import Array, declared

Body = Callable[..., tuple[Sequence[Value], Sequence[Value]]]


def swap(graph: Graph, x: Value, batched: bool) -> Value:
    """x with its first two dimensions exchanged; `batched` says whether the batch is first then."""
    columns = x.size // max(x.shape[0] * x.shape[1], 1)
    y = graph.value((x.shape[1], x.shape[0], *x.shape[2:]), x.dtype, batched=batched)
    flat = [graph.view(v, (*v.shape[:2], columns), batched=False) for v in (x, y)]
    kernel = "swap_leading" if x.dtype == "f" else "swap_leading_ids"
    graph.call(kernel, x=flat[0], y=flat[1])
    return y


def copy(graph: Graph, source: Value, target: Value) -> None:
    graph.call("affine", x=source, y=target, scale=1.0, shift=0.0)


@dataclass
class _Stack:
    """A buffer with a slice for each step; `first` is the slice of step 0."""

    buffer: Value
    first: int = 0


@dataclass
class _Steps:
    """Stacks of all values that differ from step to step, by their roots."""

    graph: Graph
    length: int
    stacks: dict[Value, _Stack] = field(default_factory=dict)

    def add(self, root: Value, extra: int = 0, first: int = 0) -> _Stack:
        buffer = self.graph.value(
            (self.length + extra, *root.shape), root.dtype, name=f"steps of {root.name}"
        )
        self.stacks[root] = _Stack(buffer, first)
        return self.stacks[root]

    def at(self, value: Any, t: int) -> Any:
        """What stands for `value` at step t."""
        if not isinstance(value, Value) or value.root not in self.stacks:
            return value
        stack = self.stacks[value.root]
        begin = (t + stack.first) * value.root.size + value.shift
        return self.graph.view(stack.buffer, value.shape, value.batched, begin)

    def all(self, value: Any) -> Any:
        """What stands for `value` at all steps together: (T, ...)."""
        if not isinstance(value, Value) or value.root not in self.stacks:
            return value
        stack = self.stacks[value.root]
        begin = stack.first * value.root.size
        return self.graph.view(stack.buffer, (self.length, *value.shape), False, begin)

    def emit(self, call: Call, t: int) -> None:
        """Make a call for step t; random numbers get a stream of their own for each step."""
        operands = {name: self.at(value, t) for name, value in call.operands.items()}
        if "stream" in operands:
            operands["stream"] = (operands["stream"] << 20) + t + 1
        with self.graph.inside_scope(f"{call.scope or 'loop'}, time step {t}"):
            self.graph.call(call.kernel, **operands)

    def emit_all(self, call: Call) -> None:
        """Make a call once for all steps."""
        operands = {name: self.all(value) for name, value in call.operands.items()}
        with self.graph.inside_scope(call.scope):
            self.graph.call(call.kernel, **operands)


def _record(graph: Graph, nodes: list[Node], action: Callable[[], Any]) -> tuple[Any, list[Call]]:
    """Run `action` with the calls that it adds set aside."""
    saved_nodes, saved_calls = graph.nodes, graph.calls
    graph.nodes, graph.calls = nodes, []
    try:
        result = action()
        return result, graph.calls
    finally:
        graph.nodes, graph.calls = saved_nodes, saved_calls


def _arrays(call: Call) -> dict[str, Array]:
    kernel = declared(call.kernel)
    assert kernel is not None
    return kernel.arrays


def _roots(call: Call, *modes: str) -> list[Value]:
    """The memory that a call uses in one of these ways."""
    found = [call.operands[name] for name, p in _arrays(call).items() if p.mode in modes]
    return [v.root for v in found if isinstance(v, Value)]


def _reads(call: Call) -> list[Value]:
    return _roots(call, "in", "inout", "part")


def _writes(call: Call) -> list[Value]:
    return _roots(call, "out", "inout", "part")


def _belongs(call: Call, local: Container[Value]) -> bool:
    """Whether a call has to be made in each step: something that it reads or writes is a step's."""
    touched = (*_reads(call), *_writes(call))
    return "stream" in call.operands or any(root in local for root in touched)


def _whole(value: Value, local: Container[Value]) -> bool:
    """Whether a value is all of a piece of memory that belongs to the step."""
    return value.root in local and value.root.home == "work" and value.size == value.root.size


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


class Loop:
    """One loop in a graph: traced body, stacks, and the emission of both passes.

    Attributes:
        nodes, calls: what is done in each step.
        local: the memory that belongs to a step (an ordered set).
        before: calls of the body that stand before the loop.
    """

    def __init__(self, graph: Graph, body: Body, xs: Sequence[Value], states: Sequence[Value]):
        self.graph = graph
        lengths = {x.shape[1] if x.ndim > 1 else 0 for x in xs}
        if len(lengths) != 1 or 0 in lengths:
            raise ShapeError(
                f"{where(graph.scope)}loop: expected sequences of shape (batch, steps, ...) with "
                f"the same number of steps, got {[x.shape for x in xs]}"
            )
        self.length = lengths.pop()
        self.steps = _Steps(graph, self.length)
        self.x_in = [
            graph.value((x.shape[0], *x.shape[2:]), x.dtype, batched=True, name=f"step {x.name}")
            for x in xs
        ]
        self.s_in = [graph.value(s.shape, batched=True, name=f"state {s.name}") for s in states]
        self.local: dict[Value, None] = dict.fromkeys((*self.x_in, *self.s_in))
        nodes: list[Node] = []
        (outputs, new), calls = _record(graph, nodes, lambda: body(*self.x_in, *self.s_in))
        if [s.shape for s in new] != [s.shape for s in states]:
            raise ShapeError(
                f"{where(graph.scope)}loop: expected new states of shapes "
                f"{[s.shape for s in states]}, got {[s.shape for s in new]}"
            )
        _grow(self.local, nodes, calls)
        for output in outputs:
            if output.ndim < 1 or output.shape[0] != xs[0].shape[0]:
                raise ShapeError(
                    f"{where(graph.scope)}loop: expected outputs of the body that run over the "
                    f"batch of {xs[0].shape[0]}, got {output}"
                )

        def settle() -> None:
            taken = {*self.x_in, *self.s_in}
            self.s_out: list[Value] = []
            for value in new:
                self.s_out.append(self._own(value, taken))
                taken.add(self.s_out[-1])
            self.outputs = [self._own(value) for value in outputs]

        calls += _record(graph, nodes, settle)[1]
        _grow(self.local, nodes, calls)
        self.before, self.calls = _split(calls, self.local)
        inside = [any(v.root in self.local for v in n.outputs.values()) for n in nodes]
        graph.nodes += [node for node, within in zip(nodes, inside, strict=True) if not within]
        self.nodes = [node for node, within in zip(nodes, inside, strict=True) if within]
        check_written(self.calls, self.local, [*self.x_in, *self.s_in], "loop")

    def _own(self, value: Value, taken: set[Value] | None = None) -> Value:
        """`value` if it is memory of each step's own, all of it; else a copy that is.

        With `taken` it also has to be other memory than these.
        """
        whole = _whole(value, self.local) and value.batched
        if whole and (taken is None or (value is value.root and value not in taken)):
            return value
        if value.dtype != "f":
            raise ShapeError(
                f"{where(self.graph.scope)}loop: expected integers that the body returns to be "
                f"those of a step, got {value}, which is the same at each; leave it out"
            )
        fresh = self.graph.value(value.shape, value.dtype, batched=True, name=value.name)
        node = Node(_COPY, {"x": value}, {"y": fresh}, {}, self.graph.scope)
        fresh.node = node
        self.graph.nodes.append(node)
        copy(self.graph, value, fresh)
        self.local[fresh] = None
        return fresh

    def invariants(self) -> list[Value]:
        """Values from outside that the body's nodes use."""
        inside = {v for node in self.nodes for v in node.outputs.values()}
        found: dict[Value, None] = {}
        for node in self.nodes:
            for value in node.inputs.values():
                if value is not None and value not in inside and value.root not in self.local:
                    found[value] = None
        return list(found)

    def forward(
        self, xs: Sequence[Value], states: Sequence[Value]
    ) -> tuple[list[Value], list[Value]]:
        """Emit all steps; returns the outputs (batch-first) and the final states."""
        graph, steps = self.graph, self.steps
        graph.calls += self.before
        for placeholder, x in zip(self.x_in, xs, strict=True):
            steps.stacks[placeholder] = _Stack(swap(graph, x, batched=False))
        for placeholder, new, initial in zip(self.s_in, self.s_out, states, strict=True):
            stack = steps.add(placeholder, extra=1)
            steps.stacks[new] = _Stack(stack.buffer, 1)
            copy(graph, initial, steps.at(placeholder, 0))
        for root in self.local:
            if root not in steps.stacks and root.home == "work":
                steps.add(root)
        for t in range(self.length):
            for call in self.calls:
                steps.emit(call, t)
        outputs = [swap(graph, steps.all(output), batched=True) for output in self.outputs]
        return outputs, [steps.at(new, self.length - 1) for new in self.s_out]

    def backward(
        self,
        d_outputs: Sequence[Value | None],
        d_states: Sequence[Value | None],
        x_needed: Sequence[bool],
        invariants: Sequence[Value],
    ) -> tuple[list[Value | None], list[Value], list[Value | None]]:
        """Emit all steps in reverse; gradients of the sequences, initial states and invariants."""
        graph, steps, last = self.graph, self.steps, self.length - 1
        seeds: list[tuple[Value, Value]] = []
        for output, gradient in zip(self.outputs, d_outputs, strict=True):
            if gradient is not None:
                seeds.append((output, self._seed(output)))
                steps.stacks[seeds[-1][1]] = _Stack(swap(graph, gradient, batched=False))
        d_new = [self._seed(new) for new in self.s_out]
        seeds += zip(self.s_out, d_new, strict=True)
        given = dict.fromkeys((*self.local, *(seed for _, seed in seeds)))
        wanted = [x for x, needed in zip(self.x_in, x_needed, strict=True) if needed]
        pass_ = _Backward(graph, self.nodes, given, seeds, wanted, self.s_in, invariants)
        graph.calls += pass_.before
        for placeholder, gradient, final in zip(d_new, pass_.d_states, d_states, strict=True):
            stack = steps.add(placeholder, extra=1, first=1)
            steps.stacks[gradient] = _Stack(stack.buffer, 0)
            zeros = graph.full(placeholder.shape, 0.0, batched=True) if final is None else final
            copy(graph, zeros, steps.at(placeholder, last))
        for root in pass_.stacked:
            if root not in steps.stacks:
                steps.add(root)
        sums = [_Sum(graph, v) for v in invariants]
        for t in range(last, -1, -1):
            for call in pass_.calls:
                steps.emit(call, t)
            for running, parts in zip(sums, pass_.each, strict=True):
                for part in parts:
                    running.add(steps.at(part, t))
        for call in pass_.after:
            steps.emit_all(call)
        for running, parts in zip(sums, pass_.once, strict=True):
            for part in parts:
                running.add_kept(part)
        gradients = iter(pass_.d_xs)
        xs: list[Value | None] = []
        for needed in x_needed:
            found = next(gradients) if needed else None
            xs.append(None if found is None else swap(graph, steps.all(found), batched=True))
        return xs, [steps.at(g, 0) for g in pass_.d_states], [running.value for running in sums]

    def _seed(self, value: Value) -> Value:
        """Stands for a step's gradient of a value."""
        return self.graph.value(value.shape, batched=True, name=f"d{value.name}")


class _Backward:
    """The backward pass of a loop's body, sorted into what is done when.

    Attributes:
        before: calls that stand before the loop.
        calls: those made in each step.
        after: those made once for all steps, after the loop.
        d_xs, d_states: gradients of the steps of sequences and of carried states, a step's own.
        each, once: for each invariant the terms of its gradient: a step's, and of all steps.
        stacked: memory of which each step has a slice of its own; other memory is used again.
    """

    def __init__(
        self,
        graph: Graph,
        nodes: list[Node],
        given: dict[Value, None],
        seeds: list[tuple[Value, Value]],
        xs: Sequence[Value],
        states: Sequence[Value],
        invariants: Sequence[Value],
    ):
        self.graph = graph
        known = set(graph.leaves)
        found, calls = _record(
            graph, nodes, lambda: contributions(graph, seeds, [*xs, *states, *invariants])
        )
        local = dict(given)
        _grow(local, (), calls)
        sums: list[Value] = []
        carried = set(states)

        def settle() -> None:
            for parts, like in zip(found, [*xs, *states], strict=False):
                gradient = total(graph, parts, like)
                if like in carried or gradient is None or not _whole(gradient, local):
                    gradient = self._copied(gradient, like, local)
                sums.append(gradient)

        calls += _record(graph, nodes, settle)[1]
        _grow(local, (), calls)
        self.d_xs, self.d_states = sums[: len(xs)], sums[len(xs) :]
        self.before, inside = _split(calls, local)
        self.calls, self.after = _after(inside, local, [*sums, *(s for _, s in seeds)])
        made_once = {root for call in self.after for root in _writes(call)}
        terms = found[len(sums) :]
        self.once = [[v for v in parts if v.root in made_once] for parts in terms]
        self.each = [[v for v in parts if v.root not in made_once] for parts in terms]
        check_written(self.calls, local, list(given), "gradient of the loop")
        read_after = {root for call in self.after for root in _reads(call)}
        self.stacked = [
            root for root in local
            if root.home == "work" and root not in made_once
            and (root in read_after or root in {g.root for g in self.d_xs})
        ]  # fmt: skip
        # what was packed or turned over of a step's values is not there for a second gradient
        for key in set(graph.leaves) - known:
            if graph.leaves[key].root in local:
                del graph.leaves[key]

    def _copied(self, gradient: Value | None, like: Value, local: dict[Value, None]) -> Value:
        """A copy of a gradient (or zeros) in memory that belongs to the step."""
        graph = self.graph
        fresh = graph.value(like.shape, batched=True, name=f"d{like.name}")
        local[fresh] = None
        if gradient is None:
            gradient = graph.full(like.shape, 0.0, batched=True)
        copy(graph, gradient, fresh)
        return fresh


class _Sum:
    """Terms added up in place, in the order in which they come."""

    def __init__(self, graph: Graph, like: Value):
        self.graph, self.like = graph, like
        self.value: Value | None = None
        self.own = True  # whether `value` may be added to

    def add(self, term: Value) -> None:
        graph, like, before = self.graph, self.like, self.value
        if term.shape != like.shape:
            term = graph.view(term, like.shape)
        if before is None or not self.own:
            self.value = graph.value(like.shape, batched=like.batched, name=f"d{like.name}")
        self.own = True
        assert self.value is not None
        if before is None:
            copy(graph, term, self.value)
        else:
            graph.call("add_forward", a=graph.view(before, like.shape), b=term, y=self.value)

    def add_kept(self, term: Value) -> None:
        """Add a term that keeps its memory: alone, it is the sum itself."""
        if self.value is None:
            self.value, self.own = term, False
        else:
            self.add(term)


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
    kernel = declared(call.kernel)
    assert kernel is not None
    if not kernel.traits.sums_rows or "stream" in call.operands:
        return False
    reads = [v for n, p in _arrays(call).items() if p.reads and (v := call.operands[n]) is not None]
    return all(v.root in local and v.size == v.root.size for v in reads)


def _copy_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    return {"x": douts["y"]}


_COPY = Op("copy", gradient=_copy_gradient)


def loop(
    graph: Graph, body: Body, xs: Sequence[Value], states: Sequence[Value]
) -> tuple[list[Value], list[Value]]:
    """Repeat `body` over the steps of sequences.

    Args:
        graph: the graph.
        body: of (one step of each sequence, each state); returns (outputs, new states).
        xs: sequences, each (batch, steps, ...).
        states: initial states, each (batch, ...).

    Returns:
        The outputs, each (batch, steps, ...), and the final states.
    """
    made = Loop(graph, body, xs, states)
    invariants = made.invariants()
    names = {
        **{f"x{k}": x for k, x in enumerate(xs)},
        **{f"s{k}": s for k, s in enumerate(states)},
        **{f"inv{k}": v for k, v in enumerate(invariants)},
    }
    outputs, finals = made.forward(xs, states)

    def gradient(
        graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
    ) -> dict[str, Value]:
        used = [k for k in range(len(invariants)) if f"inv{k}" in needed]
        d_xs, d_states, d_inv = made.backward(
            [douts.get(f"y{k}") for k in range(len(outputs))],
            [douts.get(f"f{k}") for k in range(len(finals))],
            [f"x{k}" in needed for k in range(len(xs))],
            [invariants[k] for k in used],
        )
        found = {f"x{k}": g for k, g in enumerate(d_xs) if g is not None}
        found |= {f"s{k}": g for k, g in enumerate(d_states)}
        found |= {f"inv{k}": g for k, g in zip(used, d_inv, strict=True) if g is not None}
        return found

    op = Op("loop", inputs=tuple(names), outputs=(), gradient=gradient)
    node = Node(op, dict(names), {}, {}, graph.scope)
    for k, value in enumerate(outputs):
        node.outputs[f"y{k}"] = value
    for k, value in enumerate(finals):
        node.outputs[f"f{k}"] = value
    for value in node.outputs.values():
        value.node = node
    graph.nodes.append(node)
    return outputs, finals
