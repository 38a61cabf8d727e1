"""Copies whose kernel depends on the element type."""

from __future__ import annotations

from fastnn.graph.node import Node
from fastnn.plan.lower.lowering import Lowering, forward
from fastnn.plan.lower.products import need


@forward("effect gather")
def _gather(to: Lowering, node: Node) -> None:
    kernel = "gather_rows" if need(node, "y").dtype == "f" else "gather_ids"
    to.call_for(kernel, node, {}, placed=True)


@forward("effect scatter")
def _scatter(to: Lowering, node: Node) -> None:
    kernel = "scatter_rows" if need(node, "x").dtype == "f" else "scatter_ids"
    to.call_for(kernel, node, {}, placed=True)


@forward("own_copy")
def _own_copy(to: Lowering, node: Node) -> None:
    x, y = need(node, "x"), node.outputs["y"]
    kernel = "swap_leading" if x.dtype == "f" else "swap_leading_ids"
    to.call(
        kernel, x=to.view(x, (1, x.size, 1), batched=False), y=to.view(y, (y.size, 1, 1))
    )  # fmt: skip
