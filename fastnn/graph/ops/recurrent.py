"""Recurrent nets over whole sequences: one fused op for each cell.

All take x (B, T, I), optional lengths (B,), initial states (B, H), weights [I, G] and [H, G] with
G = gates * H, and return y (B, T, H), zero past the end, and the final states. The backward kernel
of a cell writes the gradients of the gates, `dz`, of all steps; gradients to x and to the weights
are products with those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import GradientRule, Op, register
from fastnn.graph.ops.linear import packed
from fastnn.kernels.gru import cpu as gru
from fastnn.kernels.lstm import cpu as lstm
from fastnn.kernels.recurrent.cpu import GRADIENT_SCRATCH, padded
from fastnn.kernels.rnn import cpu as rnn

#: batches up to this size use the weights as they are
PLAIN_BATCH = 4


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


def _kept(inputs: dict[str, Value], size: int) -> int:
    """The stride of saved rows of this size."""
    return padded(size) if inputs["x"].graph.device == "cpu" else size


def _by_device(lower: Callable[[Graph, Node], None]) -> Callable[[Graph, Node], None]:
    """`lower` on the CPU, on CUDA the calls for it."""

    def emit(graph: Graph, node: Node) -> None:
        if graph.device == "cuda":
            from fastnn.graph.ops import recurrent_cuda

            recurrent_cuda.forward(graph, node)
        else:
            lower(graph, node)

    return emit


def _gradient_by_device(gradient: GradientRule) -> GradientRule:
    """`gradient` on the CPU, on CUDA the calls for it."""

    def emit(
        graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
    ) -> dict[str, Value]:
        if graph.device == "cuda":
            from fastnn.graph.ops import recurrent_cuda

            return recurrent_cuda.gradient(graph, node, douts, needed)
        return gradient(graph, node, douts, needed)

    return emit


def _turned(graph: Graph, w: Value, batch: int) -> Value:
    """The transposed matrix for a backward kernel: packed, or plain for few sequences."""
    if batch > PLAIN_BATCH:
        return packed(graph, w, transposed=True)
    key = ("turned", w)
    if key not in graph.leaves:
        graph.leaves[key] = graph.value(w.shape[::-1], name=f"turned {w.name}")
        graph.call("turn_over", w=w, turned=graph.leaves[key])
    return graph.leaves[key]


def _rows(graph: Graph, node: Node, size: int, dtype: str = "f") -> Value:
    """A buffer with so many elements for each sequence."""
    batch = _need(node, "x").shape[0]
    return graph.value((batch, size) if dtype == "f" else (batch,), dtype)


def _need(node: Node, name: str) -> Value:
    value = node.inputs[name]
    assert value is not None
    return value


def _forward(graph: Graph, node: Node, kernel: str, scratch: int) -> None:
    """Call a cell's forward kernel with its weights packed, where that pays."""
    use_packed = _need(node, "x").shape[0] > PLAIN_BATCH
    weights = {name: _need(node, name) for name in ("w_ih", "w_hh")}
    if use_packed:
        weights = {name: packed(graph, w, transposed=False) for name, w in weights.items()}
    extra = {
        **weights, "packed": int(use_packed), "scratch": _rows(graph, node, scratch),
        "order": _rows(graph, node, 1, "i"),
    }  # fmt: skip
    graph.call_for(kernel, node, extra)


def _backward(
    graph: Graph,
    node: Node,
    kernel: str,
    douts: dict[str, Value],
    sizes: dict[str, int],
) -> dict[str, Value]:
    """Call a cell's backward kernel; returns what it writes. `sizes` gives the rows' lengths."""
    written = {name: _rows(graph, node, size) for name, size in sizes.items()}
    incoming = {f"d{name}": douts.get(name) for name in node.op.returns}
    absent = {"dpeephole": None}
    extra = {
        **absent, **incoming, **written, "order": _rows(graph, node, 1, "i"),
        "w_turned": _turned(graph, _need(node, "w_hh"), _need(node, "x").shape[0]),
        "steps": _need(node, "x").shape[1],
    }  # fmt: skip
    graph.call_for(kernel, node, extra)
    return written


