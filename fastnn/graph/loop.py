"""The loop: a sub-graph repeated over time, with its gradient.

The body is traced once, on placeholders for one step. What belongs to a step is what depends on it;
all the rest of the body (a layer applied to something from outside) stands before the loop, as if
it were written there. The gradient traces the gradient of the body once, from gradients of a step's
outputs and new states. `fastnn/plan/lower/loop.py` says how both passes are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.gradient import contributions, gradient_node, total
from fastnn.graph.graph import Graph
from fastnn.graph.methods import functions
from fastnn.graph.node import Node
from fastnn.graph.op import KERNEL, Op, batched_like
from fastnn.graph.value import Value
from fastnn.kernels.declare import declared

Body = Callable[..., tuple[Sequence[Value], Sequence[Value]]]


def _record(graph: Graph, nodes: list[Node], action: Callable[[], Any]) -> Any:
    """Run `action` with the nodes that it adds put into this list."""
    saved, graph.nodes = graph.nodes, nodes
    try:
        return action()
    finally:
        graph.nodes = saved


def _reads(node: Node) -> Iterator[Value]:
    for value in (node.attrs["operands"] if node.op is KERNEL else node.inputs).values():
        if isinstance(value, Value):
            yield value.root


def _writes(node: Node) -> Iterator[Value]:
    """The memory that a node writes: its outputs, and what its kernel changes of its inputs."""
    yield from (value.root for value in node.outputs.values())
    kernel = node.attrs["kernel"] if node.op is KERNEL else node.op.forward_kernel
    found = declared(kernel) if node.of is None else None
    operands = node.attrs["operands"] if node.op is KERNEL else node.inputs
    for name, parameter in found.arrays.items() if found is not None else ():
        value = operands.get(name)
        if parameter.writes and isinstance(value, Value):
            yield value.root


def _belongs(node: Node, local: Container[Value]) -> bool:
    """Whether a node is computed in each step: something of it is a step's, or it draws numbers."""
    if "stream" in node.attrs or "stream" in node.attrs.get("operands", ()):
        return True
    return any(root in local for root in _reads(node))


def _grow(local: dict[Value, None], nodes: Sequence[Node]) -> None:
    """Let `local`, the memory that belongs to a step, grow to all that depends on it."""
    before = -1
    while before != len(local):
        before = len(local)
        for node in nodes:
            if _belongs(node, local):
                local.update(dict.fromkeys(_writes(node)))
        used = {root for node in nodes if _belongs(node, local) for root in _reads(node)}
        for node in nodes:  # working memory of a step
            if node.op is KERNEL:
                local.update((root, None) for root in _writes(node) if root in used)


def whole(value: Value, local: Container[Value]) -> bool:
    """Whether a value is all of a piece of memory that belongs to the step."""
    return value.root in local and value.root.segment == "work" and value.size == value.root.size


def _is_final(value: Value) -> bool:
    """Whether this is the last state of a loop in the body: a slice of that loop's memory."""
    node = value.node
    finals = {} if node is None or node.op.name != "loop" else node.outputs
    return any(value is final for name, final in finals.items() if name[0] == "f")


class Loop:
    """One loop in a graph: its traced body.

    Args:
        graph, body, xs, states: as of `loop`.
        length: the number of steps, where there are no sequences.
        running: the number of the state that says which sequences go on, see `loop`.

    Attributes:
        length: the number of steps.
        running: the placeholder for the state that says which sequences go on, or None.
        nodes: what is computed in each step.
        x_in, s_in: placeholders for a step of the sequences, and for the states before it.
        outputs, s_out: what a step gives, and the states after it.
        copies: those of them that are copies of something from outside.
    """

    def __init__(
        self, graph: Graph, body: Body, xs: Sequence[Value], states: Sequence[Value],
        length: int | None = None, running: int | None = None,
    ):  # fmt: skip
        self.graph = graph
        lengths = {x.shape[1] if x.ndim > 1 else 0 for x in xs}
        if not xs and states and length:
            lengths = {length}
        if len(lengths) != 1 or 0 in lengths:
            raise ShapeError(
                f"{where(graph.scope)}loop: expected sequences of shape (batch, steps, ...) with "
                f"the same number of steps, got {[x.shape for x in xs]}"
            )
        self.length = lengths.pop()
        self.x_in = [
            graph.value((x.shape[0], *x.shape[2:]), x.dtype, batched=True, name=f"step {x.name}")
            for x in xs
        ]
        self.s_in = [graph.value(s.shape, batched=True, name=f"state {s.name}") for s in states]
        self.running = None if running is None else self.s_in[running]
        batch = (*xs, *states)[0].shape[0]
        self._local: dict[Value, None] = dict.fromkeys((*self.x_in, *self.s_in))
        self.copies: list[Value] = []
        nodes: list[Node] = []
        outputs, new = _record(graph, nodes, lambda: body(*self.x_in, *self.s_in))
        if [s.shape for s in new] != [s.shape for s in states]:
            raise ShapeError(
                f"{where(graph.scope)}loop: expected new states of shapes "
                f"{[s.shape for s in states]}, got {[s.shape for s in new]}"
            )
        _grow(self._local, nodes)
        for output in outputs:
            if output.ndim < 1 or output.shape[0] != batch:
                raise ShapeError(
                    f"{where(graph.scope)}loop: expected outputs of the body that run over the "
                    f"batch of {batch}, got {output}"
                )

        def outputs_of_step() -> None:
            taken = {*self.x_in, *self.s_in}
            self.s_out: list[Value] = []
            for value in new:
                self.s_out.append(self._own(value, taken))
                taken.add(self.s_out[-1])
            self.outputs = [self._own(value) for value in outputs]

        _record(graph, nodes, outputs_of_step)
        _grow(self._local, nodes)
        inside = [any(root in self._local for root in _writes(node)) for node in nodes]
        graph.nodes += [node for node, within in zip(nodes, inside, strict=True) if not within]
        self.nodes = [node for node, within in zip(nodes, inside, strict=True) if within]

    def _own(self, value: Value, taken: set[Value] | None = None) -> Value:
        """`value` if it is memory of each step's own, all of it; else a copy that is.

        With `taken` it also has to be other memory than these.
        """
        mine = whole(value, self._local) and value.batched and not _is_final(value.root)
        if mine and (taken is None or (value is value.root and value not in taken)):
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
        self._local[fresh] = None
        self.copies.append(fresh)
        return fresh

    def invariants(self) -> list[Value]:
        """Values from outside that the body's nodes use."""
        inside = {v for node in self.nodes for v in node.outputs.values()}
        found: dict[Value, None] = {}
        for node in self.nodes:
            for value in node.inputs.values():
                if value is not None and value not in inside and value.root not in self._local:
                    found[value] = None
        return list(found)

    def seed(self, value: Value) -> Value:
        """Stands for a step's gradient of a value."""
        return self.graph.value(value.shape, batched=True, name=f"d{value.name}")


