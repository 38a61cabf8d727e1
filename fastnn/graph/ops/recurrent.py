"""Recurrent nets over whole sequences: one fused op for each cell.

All take x (B, T, I), optional lengths (B,), initial states (B, H), weights [I, G] and [H, G] with
G = gates * H, and return y (B, T, H), zero past the end, and the final states. The backward kernel
of a cell writes the gradients of the gates, `dz`, of all steps; gradients to x and to the weights
are products with those.
"""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, register


def _check(inputs: dict[str, Value], gates: int, scope: str, op: str) -> tuple[int, int, int]:
    """B, T and H of a cell's inputs, whose shapes have to fit."""
    x, w_ih, w_hh = inputs["x"], inputs["w_ih"], inputs["w_hh"]
    hidden = w_hh.shape[0]
    if x.ndim != 3 or x.shape[2] != w_ih.shape[0]:
        raise ShapeError(
            f"{where(scope)}{op}: expected input of shape (batch, steps, {w_ih.shape[0]}), got "
            f"{x.shape}; set input_size to {x.shape[-1]}, or reshape the input"
        )
    wanted: dict[str, tuple[int, ...]] = {
        "w_ih": (x.shape[2], gates * hidden), "w_hh": (hidden, gates * hidden),
        "b_ih": (gates * hidden,), "b_hh": (gates * hidden,), "lengths": (x.shape[0],),
        "peephole": (3 * hidden,), "h0": (x.shape[0], hidden), "c0": (x.shape[0], hidden),
    }  # fmt: skip
    _check_shapes(inputs, wanted, scope, op)
    return x.shape[0], x.shape[1], hidden


def _check_shapes(
    inputs: dict[str, Value], wanted: dict[str, tuple[int, ...]], scope: str, op: str
) -> None:
    for name, shape in wanted.items():
        value = inputs.get(name)
        if value is not None and value.shape != shape:
            raise ShapeError(
                f"{where(scope)}{op}: expected {name} of shape {shape}, got {value.shape}"
            )
    lengths = inputs.get("lengths")
    if lengths is not None and lengths.dtype != "i":
        raise ShapeError(
            f"{where(scope)}{op}: expected integer lengths, got floating-point ones; convert them "
            "with astype(np.int64)"
        )


# ---------------------------------------------------------------- simple recurrent nets

ACTIVATIONS = ("tanh", "relu", "sigmoid")
_CELL = ("x", "lengths", "w_ih", "w_hh", "b_ih", "b_hh", "h0")
_TRAINED = ("x", "w_ih", "w_hh", "b_ih", "b_hh", "h0")


def _rnn_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    batch, steps, hidden = _check(inputs, 1, scope, "rnn")
    return {"y": ((batch, steps, hidden), "f"), "h_n": ((batch, hidden), "f")}


register(
    Op(
        "rnn", inputs=_CELL, outputs=("y", "h_n"), returns=("y", "h_n"),
        defaults={"activation": 0, "reverse": 0, "bptt": 0}, shape=_rnn_shape,
        differentiable=_TRAINED,
    )
)  # fmt: skip


# ---------------------------------------------------------------- LSTM


def _lstm_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    batch, steps, hidden = _check(inputs, 4, scope, "lstm")
    state = ((batch, hidden), "f")
    return {
        "y": ((batch, steps, hidden), "f"), "h_n": state, "c_n": state,
    }  # fmt: skip


register(
    Op(
        "lstm", inputs=("x", "lengths", "w_ih", "w_hh", "b_ih", "b_hh", "peephole", "h0", "c0"),
        outputs=("y", "h_n", "c_n"), returns=("y", "h_n", "c_n"),
        defaults={"reverse": 0, "bptt": 0}, shape=_lstm_shape,
        differentiable=(*_TRAINED, "peephole", "c0"),
    )
)  # fmt: skip


# ---------------------------------------------------------------- GRU


def _gru_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    batch, steps, hidden = _check(inputs, 3, scope, "gru")
    return {"y": ((batch, steps, hidden), "f"), "h_n": ((batch, hidden), "f")}


register(
    Op(
        "gru", inputs=_CELL, outputs=("y", "h_n"), returns=("y", "h_n"),
        defaults={"reset_before": 0, "reverse": 0, "bptt": 0}, shape=_gru_shape,
        differentiable=_TRAINED,
    )
)  # fmt: skip


# ---------------------------------------------------------------- leaky sums


def _leaky_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x = inputs["x"]
    if x.ndim != 3:
        raise ShapeError(f"{where(scope)}leaky: expected (batch, steps, features), got {x.shape}")
    state = (x.shape[0], x.shape[2])
    _check_shapes(inputs, {"lengths": (x.shape[0],), "h0": state}, scope, "leaky")
    return {"y": (x.shape, "f"), "h_n": (state, "f")}


register(
    Op(
        "leaky", inputs=("x", "lengths", "h0"), outputs=("y", "h_n"), returns=("y", "h_n"),
        defaults={"keep": 0.95, "reverse": 0, "bptt": 0}, shape=_leaky_shape,
        differentiable=("x", "h0"),
    )
)  # fmt: skip


# ---------------------------------------------------------------- time first


def _swap_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x = inputs["x"]
    if x.ndim != 3:
        raise ShapeError(f"{where(scope)}swap_time: expected three dimensions, got {x.shape}")
    return {"y": ((x.shape[1], x.shape[0], x.shape[2]), "f")}


def _swap_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    return {"x": graph.apply("swap_time", x=douts["y"])}


register(Op("swap_time", shape=_swap_shape, gradient=_swap_gradient))
