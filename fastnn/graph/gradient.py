"""Reverse-mode differentiation: one walk over the nodes, last to first.

A gradient node is differentiated by way of an expression in other ops: the op says what its
gradients are (`Op.derivative`, `Op.adjoint`), or what it is itself (`Op.expression`), or in which
inputs it is linear (`Op.linear`: then the gradient's gradient is the op). What the expression
computes only for itself is left out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node, memory_written
from fastnn.graph.op import GRADIENT, lookup
from fastnn.graph.value import Value
from fastnn.kernels.declare import declared

Values = dict[str, Value]


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
    before, joined = set(graph.nodes), list[Node]()
    found = contributions(graph, seeds, wrt)
    results = [total(graph, p, value, joined) for p, value in zip(found, wrt, strict=True)]
    _drop(graph, [node for node in joined if node not in before], results)
    return results


def contributions(
    graph: Graph, seeds: Sequence[tuple[Value, Value]], wrt: Sequence[Value]
) -> list[list[Value]]:
    """For each value in `wrt` the terms of its gradient, from each of its uses one."""
    nodes, joined = list(graph.nodes), list[Node]()
    needed = depending(nodes, wrt)
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
            if (g := total(graph, parts.get(v, []), v, joined)) is not None
        }
        if not douts:
            continue
        rule = node.op.gradient or (gradient_node if node.of is None else gradient_again)
        with graph.inside_scope(node.scope):
            gradients = rule(graph, node, douts, wanted)
        for name, gradient in gradients.items():
            source = node.inputs[name]
            if source is not None and name in wanted:
                parts.setdefault(source, []).append(gradient)
    found, before = [parts.get(value, []) for value in wrt], set(nodes)
    _drop(graph, [node for node in joined if node not in before], sum(found, list[Value]()))
    return found


def total(
    graph: Graph, terms: list[Value], value: Value, joined: list[Node] | None = None
) -> Value | None:
    """The sum of the gradients that have arrived at a value; `terms` is left with it alone.

    To `joined`, if given, go the nodes of terms that their op has joined: others may read them yet.
    """
    if joined is not None:
        _join(graph, terms, joined)
    while len(terms) > 1:
        a, b = terms.pop(0), terms.pop(0)
        result = graph.value(value.shape, batched=value.batched, name=f"d{value.name}")
        result.node = Node(lookup("add"), {"a": a, "b": b}, {"y": result}, {}, graph.scope)
        graph.nodes.append(result.node)
        terms.insert(0, result)
    return terms[0] if terms else None


def _join(graph: Graph, terms: list[Value], joined: list[Node]) -> None:
    """Compute terms at once that their op knows to join."""
    for term in list(terms):
        op = None if term.node is None else term.node.op
        if op is None or op.joined is None:
            continue
        alike = [t for t in terms if t.node is not None and t.node.op is op and t is t.root]
        nodes = [t.node for t in alike if t.node is not None and t.node in graph.nodes]
        if len(nodes) < 2 or len(nodes) < len(alike):
            continue
        found = op.joined(graph, nodes)
        if found is not None:
            gone = set(alike)
            terms[:] = [found, *(t for t in terms if t not in gone)]
            joined += nodes


def _drop(graph: Graph, joined: Sequence[Node], results: Iterable[Value | None]) -> None:
    """Leave out nodes whose terms have been joined, unless somebody else reads them: a sum hands
    the same gradient on to all that it adds."""
    if not joined:
        return
    read = {value.root for value in results if value is not None}
    for node in graph.nodes:
        read.update(value.root for value in node.inputs.values() if value is not None)
    gone = {node for node in joined if not any(v.root in read for v in node.outputs.values())}
    graph.nodes = [node for node in graph.nodes if node not in gone]


def depending(nodes: Sequence[Node], wrt: Sequence[Value]) -> set[Value]:
    """All values to which gradients pass on the way to one of `wrt`, these included."""
    found = set(wrt)
    for node in nodes:
        constant = node.op.constant
        if any(v in found for k, v in node.inputs.items() if v is not None and k not in constant):
            found.update(node.outputs.values())
    return found


# ---------------------------------------------------------------- gradient nodes


def gradient_node(
    graph: Graph, node: Node, douts: dict[str, Value], wanted: set[str]
) -> dict[str, Value]:
    """Add the node of a node's gradients; returns those that are wanted, by input."""
    op = node.op
    wanted = wanted - set(op.constant)
    if not wanted:
        return {}
    if missing := wanted - differentiable(node):
        raise NotDifferentiable(node, f"that writes d{sorted(missing)[0]}")
    inputs = {**node.inputs, **node.outputs, **{f"d{name}": value for name, value in douts.items()}}
    made = Node(GRADIENT, inputs, {}, node.attrs, node.scope, of=node)
    found = {}
    for name in op.inputs:
        if name not in wanted:
            continue
        source = node.inputs[name]
        assert source is not None
        found[name] = graph.value(
            source.shape, source.dtype, node=made, name=f"{op.name}.d{name}",
            batched=source.batched,
        )  # fmt: skip
        made.outputs[f"d{name}"] = found[name]
    graph.nodes.append(made)
    return found


