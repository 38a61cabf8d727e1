"""Two traces of one model, for batches of two sizes: do they compute the same for each sample?

What a graph computes with may have been made of the batch's size: ``x / x.shape[0]``, an array of
places among the samples, the gradient of a mean. The graph for one size does not show that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph.gradient import named
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.op import GRADIENT
from fastnn.graph.value import Value


def has_numbers(graph: Graph) -> bool:
    """Whether a graph has attributes or constants that may have been made of the batch's size."""
    return any(
        any(isinstance(attribute, float) for attribute in node.attrs.values())
        or any(v is not None and v.data is not None for v in node.inputs.values())
        for node in graph.nodes
        if node.outputs
    )


def same_op(node: Node, other: Node) -> bool:
    """Whether two nodes do the same. (A join has an op of its own each time, and so has a loop.)"""
    if (node.of is None) != (other.of is None):
        return False
    if node.of is not None and other.of is not None and not same_op(node.of, other.of):
        return False
    return node.op.name == other.op.name


def alike(value: Value, counterpart: Value, *, by_sample: bool = False) -> bool:
    """Whether two graphs compute two values alike, but for the batch's size.

    With `by_sample` no number may follow the batch's size at all, nor the place among the samples:
    neither a constant, nor what is added up over a batch, nor the share that a mean gives its rows.
    """
    pairs, seen = [(value, counterpart)], set()
    while pairs:
        a, b = (v if v.node is not None else v.root for v in pairs.pop())
        if a in seen:
            continue
        seen.add(a)
        constants = a.data is not None or b.data is not None
        if constants and not _same_numbers(a.data, b.data, by_sample):
            return False
        if a.node is None and b.node is None:
            continue
        if a.node is None or b.node is None or not same_op(a.node, b.node):
            return False
        mine, theirs = _operands(a.node, by_sample), _operands(b.node, by_sample)
        if by_sample and _follows_size(a.node, mine, theirs, a.size == b.size):
            return False
        for name, operand in mine.items():
            other = theirs.get(name)
            if isinstance(operand, Value) and isinstance(other, Value):
                pairs.append((operand, other))
            elif isinstance(operand, float) and operand != other:
                return False
    return True


def _operands(node: Node, read: bool) -> dict[str, Any]:
    """What a node computes with: values and numbers; of a loop also what a step ends with. With
    `read` only those inputs of a gradient node that it reads."""
    inputs: dict[str, Any] = dict(node.inputs)
    if read and node.op is GRADIENT:
        names = named(node)
        inputs = {name: value for name, value in inputs.items() if name in names}
    found = {**node.attrs, **inputs}
    made = node.attrs.get("loop")
    if made is not None:
        terms = [term for _, parts in made.sums for term in parts]
        found |= {f"step {k}": v for k, v in enumerate([*made.outputs, *made.s_out, *terms])}
    return found


def _follows_size(node: Node, mine: dict[str, Any], theirs: dict[str, Any], same: bool) -> bool:
    """Whether a node makes a number of the batch's size: of a value as large in both graphs it
    reads something that grows with the batch, or it shares a gradient out among a mean's rows."""
    if node.of is not None and node.of.op.name == "mean":
        return True
    return same and any(
        isinstance(v, Value) and isinstance(w := theirs.get(name), Value) and v.size != w.size
        for name, v in mine.items()
    )


def _same_numbers(a: np.ndarray | None, b: np.ndarray | None, by_sample: bool) -> bool:
    """Whether two constants hold the same, but for the batch's size."""
    if a is None or b is None:
        return False
    if a.shape == b.shape:
        return bool(np.array_equal(a, b, equal_nan=True))
    if by_sample:  # the same all along the axes that grow
        if a.ndim != b.ndim or not a.size or not b.size:
            return False
        first = tuple(
            slice(n) if n == m else slice(1) for n, m in zip(a.shape, b.shape, strict=True)
        )
        return all(np.array_equal(c, np.broadcast_to(a[first], c.shape)) for c in (a, b))
    uniform = a.size and b.size and (a == a.flat[0]).all() and (b == b.flat[0]).all()
    return not uniform or bool(a.flat[0] == b.flat[0])
