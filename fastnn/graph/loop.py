"""The loop: a sub-graph repeated over time, with its gradient.

The body is traced once, on placeholders for one step. What belongs to a step is what depends on it;
all the rest of the body (a layer applied to something from outside) stands before the loop, as if
it were written there. The gradient traces the gradient of the body once, from gradients of a step's
outputs and new states. `fastnn/plan/lower/loop.py` says how both passes are computed, and
`loop_again.py` what a loop's tangent and the gradient of its gradient are.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.gradient import contributions, gradient_node, total
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node, memory_written
from fastnn.graph.op import Op, batched_like
from fastnn.graph.value import Value

#: of steps of the sequences and states: the outputs, the new states, and maybe sums
Body = Callable[..., Sequence[Any]]
#: what has the shape of a sum, and the terms that each step adds to it
Sum = tuple[Value, list[Value]]


def _record(graph: Graph, nodes: list[Node], action: Callable[[], Any]) -> Any:
    """Run `action` with the nodes that it adds put into this list."""
    saved, graph.nodes = graph.nodes, nodes
    try:
        return action()
    finally:  # differentiating again leaves another list there
        nodes[:], graph.nodes = graph.nodes, saved


def _reads(node: Node) -> Iterator[Value]:
    return (value.root for value in node.inputs.values() if value is not None)


def _belongs(node: Node, local: Container[Value]) -> bool:
    """Whether a node is computed in each step: something of it is a step's, or it draws numbers."""
    return "stream" in node.attrs or any(root in local for root in _reads(node))


def _grow(local: dict[Value, None], nodes: Sequence[Node]) -> None:
    """Let `local`, the memory that belongs to a step, grow to all that depends on it."""
    before = -1
    while before != len(local):
        before = len(local)
        for node in nodes:
            if _belongs(node, local):
                local.update(dict.fromkeys(memory_written(node)))
        used = {root for node in nodes if _belongs(node, local) for root in _reads(node)}
        for node in nodes:  # working memory of a step, which an effect fills
            if not node.outputs:
                local.update((root, None) for root in memory_written(node) if root in used)


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
        reverse: whether the last step in time is made first.
        derived: whether it comes of differentiating another one: then some of what it computes may
            be of no use.

    Attributes:
        length: the number of steps.
        running: the placeholder for the state that says which sequences go on, or None.
        nodes: what is computed in each step.
        x_in, s_in: placeholders for a step of the sequences, and for the states before it.
        outputs, s_out: what a step gives, and the states after it.
        sums: what all steps add up.
        copies: those of them that are copies of something from outside.
    """

    def __init__(
        self, graph: Graph, body: Body, xs: Sequence[Value], states: Sequence[Value],
        length: int | None = None, running: int | None = None, reverse: bool = False,
        derived: bool = False,
    ):  # fmt: skip
        self.graph, self.reverse, self.derived = graph, reverse, derived
        lengths = [x.shape[1] if x.ndim > 1 else 0 for x in xs]
        if not xs and states and length:
            lengths = [length]
        if not lengths or any(n != lengths[0] or n == 0 for n in lengths):
            raise ShapeError(
                f"{where(graph.scope)}loop: expected sequences of shape (batch, steps, ...) with "
                f"the same number of steps, got {[x.shape for x in xs]}"
            )
        self.length = lengths[0]
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
        outputs, new, *more = _record(graph, nodes, lambda: body(*self.x_in, *self.s_in))
        self.sums: list[Sum] = more[0] if more else []
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
            taken = {v.root for v in (*self.x_in, *self.s_in)}
            self.s_out: list[Value] = []
            for value in new:
                self.s_out.append(self._own(value, taken))
                taken.add(self.s_out[-1].root)
            self.outputs = [self._own(value) for value in outputs]

        _record(graph, nodes, outputs_of_step)
        _grow(self._local, nodes)
        inside = [any(root in self._local for root in memory_written(node)) for node in nodes]
        graph.nodes += [node for node, within in zip(nodes, inside, strict=True) if not within]
        self.nodes = [node for node, within in zip(nodes, inside, strict=True) if within]

    def _own(self, value: Value, taken: set[Value] | None = None) -> Value:
        """`value` if it is memory of each step's own, all of it; else a copy that is.

        With `taken` it also has to be other memory than these.
        """
        mine = whole(value, self._local) and value.batched and not _is_final(value.root)
        if mine and (taken is None or value.root not in taken):
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
        read = [value for node in self.nodes for value in node.inputs.values()]
        read += [term for _, terms in self.sums for term in terms]
        found: dict[Value, None] = {}
        for value in read:
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
        d_sums: by sum what stands for its gradient, the same in each step (None: it has none).
        xs, states: the placeholders of the sequences and states whose gradients are found.
        sums: for each of these its gradient (None: it has none), with the nodes that add it up.
        invariants: values from outside, with the terms of their gradients.
    """

    nodes: list[Node]
    seeds: list[Value | None]
    d_new: list[Value]
    d_sums: list[Value | None]
    xs: list[Value]
    states: list[Value]
    sums: list[tuple[Value | None, list[Node]]]
    invariants: list[tuple[str, Value, list[Value]]]


