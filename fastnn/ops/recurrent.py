"""Recurrent nets over whole sequences: one fused op for each cell.

All take x (B, T, I), optional lengths (B,), initial states (B, H), weights [I, G] and [H, G] with
G = gates * H, and return y (B, T, H), zero past the end, and the final states. The backward kernel
of a cell writes the gradients of the gates, `dz`, of all steps; gradients to x and to the weights
are products with those.
"""

from __future__ import annotations

from typing import Any

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.op import Op, register
from fastnn.graph.value import Value
from fastnn.ops.operands import as_value, float_value, graph_of, unary


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


# ---------------------------------------------------------------- functions


def _sequence(
    name: str, x: Any, lengths: Any, states: dict[str, Any], weights: dict[str, Any], **attrs: Any
) -> Any:
    graph = graph_of(x)
    given = {**states, **weights}
    values = {n: None if v is None else as_value(graph, v) for n, v in given.items()}
    x = float_value(x, name)
    if isinstance(lengths, Value):
        graph.limit(lengths, 0, x.shape[1] + 1, steps=True)
    return graph.apply(name, x=x, lengths=lengths, **values, **attrs)


def rnn(
    x: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None, h0: Any = None,
    lengths: Any = None, *, activation: str = "tanh", reverse: bool = False, bptt: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    """A simple recurrent net: h' = f(x W_ih + b_ih + h W_hh + b_hh) (Elman 1990).

    Args:
        x: shape (B, T, I).
        w_ih, w_hh: parameters of PyTorch's shapes (H, I) and (H, H), kept transposed.
        b_ih, b_hh: shape (H,), or None.
        h0: the state before the first step, shape (B, H); zeros if None.
        lengths: valid steps of each sequence, integers of shape (B,); all T if None.
        activation: "tanh", "relu" or "sigmoid".
        reverse: from each sequence's last valid step to its first.
        bptt: gradients through time stop at steps that are multiples of it; 0: never.

    Returns:
        The outputs of all steps, (B, T, H), zero past the end, and the last state, (B, H).
    """
    if activation not in ACTIVATIONS:
        raise OptionError(f"rnn: expected activation one of {ACTIVATIONS}, got {activation!r}")
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    result: tuple[Value, Value] = _sequence(
        "rnn", x, lengths, {"h0": h0}, weights, activation=ACTIVATIONS.index(activation),
        reverse=int(reverse), bptt=int(bptt),
    )  # fmt: skip
    return result


def lstm(
    x: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None, h0: Any = None,
    c0: Any = None, lengths: Any = None, *, peephole: Any = None, reverse: bool = False,
    bptt: int = 0,
) -> tuple[Value, Value, Value]:  # fmt: skip
    """The LSTM (Hochreiter & Schmidhuber 1997), gates in PyTorch's order i, f, g, o.

    Args as for `rnn`, with weights of shapes (4H, I) and (4H, H), biases (4H,), the cells' first
    state `c0` (B, H), and `peephole` (3H,), the weights p_i, p_f, p_o (Gers et al. 2002), or None.

    Returns:
        The outputs of all steps, (B, T, H), zero past the end, and the last h and c, (B, H) each.
    """
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh, "peephole": peephole}
    result: tuple[Value, Value, Value] = _sequence(
        "lstm", x, lengths, {"h0": h0, "c0": c0}, weights, reverse=int(reverse), bptt=int(bptt)
    )
    return result


def gru(
    x: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None, h0: Any = None,
    lengths: Any = None, *, reset: str = "after", reverse: bool = False, bptt: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    """The GRU (Cho et al. 2014), gates in PyTorch's order r, z, n.

    Args as for `rnn`, with weights of shapes (3H, I) and (3H, H) and biases (3H,). `reset` says
    whether the reset gate is applied "after" the product with w_hh (PyTorch) or "before" it (as in
    the paper).

    Returns:
        The outputs of all steps, (B, T, H), zero past the end, and the last state, (B, H).
    """
    if reset not in ("after", "before"):
        raise OptionError(f"gru: expected reset 'after' or 'before', got {reset!r}")
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    result: tuple[Value, Value] = _sequence(
        "gru", x, lengths, {"h0": h0}, weights, reset_before=int(reset == "before"),
        reverse=int(reverse), bptt=int(bptt),
    )  # fmt: skip
    return result


def leaky(
    x: Any, keep: float = 0.95, h0: Any = None, lengths: Any = None, *, reverse: bool = False,
    bptt: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    """y_t = (1 - keep) x_t + keep y_(t-1) over the steps of (B, T, C): slow context units.

    Returns:
        The sums of all steps, (B, T, C), zero past the end, and the last one, (B, C).
    """
    result: tuple[Value, Value] = _sequence(
        "leaky", x, lengths, {"h0": h0}, {}, keep=float(keep), reverse=int(reverse), bptt=int(bptt)
    )
    return result


def swap_time(x: Any) -> Value:
    """(B, T, C) to (T, B, C) and back, a copy."""
    return unary("swap_time", x)