def _gradients(
    graph: Graph,
    node: Node,
    needed: set[str],
    written: dict[str, Value],
    step: int,
    recurrent: Sequence[dict[str, Any]],
    biases: tuple[str, str],
) -> dict[str, Value]:
    """Gradients to the input, to weights, biases and initial states from a cell's `dz`.

    `step` is the size of a step in dz; `recurrent` says for groups of columns of w_hh what they
    were multiplied with; `biases` names the written sums for b_ih and b_hh.
    """
    x, dz = _need(node, "x"), written["dz"]
    batch, steps, inputs = x.shape
    gates = _need(node, "w_ih").shape[1]
    found: dict[str, Value] = {}
    for name in {"h0", "c0"} & needed:
        found[name] = written[f"d{name}"]
    if "x" in needed:
        found["x"] = graph.value(x.shape)
        turned = packed(graph, _need(node, "w_ih"), transposed=True)
        more = {"w_turned": turned, "dx": found["x"], "step": step, "gates": gates}
        graph.call_for("sequence_backward_input", node, {"dz": dz, **more})
    common = {"dz": dz, "dz_step": step, "steps": steps}
    if "w_ih" in needed:
        found["w_ih"] = graph.value(_need(node, "w_ih").shape)
        scratch = graph.value((inputs, GRADIENT_SCRATCH))
        graph.call_for(
            "sequence_backward_weight", node,
            {
                "x": graph.view(x, (batch, steps * inputs)), "x_step": inputs, "x_first": 0,
                "before": None, "dw": found["w_ih"], "scratch": scratch, "dz_first": 0,
                "column": 0, "columns": gates, "shift": 0, **common,
            },
        )  # fmt: skip
    if "w_hh" in needed:
        found["w_hh"] = graph.value(_need(node, "w_hh").shape)
        scratch = graph.value((found["w_hh"].shape[0], GRADIENT_SCRATCH))
        for part in recurrent:
            graph.call_for(
                "sequence_backward_weight",
                node,
                {"dw": found["w_hh"], "scratch": scratch, **common, **part},
            )
    for name, source in zip(("b_ih", "b_hh"), biases, strict=True):
        if name in needed:
            found[name] = graph.value(_need(node, name).shape)
            graph.call_for("sum_rows", node, {"x": written[source], "y": found[name]})
    return found


def _from_outputs(graph: Graph, node: Node, columns: int) -> dict[str, Any]:
    """The first columns of w_hh: multiplied with the output of the turn before."""
    y = node.outputs["y"]
    batch, steps, hidden = y.shape
    return {
        "x": graph.view(y, (batch, steps * hidden)), "x_step": hidden, "x_first": 0,
        "before": node.inputs["h0"], "dz_first": 0, "column": 0, "columns": columns, "shift": 1,
    }  # fmt: skip


# ---------------------------------------------------------------- simple recurrent nets

ACTIVATIONS = ("tanh", "relu", "sigmoid")
_CELL = ("x", "lengths", "w_ih", "w_hh", "b_ih", "b_hh", "h0")


def _rnn_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    batch, steps, hidden = _check(inputs, 1, scope, "rnn")
    return {"y": ((batch, steps, hidden), "f"), "h_n": ((batch, hidden), "f")}


def _rnn_lower(graph: Graph, node: Node) -> None:
    hidden = node.outputs["y"].shape[2]
    _forward(graph, node, "rnn_forward", rnn.rnn_scratch(_need(node, "x").shape[2], hidden))


def _rnn_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    _, steps, hidden = node.outputs["y"].shape
    step = padded(hidden)
    sizes = {"dz": steps * step, "dbias": hidden, "dh0": hidden}
    sizes["scratch"] = rnn.rnn_backward_scratch(hidden)
    written = _backward(graph, node, "rnn_backward", douts, sizes)
    parts = [_from_outputs(graph, node, hidden)]
    return _gradients(graph, node, needed, written, step, parts, ("dbias", "dbias"))


register(
    Op(
        "rnn", inputs=_CELL, outputs=("y", "h_n"), returns=("y", "h_n"),
        defaults={"activation": 0, "reverse": 0, "bptt": 0}, shape=_rnn_shape,
        lower=_by_device(_rnn_lower), gradient=_gradient_by_device(_rnn_gradient),
    )
)  # fmt: skip


# ---------------------------------------------------------------- LSTM


def _lstm_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    batch, steps, hidden = _check(inputs, 4, scope, "lstm")
    state = ((batch, hidden), "f")
    return {
        "y": ((batch, steps, hidden), "f"), "h_n": state, "c_n": state,
        "saved": ((batch, steps * _kept(inputs, 5 * hidden)), "f"),
    }  # fmt: skip


