"""Metrics: one number for each row, without gradient."""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.op import Op, register
from fastnn.graph.value import Value
from fastnn.ops.declare import op, output


def _class_rows(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, target = inputs["x"], inputs["target"]
    if target.dtype != "i" or target.shape != x.shape[:-1]:
        raise ShapeError(
            f"{where(scope)}metric: expected class indices (integers) of shape {x.shape[:-1]} for "
            f"outputs of shape {x.shape}, got {target.dtype}{list(target.shape)}"
        )
    return {"hit": (target.shape, "f")}


def _pair_rows(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, target = inputs["x"], inputs["target"]
    if target.dtype != "f" or target.shape != x.shape:
        raise ShapeError(
            f"{where(scope)}metric: expected floating-point targets of the outputs' shape "
            f"{x.shape}, got {target.dtype}{list(target.shape)}"
        )
    return {"hit": (x.shape[:-1] if x.ndim > 1 else x.shape, "f")}


for _name, _rule, _defaults in (
    ("accuracy", _class_rows, {}),
    ("top_k", _class_rows, {"k": 5}),
    ("binary_accuracy", _pair_rows, {"threshold": 0.0}),
):
    register(
        Op(
            _name, inputs=("x", "target"), outputs=("hit",), returns=("hit",),
            defaults=dict(_defaults), shape=_rule, forward=_name, backward=(),
        )
    )  # fmt: skip


@op(forward="largest", backward=())
def _largest(x: Value) -> Value:
    return output(x.shape[:-1], "i")
