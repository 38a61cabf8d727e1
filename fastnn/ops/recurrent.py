"""Recurrent nets over whole sequences: one fused op for each cell.

All take x (B, T, I), optional lengths (B,), initial states (B, H), weights [I, G] and [H, G] with
G = gates * H, and return y (B, T, H), zero past the end, and the final states. The backward kernel
of a cell writes the gradients of the gates, `dz`, of all steps; gradients to x and to the weights
are products with those.

A second gradient or a tangent of a fused net is that of a loop of its steps (`_<cell>_steps`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.graph import Graph
from fastnn.graph.loop_again import loop
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.kernels.rnn.shared import ACTIVATIONS
from fastnn.ops.activation import relu, sigmoid, tanh
from fastnn.ops.arithmetic import detach
from fastnn.ops.arithmetic import where as choose
from fastnn.ops.declare import Operand, floats, like, op, outputs
from fastnn.ops.indexing import columns
from fastnn.ops.lengths import checked_lengths, valid_steps
from fastnn.ops.operands import as_value, float_value, graph_of
from fastnn.ops.shape import reshape
from fastnn.public import publish

#: of (the gates' part from the input, the states before): the states after
Cell = Callable[[Value, list[Value]], list[Value]]


def _check(
    op: str, gates: int, x: Value, w_ih: Value, w_hh: Value, **more: Value | None
) -> tuple[int, int, int]:
    """B, T and H of a cell's inputs, whose shapes have to fit."""
    hidden = w_hh.shape[0]
    if x.ndim != 3 or x.shape[2] != w_ih.shape[0]:
        raise ShapeError(
            f"{where(x.graph.scope)}{op}: expected input of shape (batch, steps, {w_ih.shape[0]}), "
            f"got {x.shape}; set input_size to {x.shape[-1]}, or reshape the input"
        )
    wanted: dict[str, tuple[int, ...]] = {
        "w_ih": (x.shape[2], gates * hidden), "w_hh": (hidden, gates * hidden),
        "b_ih": (gates * hidden,), "b_hh": (gates * hidden,), "lengths": (x.shape[0],),
        "peephole": (3 * hidden,), "h0": (x.shape[0], hidden), "c0": (x.shape[0], hidden),
    }  # fmt: skip
    _check_shapes(op, {"w_ih": w_ih, "w_hh": w_hh, **more}, wanted)
    return x.shape[0], x.shape[1], hidden


def _check_shapes(
    op: str, inputs: dict[str, Value | None], wanted: dict[str, tuple[int, ...]]
) -> None:
    for name, shape in wanted.items():
        value = inputs.get(name)
        if value is not None and value.shape != shape:
            raise ShapeError(
                f"{where(value.graph.scope)}{op}: expected {name} of shape {shape}, got "
                f"{value.shape}"
            )


def _sequence(
    apply: Any, x: Any, lengths: Any, states: dict[str, Any], weights: dict[str, Any], **attrs: Any
) -> Any:
    """Apply a net's op to operands of any kind."""
    graph = graph_of(x)
    given = {**states, **weights}
    values = {n: None if v is None else as_value(graph, v) for n, v in given.items()}
    name = apply.__name__.removeprefix("_")
    x = float_value(x, name)
    if x.ndim == 3:  # else the op says so
        lengths = checked_lengths(graph, lengths, x.shape[0], x.shape[1], name)
    return apply(x=x, lengths=lengths, **values, **attrs)


def _steps(
    net: str, cell: Cell, x: Value, lengths: Value | None, w: Value, bias: Value | None, size: int,
    initial: list[Value | None], reverse: int, bptt: int,
) -> tuple[Value, ...]:  # fmt: skip
    """All steps of a cell that takes x w + bias and the states; a sequence's states stay as they
    are past its end, and its outputs are 0."""
    z = _product(x, w, bias)
    batch, steps, _ = z.shape
    if bptt and reverse and lengths is not None:
        raise ShapeError(
            f"{where(z.graph.scope)}{net}: expected no lengths for a second gradient of a net that "
            "runs backwards with bptt; leave one of the three out"
        )
    graph, xs = z.graph, [z]
    states = [graph.full((batch, size), 0.0, batched=True) if v is None else v for v in initial]
    if lengths is not None:
        xs.append(valid_steps(lengths, steps))
    if bptt:
        turns = np.arange(steps)[::-1] if reverse else np.arange(steps)
        cut = np.broadcast_to(turns % bptt == 0, (batch, steps))
        xs.append(graph.constant(cut.astype(float), name="cuts"))
        xs[-1].batched = True

    def step(z_t: Value, *more: Value) -> tuple[list[Value], list[Value]]:
        masks, before = more[: len(xs) - 1], list(more[len(xs) - 1 :])
        marks, carried = [reshape(mask, (-1, 1)) for mask in masks], before
        if bptt:
            carried = [choose(marks[-1], detach(state), state) for state in before]
        after = cell(z_t, carried)
        y = after[0]
        if lengths is not None:
            y = choose(marks[0], y, np.zeros((1, 1)))
            after = [choose(marks[0], a, b) for a, b in zip(after, before, strict=True)]
        return [y], after

    (ys,), finals = loop(graph, step, xs, states, reverse=bool(reverse))
    return ys, *finals


