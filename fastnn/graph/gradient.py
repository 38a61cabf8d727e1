"""Reverse-mode differentiation: one walk over the nodes, last to first."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.errors import ShapeError
from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import gradient_node, lookup


def differentiate(
    graph: Graph, loss: Value, wrt: Sequence[Value], seed: Value | None = None
) -> list[Value | None]:
    """Append to `graph` the nodes that compute the gradient of `loss`.

    Args:
        loss: a value of one element (of any shape with `seed`).
        wrt: the values whose gradients are wanted.
        seed: the gradient of the loss to itself; 1 by default.

    Returns:
        For each value in `wrt` its gradient, or None where the loss does not depend on it.
    """
    if seed is None:
        if loss.size != 1:
            raise ShapeError(
                f"the loss must be a single number, got shape {loss.shape}; "
                "take its mean or sum, or pass a seed gradient"
            )
        seed = graph.full(loss.shape, 1.0)
    return propagate(graph, [(loss, seed)], wrt)


def propagate(
    graph: Graph, seeds: Sequence[tuple[Value, Value]], wrt: Sequence[Value]
) -> list[Value | None]:
    """Like `differentiate`, from several values with their gradients."""
    found = contributions(graph, seeds, wrt)
    return [total(graph, parts, value) for parts, value in zip(found, wrt, strict=True)]


def contributions(
    graph: Graph, seeds: Sequence[tuple[Value, Value]], wrt: Sequence[Value]
) -> list[list[Value]]:
    """For each value in `wrt` the terms of its gradient, from each of its uses one."""
    nodes = list(graph.nodes)
    needed = _depends_on(nodes, wrt)
    parts: dict[Value, list[Value]] = {}
    for value, gradient in seeds:
        parts.setdefault(value, []).append(gradient)
    for node in reversed(nodes):
        wanted = {k for k, v in node.inputs.items() if v is not None and v in needed}
        if not wanted:
            continue
        douts = {
            k: g
            for k, v in node.outputs.items()
            if (g := total(graph, parts.get(v, []), v)) is not None
        }
        if not douts:
            continue
        rule = node.op.gradient or gradient_node
        with graph.inside_scope(node.scope):
            gradients = rule(graph, node, douts, wanted)
        for name, gradient in gradients.items():
            source = node.inputs[name]
            if source is not None and name in wanted:
                parts.setdefault(source, []).append(gradient)
    return [parts.get(value, []) for value in wrt]


def total(graph: Graph, terms: list[Value], value: Value) -> Value | None:
    """The sum of the gradients that have arrived at a value; `terms` is left with it alone."""
    while len(terms) > 1:
        a, b = terms.pop(0), terms.pop(0)
        result = graph.value(value.shape, batched=value.batched, name=f"d{value.name}")
        result.node = Node(lookup("add"), {"a": a, "b": b}, {"y": result}, {}, graph.scope)
        graph.nodes.append(result.node)
        terms.insert(0, result)
    return terms[0] if terms else None


def _depends_on(nodes: Sequence[Node], wrt: Sequence[Value]) -> set[Value]:
    """All values that depend on one of `wrt`, these included."""
    found = set(wrt)
    for node in nodes:
        if any(v in found for v in node.inputs.values() if v is not None):
            found.update(node.outputs.values())
    return found
