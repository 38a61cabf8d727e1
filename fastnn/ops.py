"""Functions on symbolic values, for the `forward` of modules.

Operands may also be parameters, NumPy arrays (constants) and numbers. Shapes are checked here, when
the model is traced, with errors that name the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.graph import Graph, Range, Value
from fastnn.graph.op import lookup
from fastnn.nn.parameter import Parameter


def graph_of(*operands: Any) -> Graph:
    """The graph that the symbolic operands belong to."""
    for operand in operands:
        if isinstance(operand, Value):
            return operand.graph
    raise ShapeError(
        f"expected at least one symbolic value, got {[type(o).__name__ for o in operands]}; "
        "fastnn.ops are used inside a module's forward"
    )


def as_value(graph: Graph, operand: Any) -> Value:
    """A value for a symbolic value, a parameter, or an array (a constant)."""
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, Parameter):
        if operand.offset is None:
            raise ShapeError(
                f"parameter {operand.name or operand.shape} does not belong to the model that is "
                "traced; assign it (or the layer that has it) to an attribute of the model"
            )
        home = "params" if operand.trainable else "buffers"
        return graph.leaf(
            operand, operand.storage_shape, home, offset=operand.offset, name=operand.name
        )
    return graph.constant(np.asarray(operand, dtype=np.float64))


def _float(x: Any, op: str) -> Value:
    if not isinstance(x, Value):
        raise ShapeError(f"{op}: expected a symbolic value, got {type(x).__name__}")
    if x.dtype != "f":
        raise ShapeError(
            f"{where(x.graph.scope)}{op}: expected floating-point input, got integers; convert the "
            "data with x.astype(np.float32), or use nn.Embedding for ids"
        )
    return x


def _unary(name: str, x: Any, **attrs: Any) -> Value:
    result: Value = _float(x, name).graph.apply(name, x=x, **attrs)
    return result


def _untransposed(operand: Any, op: str) -> Any:
    if isinstance(operand, Parameter) and operand.transposed:
        raise ShapeError(
            f"{op}: parameter {operand.name!r} is kept transposed for matrix products; use it with "
            "ops.linear, or make it with transposed=False"
        )
    return operand


# ---------------------------------------------------------------- arithmetic


def _binary(name: str, a: Any, b: Any) -> Value:
    a, b = _untransposed(a, name), _untransposed(b, name)
    graph = graph_of(a, b)
    x, y = as_value(graph, a), as_value(graph, b)
    if name in ("add", "multiply") and x.size < y.size:
        x, y = y, x
    from fastnn.graph.ops.arithmetic import broadcast_kind

    kind = broadcast_kind(_float(x, name), _float(y, name), graph.scope)
    if kind == "same":
        result: Value = graph.apply(name, a=x, b=y)
    elif name in ("add", "multiply"):
        result = graph.apply(f"{name}_{kind}", a=x, b=y)
    elif name == "subtract":
        result = graph.apply(f"add_{kind}", a=x, b=negate(y))
    else:
        ones = graph.full(y.shape, 1.0, y.batched)
        result = graph.apply(f"multiply_{kind}", a=x, b=graph.apply("divide", a=ones, b=y))
    return result


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, np.number)) and not isinstance(x, bool)


def add(a: Any, b: Any) -> Value:
    """a + b. `b` may be a number, a row (trailing dimensions) or a column (last dimension 1)."""
    if _is_number(b):
        return affine(a, 1.0, float(b))
    return affine(b, 1.0, float(a)) if _is_number(a) else _binary("add", a, b)


def subtract(a: Any, b: Any) -> Value:
    """a - b, with the broadcasts of `add`."""
    return affine(a, 1.0, -float(b)) if _is_number(b) else _binary("subtract", a, b)


def multiply(a: Any, b: Any) -> Value:
    """a * b, element by element, with the broadcasts of `add`."""
    if _is_number(b):
        return affine(a, float(b), 0.0)
    return affine(b, float(a), 0.0) if _is_number(a) else _binary("multiply", a, b)


def divide(a: Any, b: Any) -> Value:
    """a / b, with the broadcasts of `add`."""
    return affine(a, 1.0 / float(b), 0.0) if _is_number(b) else _binary("divide", a, b)


def negate(x: Any) -> Value:
    """-x."""
    return _unary("negate", x)


def affine(x: Any, scale: float, shift: float) -> Value:
    """scale * x + shift for numbers `scale` and `shift`."""
    return _unary("affine", x, scale=float(scale), shift=float(shift))


def linear(x: Any, weight: Any, bias: Any = None) -> Value:
    """x @ w + bias.

    Args:
        x: shape (..., C).
        weight: a parameter of PyTorch's shape (K, C) kept transposed, or a value of shape (C, K).
        bias: shape (K,), or None.

    Returns:
        Shape (..., K).
    """
    graph = graph_of(x)
    if isinstance(weight, Parameter) and not weight.transposed:
        raise ShapeError(
            f"linear: parameter {weight.name!r} of shape {weight.shape} is not kept transposed; "
            "make it with Parameter((out, in), ..., transposed=True)"
        )
    b = None if bias is None else as_value(graph, bias)
    result: Value = graph.apply("linear", x=_float(x, "linear"), w=as_value(graph, weight), bias=b)
    return result


def embedding(ids: Any, table: Any, padding_index: int = -1) -> Value:
    """Rows of `table` (V, C) for integer `ids` of any shape; result (*ids.shape, C)."""
    graph = graph_of(ids)
    rows = as_value(graph, _untransposed(table, "embedding"))
    result: Value = graph.apply("embedding", ids=ids, table=rows, padding_index=padding_index)
    if ids.root.home == "input":
        graph.ranges.append(Range(ids.root, 0, rows.shape[0], graph.scope))
    return result


# ---------------------------------------------------------------- activations


def relu(x: Any) -> Value:
    """max(x, 0)."""
    return _unary("relu", x)


def leaky_relu(x: Any, slope: float = 0.01) -> Value:
    """x where positive, else slope * x."""
    return _unary("leaky_relu", x, slope=slope)


def prelu(x: Any, weight: Any) -> Value:
    """x where positive, else weight * x; `weight` has 1 or C elements."""
    graph = graph_of(x)
    result: Value = graph.apply("prelu", x=_float(x, "prelu"), weight=as_value(graph, weight))
    return result


def elu(x: Any, alpha: float = 1.0) -> Value:
    """x where positive, else alpha * (exp(x) - 1)."""
    return _unary("elu", x, alpha=alpha)


def selu(x: Any) -> Value:
    """Self-normalising ELU (Klambauer et al. 2017)."""
    return _unary("selu", x)


def gelu(x: Any, approximate: str = "none") -> Value:
    """x times the normal distribution function of x; `approximate="tanh"` for the tanh formula."""
    if approximate not in ("none", "tanh"):
        raise OptionError(f"gelu: expected approximate 'none' or 'tanh', got {approximate!r}")
    return _unary("gelu" if approximate == "none" else "gelu_tanh", x)


def silu(x: Any) -> Value:
    """x * sigmoid(x)."""
    return _unary("silu", x)


def sigmoid(x: Any) -> Value:
    """1 / (1 + exp(-x))."""
    return _unary("sigmoid", x)


def tanh(x: Any) -> Value:
    """Hyperbolic tangent."""
    return _unary("tanh", x)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """log(1 + exp(beta x)) / beta; x itself where beta * x > threshold."""
    return _unary("softplus", x, beta=beta, threshold=threshold)


def exp(x: Any) -> Value:
    """e to the power of x."""
    return _unary("exp", x)


def log(x: Any) -> Value:
    """Natural logarithm."""
    return _unary("log", x)


def sqrt(x: Any) -> Value:
    """Square root."""
    return _unary("sqrt", x)


def square(x: Any) -> Value:
    """x * x."""
    return _unary("square", x)


def absolute(x: Any) -> Value:
    """|x|."""
    return _unary("absolute", x)


def softmax(x: Any) -> Value:
    """Softmax over the last dimension."""
    return _unary("softmax", x)


def log_softmax(x: Any) -> Value:
    """Logarithm of the softmax over the last dimension."""
    return _unary("log_softmax", x)


def maxout(x: Any, pieces: int) -> Value:
    """Largest of `pieces` blocks of features: (..., pieces * C) to (..., C)."""
    return _unary("maxout", x, pieces=int(pieces))


# ---------------------------------------------------------------- shapes


def reshape(x: Any, *shape: Any) -> Value:
    """The same elements under another shape (batch included); one extent may be -1."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    result: Value = graph_of(x).apply("reshape", x=x, shape=tuple(int(n) for n in shape))
    return result


