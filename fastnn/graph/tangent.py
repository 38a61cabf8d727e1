"""Forward-mode differentiation: one walk over the nodes, first to last.

The tangent of a value is its derivative along a direction of what it depends on (the R-operator of
Pearlmutter 1994). It is made of other ops: by the op's own rule (`Op.tangent`); or the op itself,
where it is linear; or its expression; or from its gradient g(u), which is linear in what arrives,
u: the tangent is the gradient of <g(u), tangent of the input> to u, whatever u is. So every op
whose gradient can be differentiated has a tangent. A gradient node is linear in the gradients that
arrive; along its other inputs the tangent is that of its expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fastnn.graph.gradient import (
    Values,
    expressed,
    gradient_node,
    needed_nodes,
    propagate,
    total,
)
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.sizes import now
from fastnn.graph.value import Value


def tangents(
    graph: Graph, along: Mapping[Value, Value], wanted: Sequence[Value]
) -> list[Value | None]:
    """Append to `graph` the nodes that compute the tangents of `wanted`.

    Args:
        along: tangents of the values that are varied.

    Returns:
        For each value in `wanted` its tangent, or None where it does not depend on one of `along`.
    """
    known = dict(along)
    push(graph, needed_nodes(graph.nodes, wanted), known)
    return [known.get(value) for value in wanted]


def push(graph: Graph, nodes: Sequence[Node], known: dict[Value, Value]) -> None:
    """Add the tangents of what these nodes compute to those that are known."""
    for node in nodes:
        if not node.outputs:
            continue
        given = {
            n: t
            for n, v in node.inputs.items()
            if v is not None and n not in node.op.constant and (t := known.get(v)) is not None
        }
        if not given:
            continue
        with graph.inside_scope(node.scope):
            found = _tangent(graph, node, given, known)
        for name, value in found.items():
            known[node.outputs[name]] = value


def _tangent(graph: Graph, node: Node, given: Values, known: dict[Value, Value]) -> Values:
    op = node.op
    if node.of is not None:
        return _of_gradient(graph, node, node.of, known)
    if op.tangent is not None:
        return op.tangent(graph, node, given)
    if op.linear and set(given) <= set(op.linear):
        return applied_to(graph, node, given)
    if op.expression is not None:
        return _of_expression(graph, node, known)
    return _transposed(graph, node, given)


def _of_gradient(graph: Graph, node: Node, of: Node, known: dict[Value, Value]) -> Values:
    """The tangent of a gradient node."""
    arriving = {n: v for n in of.outputs if (v := node.inputs.get(f"d{n}")) is not None}
    wanted = {name[1:] for name in node.outputs}
    terms: dict[str, list[Value]] = {name: [] for name in node.outputs}
    moved = {n: t for n, v in arriving.items() if (t := known.get(v)) is not None}
    if moved:
        rule = of.op.gradient or gradient_node
        for name, value in rule(graph, of, moved, wanted).items():
            terms[f"d{name}"].append(value)
    names = (*of.op.inputs, *of.outputs)
    if not of.op.linear and any(node.inputs.get(n) in known for n in names):
        # what arrives may be one of the inputs: here it stays as it is
        fixed = {n: graph.same(v) if v in known else v for n, v in arriving.items()}
        outer, graph.nodes = graph.nodes, []
        try:
            found = expressed(graph, of, fixed, sorted(wanted))
            inner = dict(known)
            parts = {n: found[n] for n in wanted if n in found}
            push(graph, needed_nodes(graph.nodes, parts.values()), inner)
            results = {f"d{n}": inner[v] for n, v in parts.items() if v in inner}
            graph.nodes = needed_nodes(graph.nodes, results.values())
        finally:
            graph.nodes = outer + graph.nodes
        for name, value in results.items():
            terms[name].append(value)
    found = {}
    for name, parts_of in terms.items():
        summed = total(graph, parts_of, node.outputs[name])
        if summed is not None:
            found[name] = summed
    return found


def _of_expression(graph: Graph, node: Node, known: dict[Value, Value]) -> Values:
    """The tangent of what an op is made of."""
    assert node.op.expression is not None
    outer, graph.nodes = graph.nodes, []
    try:
        outputs = node.op.expression(node)
        inner = dict(known)
        push(graph, list(graph.nodes), inner)
        found = {n: inner[v] for n, v in outputs.items() if v in inner}
        graph.nodes = needed_nodes(graph.nodes, found.values())
        return found
    finally:
        graph.nodes = outer + graph.nodes


def _transposed(graph: Graph, node: Node, given: Values) -> Values:
    """By way of the gradient, which is the tangent's transpose."""
    op = node.op
    outer, graph.nodes = graph.nodes, []
    try:
        names = [n for n in op.returns if node.outputs[n].dtype == "f"]
        arriving = {n: _stand_in(graph, node.outputs[n]) for n in names}
        if op.gradient is not None:
            gradients = op.gradient(graph, node, dict(arriving), set(given))
        else:
            gradients = expressed(graph, node, arriving, sorted(given))
        pairs = [(gradients[n], t) for n, t in given.items() if n in gradients]
        found = dict(zip(names, propagate(graph, pairs, list(arriving.values())), strict=True))
        result = {n: v for n, v in found.items() if v is not None}
        graph.nodes = needed_nodes(graph.nodes, result.values())
        return result
    finally:
        graph.nodes = outer + graph.nodes


def _stand_in(graph: Graph, like: Value) -> Value:
    """For a gradient in which all is linear: its numbers do not matter, nor does any rule take them
    for known (`constants.known`)."""
    data = np.zeros(tuple(map(now, like.shape)))
    return graph.value(
        like.shape, segment="constant", data=data, batched=like.batched, name="arriving"
    )


# ---------------------------------------------------------------- rules


def applied_to(graph: Graph, node: Node, given: Values) -> Values:
    """Of an op that is linear in these inputs: the op, of their tangents."""
    inputs = dict(node.inputs)
    for name in node.op.linear:
        value = inputs[name]
        if value is not None:
            absent = name not in given
            inputs[name] = graph.full(value.shape, 0.0, value.batched) if absent else given[name]
    found = graph.apply(node.op, **inputs, **node.attrs)
    outputs = found if isinstance(found, tuple) else (found,)
    named = dict(zip(node.op.returns, outputs, strict=True))
    return {n: v for n, v in named.items() if v.dtype == "f"}


def by_element(graph: Graph, node: Node, given: Values) -> Values:
    """Of a function of the elements at one place: the slopes times the tangents, as in a gradient
    (the matrix of slopes is diagonal, and so its own transpose)."""
    rule = node.op.gradient or gradient_node
    terms: list[Value] = []
    for name, tangent in given.items():
        terms += rule(graph, node, {"y": tangent}, {name}).values()
    value = total(graph, terms, node.outputs["y"])
    return {} if value is None else {"y": value}
