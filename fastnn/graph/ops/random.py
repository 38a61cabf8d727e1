"""Ops that draw random numbers: indexed by seed, step, stream and element (see the kernels)."""

from __future__ import annotations

from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, register


def _dropout_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """The same mask, drawn again: nothing is saved."""
    return {"x": graph.apply("dropout", x=douts["y"], **node.attrs)}


register(
    Op(
        "dropout", defaults={"keep": 0.5, "scale": 2.0, "stream": 0}, forward="dropout",
        gradient=_dropout_gradient,
    )
)  # fmt: skip
