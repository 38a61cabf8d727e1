"""Recurrent nets over whole sequences, states, and the loop."""

from __future__ import annotations

from typing import Any

from fastnn.errors import OptionError
from fastnn.graph.graph import Value
from fastnn.graph.leaf import Leaf
from fastnn.ops.arithmetic import where
from fastnn.ops.operands import as_value, float_value, graph_of, unary
from fastnn.ops.shape import reshape


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
    from fastnn.graph.ops.recurrent import ACTIVATIONS

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


def load_state(x: Any, buffer: Leaf) -> Value:
    """A copy of a buffer's rows, one for each sequence of `x`, as they are before the step."""
    graph = graph_of(x)
    value = graph.value(buffer.shape, name=f"before {buffer.name}")
    value.batched = x.batched
    graph.call("affine", x=as_value(graph, buffer), y=value, scale=1.0, shift=0.0)
    return value


def store_state(value: Any, buffer: Leaf) -> None:
    """Set a buffer's rows to `value`, for the next step."""
    graph = graph_of(value)
    graph.call("affine", x=value, y=as_value(graph, buffer), scale=1.0, shift=0.0)


def zeros_state(x: Any, size: int) -> Value:
    """A state of zeros for each sample of the batch: shape (batch, size)."""
    return graph_of(x).full((x.shape[0], int(size)), 0.0, batched=True)


def loop(body: Any, sequences: Any, state: Any, lengths: Any = None) -> tuple[Any, Any]:
    """Repeat a body over time, with gradient through it: a recurrent net of your own.

    Args:
        body: function of (x_t, state) returning (y_t, new state): the inputs of one step, shape
            (batch, ...), and the carried state; tuples where there are several.
        sequences: shape (batch, steps, ...), or a tuple of such.
        state: the initial state, shape (batch, ...), or a tuple of such (see `zeros_state`).
        lengths: number of valid steps of each sequence, integers of shape (batch,), or None. Past
            the end the state stays as it is and outputs are 0.

    Returns:
        Outputs of all steps, shape (batch, steps, ...), and the final state.

    >>> from fastnn import nn, ops
    >>> class Elman(nn.Module):
    ...     def __init__(self, features, hidden):
    ...         self.hidden, self.mix = hidden, nn.Linear(features + hidden, hidden)
    ...     def forward(self, x):
    ...         def step(x_t, h):
    ...             h = ops.tanh(self.mix(ops.concatenate(x_t, h)))
    ...             return h, h
    ...         outputs, last = ops.loop(step, x, ops.zeros_state(x, self.hidden))
    ...         return last
    """
    from fastnn.graph.loop import loop as make

    xs = sequences if isinstance(sequences, tuple) else (sequences,)
    states = state if isinstance(state, tuple) else (state,)
    graph = graph_of(*xs)
    several: dict[str, bool] = {}

    def step(*parts: Value) -> tuple[list[Value], list[Value]]:
        mask = parts[len(xs)] if lengths is not None else None
        step_xs, old = parts[: len(xs)], parts[len(parts) - len(states) :]
        y, new = body(
            step_xs if isinstance(sequences, tuple) else step_xs[0],
            old if isinstance(state, tuple) else old[0],
        )
        several["y"] = isinstance(y, tuple)
        outputs = list(y) if isinstance(y, tuple) else [y]
        fresh = list(new) if isinstance(new, tuple) else [new]
        if mask is not None:
            outputs = [_within(mask, output, 0.0) for output in outputs]
            fresh = [_within(mask, after, before) for before, after in zip(old, fresh, strict=True)]
        return outputs, fresh

    inputs = [*xs]
    if lengths is not None:
        if isinstance(lengths, Value):
            graph.limit(lengths, 0, xs[0].shape[1] + 1, steps=True)
        mask = graph.value((xs[0].shape[0], xs[0].shape[1]), batched=True, name="mask")
        graph.call("length_mask", lengths=lengths, y=mask)
        # what stands past the end, be it NaN, reaches neither the states nor a gradient
        inputs = [_within(mask, x, 0.0) if x.dtype == "f" else x for x in inputs]
        inputs.append(mask)
    outputs, finals = make(graph, step, inputs, [as_value(graph, s) for s in states])
    y_all = tuple(outputs) if several["y"] else outputs[0]
    return y_all, tuple(finals) if isinstance(state, tuple) else finals[0]


def _within(mask: Value, value: Value, otherwise: Any) -> Value:
    """The value where the mask, of the leading dimensions, holds; `otherwise` elsewhere."""
    return where(reshape(mask, *mask.shape, *(1,) * (value.ndim - mask.ndim)), value, otherwise)