def multiple(x: Value, number: Any, like: Value) -> Value:
    """A number times x, as a gradient to `like`; x itself, without a copy, if it is 1 and x is
    nothing that the step changes."""
    graph = x.graph
    if number == 1.0 and x.root.segment in ("work", "input", "constant"):
        return graph.same(x, like)
    y: Value = graph.apply("affine", x=x, scale=number, shift=0.0)
    y.batched = like.batched
    return y


def differentiable(node: Node) -> set[str]:
    """The inputs that a node's gradient node has gradients for."""
    op = node.op
    if op.differentiable is not None:
        return set(op.differentiable)
    found: set[str] = set()
    for name in op.backward_kernels:
        kernel = declared(name)
        if kernel is None:
            raise NotDifferentiable(node, repr(name))
        found |= {n[1:] for n, p in kernel.arrays.items() if p.writes and n[0] == "d"}
    return found


def named(node: Node) -> set[str]:
    """The inputs of a gradient node that its kernels read; all where a rule lowers it."""
    assert node.of is not None
    op = node.of.op
    if op.differentiable is not None:
        return set(node.inputs)
    kernels = [declared(name) for name in op.backward_kernels]
    return {name for kernel in kernels if kernel is not None for name in kernel.params}


class NotDifferentiable(ShapeError):
    """An op without a gradient stands between the loss and what should be trained."""

    def __init__(self, node: Node, kernel: str):
        super().__init__(
            f"{where(node.scope)}op {node.op.name!r} has no gradient (no kernel {kernel}) for "
            f"inputs {node.inputs}; give it a backward kernel, or let nothing trained reach it"
        )


# ---------------------------------------------------------------- of gradient nodes


def gradient_again(graph: Graph, node: Node, douts: Values, needed: set[str]) -> Values:
    """The gradient of a gradient node."""
    of = node.of
    assert of is not None
    outer, graph.nodes = graph.nodes, []
    try:
        if of.op.linear:
            return _adjoint(graph, of, douts, needed)
        names: dict[Value, str] = {}
        for name in sorted(needed):
            value = node.inputs[name]
            assert value is not None
            names.setdefault(value, name)
        incoming = {n: v for n in of.outputs if (v := node.inputs.get(f"d{n}")) is not None}
        found = expressed(graph, of, incoming, [name[1:] for name in douts])
        seeds = [(v, douts[f"d{n}"]) for n, v in found.items() if f"d{n}" in douts]
        results = propagate(graph, seeds, list(names))
        kept = {n: g for n, g in zip(names.values(), results, strict=True) if g is not None}
        graph.nodes = needed_nodes(graph.nodes, kept.values())
        return kept
    finally:
        graph.nodes = outer + graph.nodes


def expressed(graph: Graph, of: Node, incoming: Values, wanted: Sequence[str]) -> Values:
    """A node's gradients as nodes that can be differentiated."""
    op = of.op
    if op.derivative is not None:
        return op.derivative(of, incoming)
    if op.adjoint is not None:
        return op.adjoint(of, incoming, wanted)
    if op.expression is None:
        raise ShapeError(
            f"{where(of.scope)}the gradient of op {op.name!r} can't be differentiated: expected an "
            "op whose gradient has an expression; write it with functions of fastnn.ops, or let no "
            "gradient of a gradient pass here (ops.detach); for an op of your own give define_op "
            "an expression"
        )
    outputs = op.expression(of)
    seeds = [(outputs[n], gradient) for n, gradient in incoming.items()]
    inputs: dict[Value, str] = {}
    for n in wanted:
        value = of.inputs[n]
        assert value is not None
        inputs.setdefault(value, n)
    found = propagate(graph, seeds, list(inputs))
    return {n: g for n, g in zip(inputs.values(), found, strict=True) if g is not None}


def _adjoint(graph: Graph, of: Node, douts: Values, needed: set[str]) -> Values:
    """Of an op that is linear in inputs: to the gradients of its outputs, the op itself."""
    inputs = dict(of.inputs)
    for name in of.op.linear:
        value = of.inputs[name]
        if value is not None:
            given = douts.get(f"d{name}")
            inputs[name] = graph.full(value.shape, 0.0, value.batched) if given is None else given
    found = graph.apply(of.op, **inputs, **of.attrs)
    outputs = found if isinstance(found, tuple) else (found,)
    named = {f"d{n}": v for n, v in zip(of.op.returns, outputs, strict=True)}
    return {n: v for n, v in named.items() if n in needed}


def needed_nodes(nodes: Sequence[Node], results: Iterable[Value]) -> list[Node]:
    """The nodes without which the results would not be there, in order."""
    wanted = {value.root for value in results}
    kept = []
    for node in reversed(nodes):
        written = [value.root for value in node.outputs.values()] or memory_written(node)
        if any(root in wanted for root in written):
            kept.append(node)
            read = set(node.inputs) if node.of is None else named(node)
            wanted.update(v.root for n, v in node.inputs.items() if n in read and v is not None)
    return kept[::-1]