def flatten(x: Any, start: int = 1) -> Value:
    """Merge the dimensions from `start` on."""
    size = 1
    for extent in x.shape[start:]:
        size *= extent
    return reshape(x, *x.shape[:start], size)


def concatenate(*parts: Any) -> Value:
    """Join along the last dimension."""
    from fastnn.graph.ops.shape import concatenate as join

    if len(parts) == 1 and isinstance(parts[0], Sequence):
        parts = tuple(parts[0])
    graph = graph_of(*parts)
    lookup("reshape")
    return join(graph, [_float(as_value(graph, p), "concatenate") for p in parts])


def columns(x: Any, begin: int, end: int) -> Value:
    """Features begin..end (exclusive) of the last dimension."""
    return _unary("slice", x, offset=int(begin), width=int(end) - int(begin))


# ---------------------------------------------------------------- norms, random, reductions


def layer_norm(x: Any, gain: Any = None, bias: Any = None, eps: float = 1e-5) -> Value:
    """Each row to mean 0 and variance 1, then gain and bias (Ba, Kiros & Hinton 2016)."""
    graph = graph_of(x)
    g, b = (None if p is None else as_value(graph, p) for p in (gain, bias))
    result: Value = graph.apply("layer_norm", x=_float(x, "layer_norm"), gain=g, bias=b, eps=eps)
    return result