def _lstm_lower(graph: Graph, node: Node) -> None:
    hidden = node.outputs["y"].shape[2]
    _forward(graph, node, "lstm_forward", lstm.lstm_scratch(_need(node, "x").shape[2], hidden))


def _lstm_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    _, steps, hidden = node.outputs["y"].shape
    step, peephole = padded(4 * hidden), node.inputs["peephole"]
    sizes = {"dz": steps * step, "dbias": 4 * hidden, "dh0": hidden, "dc0": hidden}
    sizes["scratch"] = lstm.lstm_backward_scratch(hidden)
    if peephole is not None:
        sizes["dpeephole"] = 3 * hidden
    written = _backward(graph, node, "lstm_backward", douts, sizes)
    parts = [_from_outputs(graph, node, 4 * hidden)]
    found = _gradients(graph, node, needed, written, step, parts, ("dbias", "dbias"))
    if "peephole" in needed and peephole is not None:
        found["peephole"] = graph.value(peephole.shape)
        graph.call_for("sum_rows", node, {"x": written["dpeephole"], "y": found["peephole"]})
    return found


register(
    Op(
        "lstm", inputs=("x", "lengths", "w_ih", "w_hh", "b_ih", "b_hh", "peephole", "h0", "c0"),
        outputs=("y", "h_n", "c_n", "saved"), returns=("y", "h_n", "c_n"),
        defaults={"reverse": 0, "bptt": 0}, shape=_lstm_shape, lower=_by_device(_lstm_lower),
        gradient=_gradient_by_device(_lstm_gradient),
    )
)  # fmt: skip


# ---------------------------------------------------------------- GRU


def _gru_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    batch, steps, hidden = _check(inputs, 3, scope, "gru")
    return {
        "y": ((batch, steps, hidden), "f"), "h_n": ((batch, hidden), "f"),
        "saved": ((batch, steps * _kept(inputs, 4 * hidden)), "f"),
    }  # fmt: skip


def _gru_lower(graph: Graph, node: Node) -> None:
    hidden = node.outputs["y"].shape[2]
    _forward(graph, node, "gru_forward", gru.gru_scratch(_need(node, "x").shape[2], hidden))


def _gru_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    _, steps, hidden = node.outputs["y"].shape
    step = padded(4 * hidden)
    sizes = {"dz": steps * step, "dbias_ih": 3 * hidden, "dbias_hh": 3 * hidden, "dh0": hidden}
    sizes["scratch"] = gru.gru_backward_scratch(hidden)
    written = _backward(graph, node, "gru_backward", douts, sizes)
    parts = [_from_outputs(graph, node, 2 * hidden)]
    if node.attrs["reset_before"]:
        parts.append({
            "x": node.outputs["saved"], "x_step": step, "x_first": 3 * hidden, "before": None,
            "dz_first": 2 * hidden, "shift": 0,
        })  # fmt: skip
    else:
        parts.append({**_from_outputs(graph, node, hidden), "dz_first": 3 * hidden})
    parts[1] |= {"column": 2 * hidden, "columns": hidden}
    return _gradients(graph, node, needed, written, step, parts, ("dbias_ih", "dbias_hh"))


register(
    Op(
        "gru", inputs=_CELL, outputs=("y", "h_n", "saved"), returns=("y", "h_n"),
        defaults={"reset_before": 0, "reverse": 0, "bptt": 0}, shape=_gru_shape,
        lower=_by_device(_gru_lower), gradient=_gradient_by_device(_gru_gradient),
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


def _leaky_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    found = {"x": graph.value(node.outputs["y"].shape)}
    found["h0"] = graph.value(node.outputs["h_n"].shape)
    incoming = {"dy": douts.get("y"), "dh_n": douts.get("h_n")}
    written = {"dx": found["x"], "dh0": found["h0"]}
    graph.call_for("leaky_backward", node, {**incoming, **written})
    return found


register(
    Op(
        "leaky", inputs=("x", "lengths", "h0"), outputs=("y", "h_n"), returns=("y", "h_n"),
        defaults={"keep": 0.95, "reverse": 0, "bptt": 0}, shape=_leaky_shape,
        gradient=_leaky_gradient,
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
    dx = graph.value(_need(node, "x").shape)
    graph.call_for("swap_time_forward", node, {"x": douts["y"], "y": dx})
    return {"x": dx}


register(Op("swap_time", shape=_swap_shape, gradient=_swap_gradient))
