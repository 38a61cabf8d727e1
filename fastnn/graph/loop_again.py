"""Loops differentiated more than once: their tangents, and the gradients of their gradients.

Both are loops again, of a body that is traced once. The tangent of a loop goes through its steps
with the states' tangents beside the states. What a loop's gradient computes can be said by two
loops: one through the steps, whose outputs are the states before each, and one in reverse, of a
step's gradient, whose states are the gradients that arrive; what it finds for values from outside
are sums over its steps. These can be differentiated in their turn. (All steps are made, those after
the end of all sequences, too: the body sees to it that they change nothing.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastnn.graph.gradient import Values, contributions, depending, total
from fastnn.graph.graph import Graph
from fastnn.graph.loop import (
    Body,
    Loop,
    Sum,
    loop_gradient,
    loop_node,
    outputs_of,
)
from fastnn.graph.node import Node, memory_written
from fastnn.graph.op import Op
from fastnn.graph.tangent import push
from fastnn.graph.value import Value


def loop(
    graph: Graph, body: Body, xs: Sequence[Value], states: Sequence[Value],
    length: int | None = None, running: int | None = None, reverse: bool = False,
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
        reverse: whether the last step in time is made first.

    Returns:
        The outputs, each (batch, steps, ...), and the final states.
    """
    made = Loop(graph, body, xs, states, length, running, reverse)
    node = loop_node(_LOOP, made, xs, states)
    return outputs_of(node, "y"), outputs_of(node, "f")


def _given(node: Node, letter: str) -> list[Value]:
    """The sequences ("x") or the states ("s") that a loop was given."""
    made: Loop = node.attrs["loop"]
    count = len(made.x_in if letter == "x" else made.s_in)
    found = [node.inputs[f"{letter}{k}"] for k in range(count)]
    return [value for value in found if value is not None]


# ---------------------------------------------------------------- a body once more


def _stand_in(value: Value, known: dict[Value, Value]) -> Value:
    """What stands for a value, or for the part of one."""
    if value in known:
        return known[value]
    if value.base is not None:
        base = _stand_in(value.base, known)
        if base is not value.base:
            known[value] = value.graph.view(base, value.shape, value.batched, value.begin)
            return known[value]
    return value


def _all(values: Iterable[Value], known: dict[Value, Value]) -> list[Value]:
    return [_stand_in(value, known) for value in values]


def _sums(sums: Iterable[Sum], known: dict[Value, Value]) -> list[Sum]:
    return [(like, _all(terms, known)) for like, terms in sums]


def _clone_all(made: Loop, known: dict[Value, Value]) -> None:
    """The nodes of a step once more, of what stands for its placeholders: enters what stands for
    the results."""
    clones: dict[Node, Node] = {}
    for node in made.nodes:
        _clone(made.graph, node, known, clones)


def _clone(graph: Graph, node: Node, known: dict[Value, Value], clones: dict[Node, Node]) -> None:
    if not node.outputs:  # working memory, which an effect fills
        for root in memory_written(node):
            if root.segment == "work" and root not in known:
                known[root] = graph.value(
                    root.shape, root.dtype, batched=root.batched, name=root.name
                )
    inputs = {n: None if v is None else _stand_in(v, known) for n, v in node.inputs.items()}
    of = None if node.of is None else _whose(node, node.of, inputs, clones)
    if "loop" in node.attrs:
        _clone_loop(graph, node, inputs, of, known, clones)
        return
    made = clones[node] = Node(node.op, inputs, {}, dict(node.attrs), node.scope, of=of)
    for n, value in node.outputs.items():
        fresh = graph.value(value.shape, value.dtype, batched=value.batched, name=value.name)
        if value.base is not None:
            fresh.base = _stand_in(value.base, known)
            fresh.begin, fresh.segment = value.begin, fresh.base.root.segment
        fresh.node, known[value], made.outputs[n] = made, fresh, fresh
    graph.nodes.append(made)