def batch_norm(
    x: Any, gain: Any, bias: Any, running_mean: Any, running_var: Any, eps: float = 1e-5,
    momentum: float = 0.1,
) -> Value:  # fmt: skip
    """Each feature to mean 0 and variance 1 over the batch (Ioffe & Szegedy 2015).

    In training the batch's statistics are used and the running ones updated; in evaluation the
    running ones are used.
    """
    graph = graph_of(x)
    inputs = {
        "x": _float(x, "batch_norm"), "gain": as_value(graph, gain), "bias": as_value(graph, bias),
        "running_mean": as_value(graph, running_mean),
        "running_var": as_value(graph, running_var),
    }  # fmt: skip
    if graph.training:
        result: Value = graph.apply("batch_norm", eps=eps, momentum=momentum, **inputs)
    else:
        result = graph.apply("batch_norm_inference", eps=eps, **inputs)
    return result


def dropout(x: Any, rate: float = 0.5, scale: float | None = None) -> Value:
    """Zero elements with probability `rate` and multiply the others by `scale` (1 / (1 - rate))."""
    graph = graph_of(x)
    keep = 1.0 - rate
    factor = (1.0 / keep if keep else 0.0) if scale is None else scale
    result: Value = graph.apply(
        "dropout", x=_float(x, "dropout"), keep=keep, scale=factor, stream=graph.stream()
    )
    return result


def mean(x: Any) -> Value:
    """The mean of all elements, a single number."""
    return _unary("mean", x)


def total(x: Any) -> Value:
    """The sum of all elements, a single number."""
    return _unary("total", x)


def sum_features(x: Any) -> Value:
    """Sum over the last dimension."""
    return _unary("sum_columns", x)


# ---------------------------------------------------------------- sequences


def _sequence(
    name: str, x: Any, lengths: Any, states: dict[str, Any], weights: dict[str, Any], **attrs: Any
) -> Any:
    graph = graph_of(x)
    given = {**states, **weights}
    values = {n: None if v is None else as_value(graph, v) for n, v in given.items()}
    x = _float(x, name)
    if isinstance(lengths, Value) and lengths.root.home == "input":
        graph.ranges.append(Range(lengths.root, 0, x.shape[1] + 1, graph.scope))
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
    return _unary("swap_time", x)


def load_state(x: Any, buffer: Parameter) -> Value:
    """A copy of a buffer's rows, one for each sequence of `x`, as they are before the step."""
    graph = graph_of(x)
    value = graph.value(buffer.shape, name=f"before {buffer.name}")
    value.batched = x.batched
    graph.call("affine", x=as_value(graph, buffer), y=value, scale=1.0, shift=0.0)
    return value


def store_state(value: Any, buffer: Parameter) -> None:
    """Set a buffer's rows to `value`, for the next step."""
    graph = graph_of(value)
    graph.call("affine", x=value, y=as_value(graph, buffer), scale=1.0, shift=0.0)


# ---------------------------------------------------------------- loops


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
            column = reshape(mask, mask.shape[0], 1)
            outputs = [multiply(output, column) for output in outputs]
            fresh = [
                add(before, multiply(subtract(after, before), column))
                for before, after in zip(old, fresh, strict=True)
            ]
        return outputs, fresh

    inputs = [*xs]
    if lengths is not None:
        mask = graph.value((xs[0].shape[0], xs[0].shape[1]), batched=True, name="mask")
        graph.call("length_mask", lengths=lengths, y=mask)
        inputs.append(mask)
    outputs, finals = make(graph, step, inputs, [as_value(graph, s) for s in states])
    y_all = tuple(outputs) if several["y"] else outputs[0]
    return y_all, tuple(finals) if isinstance(state, tuple) else finals[0]
