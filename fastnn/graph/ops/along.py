"""Reductions and running sums over the last axis, and the sum over rows."""

from __future__ import annotations

from typing import Any

from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, register


def _without_last(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["x"].shape[:-1], "f")}


for _name in ("max_columns", "product_columns", "logsumexp_columns"):
    register(Op(_name, shape=_without_last, forward=_name))


def _without_first(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["x"].shape[1:], "f")}


def _sum_rows_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = node.inputs["x"]
    assert x is not None
    return {"x": graph.apply("expand", x=douts["y"], shape=x.shape, batched=x.batched)}


register(Op("sum_rows", shape=_without_first, forward="sum_rows", gradient=_sum_rows_gradient))


def _running_sum_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    back = {**node.attrs, "reverse": 1 - node.attrs["reverse"]}
    return {"x": graph.apply("running_sum", x=douts["y"], **back)}


register(
    Op("running_sum", defaults={"reverse": 0, "exclusive": 0}, forward="running_sum",
       gradient=_running_sum_gradient)
)  # fmt: skip