def _whose(node: Node, of: Node, inputs: dict[str, Value | None], clones: dict[Node, Node]) -> Node:
    """What stands for the node whose gradient is cloned: it may have been left out of the body, as
    nobody needed its outputs."""
    if of not in clones and any(value is not node.inputs[n] for n, value in inputs.items()):
        own = {n: inputs[n] for n in of.inputs}
        outputs = {n: value for n in of.outputs if (value := inputs[n]) is not None}
        clones[of] = Node(of.op, own, outputs, of.attrs, of.scope)
    return clones.get(of, of)


def _clone_loop(
    graph: Graph, node: Node, inputs: dict[str, Any], of: Node | None, known: dict[Value, Value],
    clones: dict[Node, Node],
) -> None:  # fmt: skip
    """A loop within the body, or its gradient."""
    if of is not None and node.of is not None:
        douts = {n: v for n in of.outputs if (v := inputs.get(f"d{n}")) is not None}
        numbers = {id(v): n for n, v in of.inputs.items() if n[:3] == "inv"}
        names = {}
        for given in node.outputs:
            name = given[1:]
            value = node.of.inputs[name]
            if value is not None and name[:3] == "inv":
                name = numbers[id(_stand_in(value, known))]
            names[given] = name
        found = loop_gradient(graph, of, douts, set(names.values()))
        known.update((v, found[names[n]]) for n, v in node.outputs.items())
        return
    made: Loop = node.attrs["loop"]

    def body(*parts: Value) -> Sequence[Any]:
        inner = known | dict(zip([*made.x_in, *made.s_in], parts, strict=True))
        _clone_all(made, inner)
        return _all(made.outputs, inner), _all(made.s_out, inner), _sums(made.sums, inner)

    xs, states = ([inputs[n] for n in inputs if n[0] == letter] for letter in ("x", "s"))
    running = next((k for k, s in enumerate(made.s_in) if s is made.running), None)
    again = Loop(graph, body, xs, states, made.length, running, made.reverse, made.derived)
    clone = clones[node] = loop_node(node.op, again, xs, states)
    known.update((v, clone.outputs[n]) for n, v in node.outputs.items())


# ---------------------------------------------------------------- tangents


def _loop_tangent(graph: Graph, node: Node, given: Values) -> Values:
    """The loop with the tangents of its states beside them."""
    made: Loop = node.attrs["loop"]
    xs, states = _given(node, "x"), _given(node, "s")
    outside = {
        v: given[n]
        for n, v in node.inputs.items()
        if n[:3] == "inv" and n in given and v is not None
    }
    x_moved = [k for k in range(len(xs)) if f"x{k}" in given]
    moved = [k for k in range(len(states)) if f"s{k}" in given]
    before = -1
    while before != len(moved):
        before = len(moved)
        from_ = [*outside, *(made.x_in[k] for k in x_moved), *(made.s_in[k] for k in moved)]
        reached = depending(made.nodes, from_)
        moved = [k for k, s in enumerate(made.s_out) if k in moved or s in reached]
    names: list[str] = []

    def body(*parts: Value) -> Sequence[Any]:
        rest = iter(parts)
        steps = {value: next(rest) for value in made.x_in}
        known = {steps[made.x_in[k]]: next(rest) for k in x_moved}
        steps |= {value: next(rest) for value in made.s_in}
        known |= {steps[made.s_in[k]]: next(rest) for k in moved}
        known |= outside
        _clone_all(made, steps)
        push(graph, list(graph.nodes), known)
        outputs, sums = [], []
        for k, value in enumerate(_all(made.outputs, steps)):
            if value in known:
                names.append(f"y{k}")
                outputs.append(known[value])
        new = _all(made.s_out, steps)
        tangents = [
            known[new[k]] if new[k] in known else graph.full(new[k].shape, 0.0, batched=True)
            for k in moved
        ]
        for k, (like, terms) in enumerate(_sums(made.sums, steps)):
            if any(term in known for term in terms):
                names.append(f"g{k}")
                sums.append((like, [known[term] for term in terms if term in known]))
        return outputs, [*new, *tangents], sums

    zeros = {k: graph.full(states[k].shape, 0.0, batched=True) for k in moved}
    all_xs = [*xs, *(given[f"x{k}"] for k in x_moved)]
    all_states = [*states, *(given.get(f"s{k}", zeros[k]) for k in moved)]
    again = Loop(graph, body, all_xs, all_states, made.length, reverse=made.reverse, derived=True)
    result = loop_node(node.op, again, all_xs, all_states)
    finals = outputs_of(result, "f")[len(states) :]
    found = dict(zip(names, [*outputs_of(result, "y"), *outputs_of(result, "g")], strict=True))
    return found | {f"f{k}": final for k, final in zip(moved, finals, strict=True)}