def _product(x: Value, w: Value, bias: Value | None) -> Value:
    result: Value = x.graph.apply("linear", x=x, w=w, bias=bias)
    return result


def _gates(z: Value, count: int) -> list[Value]:
    size = z.shape[-1] // count
    return [columns(z, k * size, (k + 1) * size) for k in range(count)]


# ---------------------------------------------------------------- simple recurrent nets

_TRAINED = ("x", "w_ih", "w_hh", "b_ih", "b_hh", "h0")


def _rnn_steps(
    x: Value, lengths: Value | None, w_ih: Value, w_hh: Value, b_ih: Value | None,
    b_hh: Value | None, h0: Value | None, activation: int, reverse: int, bptt: int,
) -> tuple[Value, ...]:  # fmt: skip
    """A simple recurrent net in other ops."""
    function = (tanh, relu, sigmoid)[activation]

    def cell(z: Value, states: list[Value]) -> list[Value]:
        return [function(z + _product(states[0], w_hh, b_hh))]

    return _steps("rnn", cell, x, lengths, w_ih, b_ih, w_hh.shape[0], [h0], reverse, bptt)


@op(returns=("y", "h_n"), differentiable=_TRAINED, expression=_rnn_steps)
def _rnn(
    x: Value, lengths: Value | None, w_ih: Value, w_hh: Value, b_ih: Value | None,
    b_hh: Value | None, h0: Value | None, activation: int = 0, reverse: int = 0, bptt: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    batch, steps, hidden = _check(
        "rnn", 1, x, w_ih, w_hh, b_ih=b_ih, b_hh=b_hh, lengths=lengths, h0=h0
    )
    return outputs(y=floats(batch, steps, hidden), h_n=floats(batch, hidden))


def rnn(
    x: Operand, w_ih: Operand, w_hh: Operand, b_ih: Operand = None, b_hh: Operand = None,
    h0: Operand = None, lengths: Any = None, *, activation: str = "tanh", reverse: bool = False,
    bptt: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    """A simple recurrent net: h' = f(x W_ih + b_ih + h W_hh + b_hh) (Elman 1990).

    Args:
        x: shape (B, T, I).
        w_ih, w_hh: parameters of PyTorch's shapes (H, I) and (H, H), kept transposed.
        b_ih, b_hh: shape (H,), or None.
        h0: initial state, shape (B, H); zeros if None.
        lengths: valid steps of each sequence, integers of shape (B,); all T if None.
        activation: "tanh", "relu" or "sigmoid".
        reverse: from each sequence's last valid step to its first.
        bptt: gradients through time stop at steps that are multiples of it; 0 means never.

    Returns:
        The outputs of all steps, (B, T, H), zero past the end, and the last state, (B, H).

    Raises OptionError for another activation; ShapeError for weights, states or lengths that do not
    fit x.

    >>> w_ih, w_hh = np.ones((3, 4)), np.ones((4, 4))
    >>> [y.shape for y in testing.apply(lambda x: ops.rnn(x, w_ih, w_hh), np.ones((2, 5, 3)))]
    [(2, 5, 4), (2, 4)]
    """
    if activation not in ACTIVATIONS:
        raise OptionError(
            f"rnn: expected activation one of {tuple(ACTIVATIONS)}, got {activation!r}"
        )
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    result: tuple[Value, Value] = _sequence(
        _rnn, x, lengths, {"h0": h0}, weights, activation=ACTIVATIONS[activation],
        reverse=int(reverse), bptt=int(bptt),
    )  # fmt: skip
    return result


# ---------------------------------------------------------------- LSTM


def _lstm_steps(
    x: Value, lengths: Value | None, w_ih: Value, w_hh: Value, b_ih: Value | None,
    b_hh: Value | None, peephole: Value | None, h0: Value | None, c0: Value | None, reverse: int,
    bptt: int,
) -> tuple[Value, ...]:  # fmt: skip
    """The LSTM in other ops."""

    def cell(z: Value, states: list[Value]) -> list[Value]:
        h, c = states
        i, f, g, o = _gates(z + _product(h, w_hh, b_hh), 4)
        if peephole is not None:
            p_i, p_f, p_o = _gates(reshape(peephole, (1, -1)), 3)
            i, f = i + p_i * c, f + p_f * c
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        if peephole is not None:
            o = o + p_o * c
        return [sigmoid(o) * tanh(c), c]

    return _steps("lstm", cell, x, lengths, w_ih, b_ih, w_hh.shape[0], [h0, c0], reverse, bptt)


@op(
    returns=("y", "h_n", "c_n"), differentiable=(*_TRAINED, "peephole", "c0"),
    expression=_lstm_steps,
)  # fmt: skip
def _lstm(
    x: Value, lengths: Value | None, w_ih: Value, w_hh: Value, b_ih: Value | None,
    b_hh: Value | None, peephole: Value | None, h0: Value | None, c0: Value | None,
    reverse: int = 0, bptt: int = 0,
) -> tuple[Value, Value, Value]:  # fmt: skip
    batch, steps, hidden = _check(
        "lstm", 4, x, w_ih, w_hh, b_ih=b_ih, b_hh=b_hh, peephole=peephole, lengths=lengths, h0=h0,
        c0=c0,
    )  # fmt: skip
    state = floats(batch, hidden)
    return outputs(y=floats(batch, steps, hidden), h_n=state, c_n=state)


def lstm(
    x: Operand, w_ih: Operand, w_hh: Operand, b_ih: Operand = None, b_hh: Operand = None,
    h0: Operand = None, c0: Operand = None, lengths: Any = None, *, peephole: Operand = None,
    reverse: bool = False, bptt: int = 0,
) -> tuple[Value, Value, Value]:  # fmt: skip
    """The LSTM (Hochreiter & Schmidhuber 1997), gates in PyTorch's order i, f, g, o.

    Args as for `rnn`, with weights of shapes (4H, I) and (4H, H), biases (4H,), the cells' first
    state `c0` (B, H), and `peephole` (3H,), the weights p_i, p_f, p_o (Gers et al. 2002), or None.

    Returns:
        The outputs of all steps, (B, T, H), zero past the end, and the last h and c, (B, H) each.

    Raises ShapeError for weights, states or lengths that do not fit x.

    >>> w_ih, w_hh = np.ones((3, 16)), np.ones((4, 16))
    >>> [y.shape for y in testing.apply(lambda x: ops.lstm(x, w_ih, w_hh), np.ones((2, 5, 3)))]
    [(2, 5, 4), (2, 4), (2, 4)]
    """
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh, "peephole": peephole}
    result: tuple[Value, Value, Value] = _sequence(
        _lstm, x, lengths, {"h0": h0, "c0": c0}, weights, reverse=int(reverse), bptt=int(bptt)
    )
    return result


# ---------------------------------------------------------------- GRU


def _gru_steps(
    x: Value, lengths: Value | None, w_ih: Value, w_hh: Value, b_ih: Value | None,
    b_hh: Value | None, h0: Value | None, reset_before: int, reverse: int, bptt: int,
) -> tuple[Value, ...]:  # fmt: skip
    """The GRU in other ops."""

    def cell(z: Value, states: list[Value]) -> list[Value]:
        h = states[0]
        z_r, z_z, z_n = _gates(z, 3)
        h_r, h_z, h_n = _gates(_product(h, w_hh, b_hh), 3)
        r, gate = sigmoid(z_r + h_r), sigmoid(z_z + h_z)
        if reset_before:
            h_n = _gates(_product(r * h, w_hh, b_hh), 3)[2]
            new = tanh(z_n + h_n)
        else:
            new = tanh(z_n + r * h_n)
        return [(1.0 - gate) * new + gate * h]

    return _steps("gru", cell, x, lengths, w_ih, b_ih, w_hh.shape[0], [h0], reverse, bptt)


@op(returns=("y", "h_n"), differentiable=_TRAINED, expression=_gru_steps)
def _gru(
    x: Value, lengths: Value | None, w_ih: Value, w_hh: Value, b_ih: Value | None,
    b_hh: Value | None, h0: Value | None, reset_before: int = 0, reverse: int = 0, bptt: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    batch, steps, hidden = _check(
        "gru", 3, x, w_ih, w_hh, b_ih=b_ih, b_hh=b_hh, lengths=lengths, h0=h0
    )
    return outputs(y=floats(batch, steps, hidden), h_n=floats(batch, hidden))


def gru(
    x: Operand, w_ih: Operand, w_hh: Operand, b_ih: Operand = None, b_hh: Operand = None,
    h0: Operand = None, lengths: Any = None, *, reset: str = "after", reverse: bool = False,
    bptt: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    """The GRU (Cho et al. 2014), gates in PyTorch's order r, z, n.

    Args as for `rnn`, with weights of shapes (3H, I) and (3H, H) and biases (3H,). `reset` says
    whether the reset gate is applied "after" the product with w_hh (PyTorch) or "before" it (as in
    the paper).

    Returns:
        The outputs of all steps, (B, T, H), zero past the end, and the last state, (B, H).

    Raises OptionError for another `reset`; ShapeError for weights, states or lengths that do not
    fit x.

    >>> w_ih, w_hh = np.ones((3, 12)), np.ones((4, 12))
    >>> [y.shape for y in testing.apply(lambda x: ops.gru(x, w_ih, w_hh), np.ones((2, 5, 3)))]
    [(2, 5, 4), (2, 4)]
    """
    if reset not in ("after", "before"):
        raise OptionError(f"gru: expected reset 'after' or 'before', got {reset!r}")
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    result: tuple[Value, Value] = _sequence(
        _gru, x, lengths, {"h0": h0}, weights, reset_before=int(reset == "before"),
        reverse=int(reverse), bptt=int(bptt),
    )  # fmt: skip
    return result


# ---------------------------------------------------------------- leaky sums


@op(returns=("y", "h_n"), differentiable=("x", "h0"), linear=("x", "h0"))
def _leaky(
    x: Value, lengths: Value | None, h0: Value | None, keep: float = 0.95, reverse: int = 0,
    bptt: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    if x.ndim != 3:
        raise ShapeError(
            f"{where(x.graph.scope)}leaky: expected (batch, steps, features), got {x.shape}"
        )
    state = (x.shape[0], x.shape[2])
    _check_shapes("leaky", {"lengths": lengths, "h0": h0}, {"lengths": state[:1], "h0": state})
    return outputs(y=like(x), h_n=floats(*state))


def leaky(
    x: Operand, keep: float = 0.95, h0: Operand = None, lengths: Any = None, *,
    reverse: bool = False, bptt: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    """y_t = (1 - keep) x_t + keep y_(t-1) over the steps of (B, T, C): slow context units.

    Begins with `h0`, or zeros; `lengths`, `reverse` and `bptt` as of `rnn`.

    Returns:
        The sums of all steps, (B, T, C), zero past the end, and the last one, (B, C).

    Raises ShapeError for states or lengths that do not fit x.

    >>> testing.apply(lambda x: ops.leaky(x, keep=0.5)[0], [[[1.0], [0.0], [0.0]]])
    array([[[0.5  ],
            [0.25 ],
            [0.125]]])
    """
    result: tuple[Value, Value] = _sequence(
        _leaky, x, lengths, {"h0": h0}, {}, keep=float(keep), reverse=int(reverse), bptt=int(bptt)
    )
    return result


# ---------------------------------------------------------------- time first


def _swap_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    return {"x": graph.apply("swap_time", x=douts["y"])}


@op(gradient=_swap_gradient)
def swap_time(x: Operand) -> Value:
    """(B, T, C) to (T, B, C) and back, a copy.

    Raises ShapeError for another number of dimensions.

    >>> testing.apply(lambda x: ops.swap_time(ops.swap_time(x)), np.ones((2, 5, 3))).shape
    (2, 5, 3)
    """
    if x.ndim != 3:
        raise ShapeError(
            f"{where(x.graph.scope)}swap_time: expected three dimensions, got {x.shape}"
        )
    return floats(x.shape[1], x.shape[0], x.shape[2])


publish(globals(), FunctionType)