@dataclass
class Backward:
    """The gradient of a loop's body.

    Attributes:
        nodes: those that compute it from the seeds.
        seeds: by output (None where no gradient arrives) what stands for its gradient.
        d_new: what stands for the gradients of the new states.
        xs, states: the placeholders of the sequences and states whose gradients are found.
        sums: for each of these its gradient (None: it has none), with the nodes that add it up.
        invariants: values from outside, with the terms of their gradients.
    """

    nodes: list[Node]
    seeds: list[Value | None]
    d_new: list[Value]
    xs: list[Value]
    states: list[Value]
    sums: list[tuple[Value | None, list[Node]]]
    invariants: list[tuple[str, Value, list[Value]]]


def _trace_backward(
    made: Loop, given: Sequence[bool], x_needed: Sequence[bool], invariants: dict[str, Value]
) -> Backward:
    """Differentiate a body, for the outputs that a gradient is given of."""
    graph = made.graph
    seeds = [
        made.seed(output) if known else None
        for output, known in zip(made.outputs, given, strict=True)
    ]
    d_new = [made.seed(new) for new in made.s_out]
    pairs = [(o, s) for o, s in zip(made.outputs, seeds, strict=True) if s is not None]
    pairs += zip(made.s_out, d_new, strict=True)
    wanted = [x for x, needed in zip(made.x_in, x_needed, strict=True) if needed]
    nodes = list(made.nodes)
    targets = [*wanted, *made.s_in, *invariants.values()]
    found = _record(graph, nodes, lambda: contributions(graph, pairs, targets))
    sums: list[tuple[Value | None, list[Node]]] = []
    for parts, like in zip(found, [*wanted, *made.s_in], strict=False):
        adding: list[Node] = []
        sums.append((_record(graph, adding, partial(total, graph, parts, like)), adding))
    terms = [
        (name, value, parts)
        for (name, value), parts in zip(invariants.items(), found[len(sums) :], strict=True)
    ]
    return Backward(nodes[len(made.nodes) :], seeds, d_new, wanted, made.s_in, sums, terms)


def _copy_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    return {"x": douts["y"]}


_COPY = Op("copy", gradient=_copy_gradient, placement=batched_like())


# ---------------------------------------------------------------- step by step


def _unrolled(node: Node, known: dict[Value, Value] | None = None) -> dict[str, Value]:
    """A loop's outputs with the nodes of its body there for each step.

    `known`: what stands for values of a loop around this one.
    """
    made: Loop = node.attrs["loop"]
    graph = made.graph
    step = dict(known or {})
    given = {n: _stand_in(v, step) for n, v in node.inputs.items() if v is not None}
    states = [given[f"s{k}"] for k in range(len(made.s_in))]
    outputs: list[list[Value]] = [[] for _ in made.outputs]
    for t in range(made.length):
        step = dict(known or {})
        for k, placeholder in enumerate(made.x_in):
            x = given[f"x{k}"]
            counts = (x.shape[0], 1, *x.shape[2:])
            starts = tuple(t if d == 1 else 0 for d in range(x.ndim))
            cut = graph.apply("slice_steps", x=x, starts=starts, steps=(1,) * x.ndim, counts=counts)
            step[placeholder] = graph.apply("reshape", x=cut, shape=placeholder.shape)
        step.update(zip(made.s_in, states, strict=True))
        clones: dict[Node, Node] = {}
        for inner in made.nodes:
            _clone(graph, inner, step, clones, t)
        for values, output in zip(outputs, made.outputs, strict=True):
            values.append(_stand_in(output, step))
        states = [_stand_in(new, step) for new in made.s_out]
    found = {f"f{k}": state for k, state in enumerate(states)}
    for k, values in enumerate(outputs):
        if values[0].dtype == "f":
            first = values[0].shape
            wide = [
                graph.apply("reshape", x=value, shape=(first[0], 1, *first[1:])) for value in values
            ]
            found[f"y{k}"] = functions().concatenate(wide, axis=1)
    return found