# ---------------------------------------------------------------- gradients


def _loop_adjoint(node: Node, incoming: Values, wanted: Sequence[str]) -> Values:
    """A loop's gradients to some of its inputs, by loops that can be differentiated again."""
    made: Loop = node.attrs["loop"]
    graph, xs, states = made.graph, _given(node, "x"), _given(node, "s")

    def forward(*parts: Value) -> Sequence[Any]:
        steps = dict(zip([*made.x_in, *made.s_in], parts, strict=True))
        _clone_all(made, steps)
        return parts[len(xs) :], _all(made.s_out, steps)

    path = Loop(graph, forward, xs, states, made.length, reverse=made.reverse, derived=True)
    before = outputs_of(loop_node(node.op, path, xs, states), "y")

    arriving = [k for k in range(len(made.outputs)) if f"y{k}" in incoming]
    x_wanted = [k for k in range(len(xs)) if f"x{k}" in wanted]
    outside = {
        n: v for n, v in node.inputs.items() if n[:3] == "inv" and n in wanted and v is not None
    }
    names: list[str] = []

    def backward(*parts: Value) -> Sequence[Any]:
        rest = iter(parts)
        steps = {value: next(rest) for value in [*made.x_in, *made.s_in]}
        seeds = [next(rest) for _ in arriving]
        d_new = list(rest)
        inner = dict(steps)
        _clone_all(made, inner)
        pairs = [
            (_stand_in(made.outputs[k], inner), s) for k, s in zip(arriving, seeds, strict=True)
        ]
        pairs += zip(_all(made.s_out, inner), d_new, strict=True)
        for k, (_, terms) in enumerate(_sums(made.sums, inner)):
            if f"g{k}" in incoming:
                dg = incoming[f"g{k}"]
                pairs += [(term, graph.same(dg, term)) for term in terms]
        placeholders = [*(made.x_in[k] for k in x_wanted), *made.s_in]
        targets = [steps[value] for value in placeholders]
        parts_of = contributions(graph, pairs, [*targets, *outside.values()])
        found = [total(graph, p, v) for p, v in zip(parts_of, targets, strict=False)]
        outputs = []
        for k, value in zip(x_wanted, found, strict=False):
            if value is not None:
                names.append(f"x{k}")
                outputs.append(value)
        new = [
            graph.full(s.shape, 0.0, batched=True) if value is None else value
            for value, s in zip(found[len(x_wanted) :], states, strict=True)
        ]
        sums = []
        for (name, value), terms in zip(outside.items(), parts_of[len(targets) :], strict=True):
            if terms:
                names.append(name)
                sums.append((value, terms))
        return outputs, new, sums

    sequences = [*xs, *before, *(incoming[f"y{k}"] for k in arriving)]
    ends = [
        incoming[f"f{k}"] if f"f{k}" in incoming else graph.full(s.shape, 0.0, batched=True)
        for k, s in enumerate(states)
    ]
    way_back = Loop(
        graph, backward, sequences, ends, made.length, reverse=not made.reverse, derived=True
    )
    result = loop_node(node.op, way_back, sequences, ends)
    found = dict(zip(names, [*outputs_of(result, "y"), *outputs_of(result, "g")], strict=True))
    return found | dict(
        zip([f"s{k}" for k in range(len(states))], outputs_of(result, "f"), strict=True)
    )


_LOOP = Op(
    "loop", inputs=(), outputs=(), gradient=loop_gradient, tangent=_loop_tangent,
    adjoint=_loop_adjoint,
)  # fmt: skip