def _trace_backward(
    made: Loop, given: Container[str], x_needed: Sequence[bool], invariants: dict[str, Value]
) -> Backward:
    """Differentiate a body, for the outputs and sums that a gradient is given of."""
    graph = made.graph
    seeds = [
        made.seed(output) if f"y{k}" in given else None for k, output in enumerate(made.outputs)
    ]
    d_new = [made.seed(new) for new in made.s_out]
    d_sums = [
        graph.value(like.shape, batched=like.batched, name=f"d{like.name}")
        if f"g{k}" in given else None
        for k, (like, _) in enumerate(made.sums)
    ]  # fmt: skip
    pairs = [(o, s) for o, s in zip(made.outputs, seeds, strict=True) if s is not None]
    pairs += zip(made.s_out, d_new, strict=True)
    for (_, parts), seed in zip(made.sums, d_sums, strict=True):
        if seed is not None:
            pairs += [(part, graph.view(seed, part.shape, part.batched)) for part in parts]
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
    return Backward(nodes[len(made.nodes) :], seeds, d_new, d_sums, wanted, made.s_in, sums, terms)


def _copy_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    return {"x": douts["y"]}


_COPY = Op("copy", gradient=_copy_gradient, linear=("x",), placement=batched_like())


def loop_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    made: Loop = node.attrs["loop"]
    backward = _trace_backward(
        made,
        douts,
        [f"x{k}" in needed for k in range(len(made.x_in))],
        {n: v for n, v in node.inputs.items() if n[:3] == "inv" and n in needed and v is not None},
    )
    without = {name for name, _, terms in backward.invariants if not terms}
    found = gradient_node(graph, node, douts, needed - without)
    if found:
        graph.nodes[-1].attrs = {**node.attrs, "backward": backward}
    return found


def loop_node(rules: Op, made: Loop, xs: Sequence[Value], states: Sequence[Value]) -> Node:
    """Add a loop to its graph: `y<k>` are its outputs, `f<k>` its final states, `g<k>` its sums.

    Args:
        rules: the op, less the names of its inputs.
        xs, states: sequences and initial states.
    """
    graph = made.graph
    names: dict[str, Value | None] = {
        **{f"x{k}": x for k, x in enumerate(xs)},
        **{f"s{k}": s for k, s in enumerate(states)},
        **{f"inv{k}": v for k, v in enumerate(made.invariants())},
    }
    op = replace(rules, inputs=tuple(names), differentiable=tuple(names))
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
    for k, (like, _) in enumerate(made.sums):
        node.outputs[f"g{k}"] = graph.value(
            like.shape, batched=like.batched, node=node, name=f"loop.g{k}"
        )
    graph.nodes.append(node)
    return node


def outputs_of(node: Node, letter: str) -> list[Value]:
    """A loop's outputs of one kind."""
    return [value for name, value in node.outputs.items() if name[0] == letter]