def _stand_in(value: Value, known: dict[Value, Value]) -> Value:
    """What stands for a value, or for the part of one, in a step."""
    if value in known:
        return known[value]
    if value.base is not None:
        base = _stand_in(value.base, known)
        if base is not value.base:
            return value.graph.view(base, value.shape, value.batched, value.begin)
    return value


def _clone(
    graph: Graph, node: Node, known: dict[Value, Value], clones: dict[Node, Node], t: int
) -> None:
    """The node once more, of what stands for its inputs."""
    if "loop" in node.attrs and node.of is None:
        found = _unrolled(node, known)
        known.update((v, found[n]) for n, v in node.outputs.items() if n in found)
        return
    attrs = dict(node.attrs)
    if "stream" in attrs:
        attrs["stream"] = (attrs["stream"] << 20) + t + 1
    if node.op is KERNEL:
        for root in _writes(node):
            if root.segment == "work" and root not in known:
                known[root] = graph.value(
                    root.shape, root.dtype, batched=root.batched, name=root.name
                )
        attrs["operands"] = {
            n: _stand_in(v, known) if isinstance(v, Value) else v
            for n, v in node.attrs["operands"].items()
        }
    inputs = {n: None if v is None else _stand_in(v, known) for n, v in node.inputs.items()}
    of = None if node.of is None else clones.get(node.of, node.of)
    made = Node(node.op, inputs, {}, attrs, node.scope, of=of)
    for n, value in node.outputs.items():
        fresh = graph.value(value.shape, value.dtype, batched=value.batched, name=value.name)
        if value.base is not None:
            fresh.base = _stand_in(value.base, known)
            fresh.begin, fresh.segment = value.begin, fresh.base.root.segment
        fresh.node, known[value], made.outputs[n] = made, fresh, fresh
    graph.nodes.append(made)
    clones[node] = made


def _loop_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    made: Loop = node.attrs["loop"]
    backward = _trace_backward(
        made,
        [f"y{k}" in douts for k in range(len(made.outputs))],
        [f"x{k}" in needed for k in range(len(made.x_in))],
        {n: v for n, v in node.inputs.items() if n[:3] == "inv" and n in needed and v is not None},
    )
    without = {name for name, _, terms in backward.invariants if not terms}
    found = gradient_node(graph, node, douts, needed - without)
    if found:
        graph.nodes[-1].attrs = {**node.attrs, "backward": backward}
    return found


def loop(
    graph: Graph, body: Body, xs: Sequence[Value], states: Sequence[Value],
    length: int | None = None, running: int | None = None,
) -> tuple[list[Value], list[Value]]:  # fmt: skip
    """Repeat `body` over the steps of sequences.

    Args:
        graph: the graph.
        body: of (one step of each sequence, each state); returns (outputs, new states).
        xs: sequences, each (batch, steps, ...).
        states: initial states, each (batch, ...).
        length: the number of steps, where there are no sequences.
        running: the number of a state, shape (batch,): floats that are 0 from the end of a sequence
            on, else not. The body itself sees to it that outputs are 0 past it, and states stay as
            they are; then steps are not made in which no sequence goes on.

    Returns:
        The outputs, each (batch, steps, ...), and the final states.
    """
    made = Loop(graph, body, xs, states, length, running)
    names: dict[str, Value | None] = {
        **{f"x{k}": x for k, x in enumerate(xs)},
        **{f"s{k}": s for k, s in enumerate(states)},
        **{f"inv{k}": v for k, v in enumerate(made.invariants())},
    }
    op = Op("loop", inputs=tuple(names), outputs=(), gradient=_loop_gradient,
            expression=_unrolled, differentiable=tuple(names))  # fmt: skip
    node = Node(op, names, {}, {"loop": made}, graph.scope)
    for k, output in enumerate(made.outputs):
        shape = (output.shape[0], made.length, *output.shape[1:])
        node.outputs[f"y{k}"] = graph.value(
            shape, output.dtype, batched=True, node=node, name=f"loop.y{k}"
        )
    for k, new in enumerate(made.s_out):
        node.outputs[f"f{k}"] = graph.value(
            new.shape, batched=new.batched, node=node, name=f"loop.f{k}"
        )
    graph.nodes.append(node)
    outputs, finals = (
        [v for n, v in node.outputs.items() if n[0] == letter] for letter in ("y", "f")
    )
    return outputs, finals
