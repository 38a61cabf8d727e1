"""A row that is put into tables: kernels take the tables of a sequence as one row."""

from __future__ import annotations

from typing import Any

from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.plan.lower.lowering import Lowering, Values, forward, gradient
from fastnn.plan.lower.products import need


@forward("put_row")
def _put_row(to: Lowering, node: Node) -> None:
    x, y = need(node, "x"), node.outputs["y"]
    batch = _samples(node)
    to.call("put_row_forward", x=_flat(to, x, batch), row=_flat(to, need(node, "row"), batch),
            **_where(to, node), y=_flat(to, y, batch))  # fmt: skip


@gradient("put_row")
def _put_row_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    batch = _samples(node)
    dy, at = _flat(to, douts["y"], batch), _where(to, node)
    if "row" in written:
        to.call("put_row_backward_row", **at, dy=dy, drow=_flat(to, written["row"], batch))
    if "x" in written:
        nothing = _flat(to, to.full(need(node, "row").shape, 0.0, batched=True), batch)
        to.call("put_row_forward", x=dy, row=nothing, **at, y=_flat(to, written["x"], batch))


def _samples(node: Node) -> int:
    """How many sequences say whether they go on; each may have several tables."""
    running = node.inputs["running"]
    return need(node, "x").shape[0] if running is None else running.shape[0]


def _where(to: Lowering, node: Node) -> dict[str, Any]:
    return {"at": _flat(to, need(node, "at"), _samples(node)), "running": node.inputs["running"]}


def _flat(to: Lowering, value: Value, batch: int) -> Value:
    return to.view(value, (batch, value.size // batch), value.batched)
