"""The loop: a sub-graph repeated over time, with its gradient.

The body is traced once, on placeholders for one step. Its calls are then made for each time step on
slices of stacked arrays: what the body computes at step t lies in slice t of a buffer (T, ...), and
a carried state in slice t of one of T + 1. The gradient traces the body's backward calls once and
makes them for each step in reverse.

Calls that need no step of their own are taken out of the loop. What depends on no placeholder (a
packed weight) is computed once before it. Gradients of weights, which sum over the rows of a step,
become one sum over the rows of all steps after it: one large matrix product, not T small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastnn.kernels.cpu.sequence  # noqa: F401  (declares the kernels)
from fastnn.errors import ShapeError, where
from fastnn.graph.gradient import propagate
from fastnn.graph.graph import Call, Graph, Node, Value
from fastnn.graph.op import Op
from fastnn.kernels.declare import KERNELS

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


def _reads(call: Call) -> list[Value]:
    arrays = KERNELS[call.kernel].arrays
    found = [call.operands[n] for n, p in arrays.items() if p.reads or p.mode == "part"]
    return [v for v in found if isinstance(v, Value)]


def _writes(call: Call) -> list[Value]:
    arrays = KERNELS[call.kernel].arrays
    found = [call.operands[n] for n, p in arrays.items() if p.writes]
    return [v for v in found if isinstance(v, Value)]


def _split(calls: list[Call], local: set[Value]) -> tuple[list[Call], list[Call]]:
    """Calls that depend on no step, and calls that do; `local` grows by what the latter write."""
    outside, inside = [], []
    for call in calls:
        if "stream" in call.operands or any(v.root in local for v in _reads(call)):
            inside.append(call)
            local.update(v.root for v in _writes(call))
        else:
            outside.append(call)
    return outside, inside


class Loop:
    """One loop in a graph: traced body, stacks, and the emission of both passes."""

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
        self.nodes: list[Node] = []

        def trace() -> tuple[list[Value], list[Value]]:
            outputs, new = body(*self.x_in, *self.s_in)
            return list(outputs), [self._own(value) for value in new]

        (self.outputs, self.s_out), calls = _record(graph, self.nodes, trace)
        if [s.shape for s in self.s_out] != [s.shape for s in states]:
            raise ShapeError(
                f"{where(graph.scope)}loop: expected new states of shapes "
                f"{[s.shape for s in states]}, got {[s.shape for s in self.s_out]}"
            )
        self.local = {*self.x_in, *self.s_in}
        self.before, self.calls = _split(calls, self.local)
        for output in self.outputs:
            if output.root not in self.local or not output.batched:
                raise ShapeError(
                    f"{where(graph.scope)}loop: expected outputs of the body that depend on the "
                    f"step and run over the batch, got {output}"
                )

    def _own(self, value: Value) -> Value:
        """A new state in memory of its own."""
        taken = {*self.x_in, *self.s_in, *getattr(self, "_owned", [])}
        if value.root in taken or value is not value.root or value.home != "work":
            fresh = self.graph.value(value.shape, batched=True, name=value.name)
            node = Node(_COPY, {"x": value}, {"y": fresh}, {}, self.graph.scope)
            fresh.node = node
            self.graph.nodes.append(node)
            copy(self.graph, value, fresh)
            value = fresh
        self._owned = [*getattr(self, "_owned", []), value]
        return value

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
        for root in self.local - set(steps.stacks):
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
        graph, steps = self.graph, self.steps
        seeds: list[tuple[Value, Value]] = []
        local = set(self.local)
        d_new = []
        for output, gradient in zip(self.outputs, d_outputs, strict=True):
            if gradient is not None:
                seed = graph.value(output.shape, batched=True, name=f"d{output.name}")
                seeds.append((output, seed))
                steps.stacks[seed] = _Stack(swap(graph, gradient, batched=False))
                local.add(seed)
        for new in self.s_out:
            seed = graph.value(new.shape, batched=True, name=f"d{new.name}")
            seeds.append((new, seed))
            d_new.append(seed)
            local.add(seed)
        wanted = [x for x, needed in zip(self.x_in, x_needed, strict=True) if needed]

        def trace() -> tuple[list[Value | None], list[Value]]:
            found = propagate(graph, seeds, [*wanted, *self.s_in, *invariants])
            states = found[len(wanted) : len(wanted) + len(self.s_in)]
            return found, [self._gradient_of_state(g, s, seeds) for g, s in zip(
                states, self.s_in, strict=True)]  # fmt: skip

        (found, d_in), calls = _record(graph, self.nodes, trace)
        before, inside = _split(calls, local)
        d_xs, d_inv = found[: len(wanted)], found[len(wanted) + len(self.s_in) :]
        inside, after = self._after(inside, [*d_xs, *d_in])
        graph.calls += before
        for placeholder, gradient, final in zip(d_new, d_in, d_states, strict=True):
            stack = steps.add(placeholder, extra=1, first=1)
            steps.stacks[gradient] = _Stack(stack.buffer, 0)
            start = steps.at(placeholder, self.length - 1)
            zeros = graph.full(placeholder.shape, 0.0, batched=True)
            copy(graph, zeros if final is None else final, start)
        once = {v.root for call in after for v in _writes(call)}
        for root in local - set(steps.stacks) - once:
            steps.add(root)
        for t in reversed(range(self.length)):
            for call in inside:
                steps.emit(call, t)
        for call in after:
            steps.emit_all(call)
        gradients = iter(d_xs)
        xs: list[Value | None] = []
        for needed in x_needed:
            gradient = next(gradients) if needed else None
            xs.append(None if gradient is None else swap(graph, steps.all(gradient), batched=True))
        results = [None if g is None else self._summed(g, once) for g in d_inv]
        return xs, [steps.at(gradient, 0) for gradient in d_in], results

    def _gradient_of_state(
        self, gradient: Value | None, state: Value, seeds: list[tuple[Value, Value]]
    ) -> Value:
        """The gradient of a carried state in memory of its own."""
        fresh = self.graph.value(state.shape, batched=True, name=f"d{state.name}")
        source = gradient
        if source is None:
            source = self.graph.full(state.shape, 0.0, batched=True)
        copy(self.graph, source, fresh)
        if gradient is None:  # depends on no step, but has to be written in each
            self.graph.calls[-1].operands["x"] = self.graph.view(fresh, fresh.shape)
        return fresh

    def _after(
        self, calls: list[Call], needed: Sequence[Value | None]
    ) -> tuple[list[Call], list[Call]]:
        """Take out the calls that can be made once for all steps: sums over rows that no step
        needs."""
        wanted = {v.root for v in needed if v is not None}
        inside: list[Call] = []
        after: list[Call] = []
        for call in reversed(calls):
            writes = _writes(call)
            batched = any(v.batched for v in writes)
            if batched or any(v.root in wanted for v in writes) or not _stackable(call):
                inside.append(call)
                wanted.update(v.root for v in _reads(call))
            else:
                after.append(call)
        return inside[::-1], after[::-1]

    def _summed(self, gradient: Value, once: set[Value]) -> Value:
        """The gradient of an invariant: as it is, or the sum over all steps."""
        steps, graph = self.steps, self.graph
        if gradient.root in once or gradient.root not in steps.stacks:
            return gradient
        total = graph.value(gradient.shape, batched=gradient.batched, name=gradient.name)
        copy(graph, steps.at(gradient, self.length - 1), total)
        for t in reversed(range(self.length - 1)):
            graph.call("add_forward", a=total, b=steps.at(gradient, t), y=total)
        return total


#: kernels that sum over rows, whatever their number, and what prepares their operands
ROW_SUMS = {
    "linear_backward_weight",
    "linear_backward_weight_packed",
    "sum_rows",
    "embedding_backward",
    "layer_norm_backward_gain",
    "prelu_backward_weight_columns",
    "prelu_backward_weight_single",
    "add_forward",
}


def _stackable(call: Call) -> bool:
    """Whether a call on one step's rows may be made on the rows of all steps."""
    if call.kernel not in ROW_SUMS or "stream" in call.operands:
        return False
    return all(v.shift == 0 and v.size == v.root.size for v in _reads(call))


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
