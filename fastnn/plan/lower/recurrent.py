"""Recurrent nets over whole sequences.

On the CPU one kernel walks each sequence; its backward kernel writes the gradients of the gates,
`dz`, of all steps; gradients to x and to the weights are products with those. On CUDA see
`recurrent_cuda.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.kernels.gru import cpu as gru
from fastnn.kernels.lstm import cpu as lstm
from fastnn.kernels.recurrent.cpu import GRADIENT_SCRATCH, unit_scratch
from fastnn.kernels.recurrent.cpu_unit import GRADIENT_WORDS, input_scratch
from fastnn.kernels.recurrent.pairs import in_pairs
from fastnn.kernels.recurrent.shared import IN_PAIRS, PAIRED, padded
from fastnn.kernels.rnn import cpu as rnn
from fastnn.plan.lower.lowering import Lowering, Values, forward, gradient
from fastnn.plan.lower.products import need, packed

#: batches up to this size use the weights as they are
PLAIN_BATCH = 4
#: hidden units from which on the tile unit is quicker
UNIT_HIDDEN = 32


@forward("rnn", "lstm", "gru")
def _cell(to: Lowering, node: Node) -> None:
    if to.device == "cuda":
        from fastnn.plan.lower import recurrent_cuda  # not needed on the CPU

        recurrent_cuda.forward(to, node)
        return
    inputs, hidden = need(node, "x").shape[2], node.outputs["y"].shape[2]
    if node.op.name == "rnn":
        _forward(to, node, "rnn_forward", rnn.rnn_scratch(inputs, hidden))
    elif node.op.name == "lstm":
        _keep(to, node, padded(5 * hidden))
        _forward(to, node, "lstm_forward", lstm.lstm_scratch(inputs, hidden))
    else:
        _keep(to, node, padded(4 * hidden))
        _forward(to, node, "gru_forward", gru.gru_scratch(inputs, hidden))


@gradient("rnn", "lstm", "gru")
def _cell_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    if to.device == "cuda":
        from fastnn.plan.lower import recurrent_cuda

        recurrent_cuda.gradient(to, node, douts, written)
    else:
        {"rnn": _rnn, "lstm": _lstm, "gru": _gru}[node.op.name](to, node, douts, written)


def _parts(to: Lowering, node: Node) -> int:
    """How many parts weights are cut into for the tile unit; 0: it would not be quicker."""
    batch, hidden = need(node, "x").shape[0], node.outputs["y"].shape[2]
    fits = hidden % 32 == 0 or node.op.name != "gru"  # whose groups of gates are computed apart
    pays = batch > PLAIN_BATCH * to.parts and hidden >= UNIT_HIDDEN
    return to.parts if fits and pays else 0


def _transposed(to: Lowering, w: Value, batch: int, parts: int) -> Value:
    """The transposed matrix for a backward kernel: packed, or plain for few sequences."""
    if batch > PLAIN_BATCH:
        return packed(to, w, transposed=True, parts=parts)
    key = ("transposed", w)
    if key not in to.memo:
        to.memo[key] = to.value(w.shape[::-1], name=f"transposed {w.name}")
        to.call("transpose_weights", w=w, transposed=to.memo[key])
    return to.memo[key]


def _rows(to: Lowering, node: Node, size: int, dtype: str = "f") -> Value:
    """A buffer with so many elements for each sequence."""
    batch = need(node, "x").shape[0]
    return to.value((batch, size) if dtype == "f" else (batch,), dtype)


def _forward(to: Lowering, node: Node, kernel: str, scratch: int) -> None:
    """Call a cell's forward kernel with its weights packed, where that pays."""
    use_packed, parts = need(node, "x").shape[0] > PLAIN_BATCH, _parts(to, node)
    weights = {name: need(node, name) for name in ("w_ih", "w_hh")}
    pairs = _pairs(to, node, weights)
    if pairs is not None:
        given = {**pairs, "packed": IN_PAIRS, "scratch": _rows(to, node, scratch)}
        to.call_for(kernel, node, {**given, "order": _rows(to, node, 1, "i")})
        return
    if use_packed:
        weights = {name: packed(to, w, parts=parts) for name, w in weights.items()}
        scratch += unit_scratch(max(w.shape[0] for w in (need(node, n) for n in weights)), parts)
    extra = {
        **weights, "packed": int(use_packed) + parts, "scratch": _rows(to, node, scratch),
        "order": _rows(to, node, 1, "i"),
    }  # fmt: skip
    to.call_for(kernel, node, extra)


def _pairs(to: Lowering, node: Node, weights: Values) -> Values | None:
    """The weights as constants, in pairs of bfloat16 numbers, where one sequence reads weights that
    do not change: they are half as many bytes. None where that can't be."""
    fits = need(node, "x").shape[0] == 1 and node.outputs["y"].shape[2] % PAIRED == 0
    if to.precision != "bf16" or not fits:
        return None
    found: Values = {}
    for name, w in weights.items():
        key = ("pairs", w)
        if key not in to.memo:
            contents = to.contents(w)
            words = None if contents is None else in_pairs(contents)
            if words is None:
                return None
            to.memo[key] = to.value(words.shape, segment="constant", data=words, name=w.name)
            to.rounded.add(to.memo[key])
        found[name] = to.memo[key]
    return found


def _keep(to: Lowering, node: Node, size: int) -> None:
    """Memory for what a cell's forward kernel saves for its gradient: a row for each step."""
    batch, steps, _ = node.outputs["y"].shape
    to.kept[node] = {"saved": to.value((batch, steps * size), name=f"{node.op.name}.saved")}


def _backward(
    to: Lowering,
    node: Node,
    kernel: str,
    douts: Values,
    found: Values,
    sizes: dict[str, int],
) -> Values:
    """Call a cell's backward kernel; returns what it writes. `sizes` gives the rows' lengths."""
    parts, w_hh = _parts(to, node), need(node, "w_hh")
    sizes["scratch"] += unit_scratch(w_hh.shape[1], parts)
    written = {name: _rows(to, node, size) for name, size in sizes.items()}
    written |= {f"d{name}": value for name, value in found.items() if name in ("h0", "c0")}
    incoming = {f"d{name}": douts.get(name) for name in node.op.returns}
    absent = {"dpeephole": None}
    extra = {
        **absent, **incoming, **written, "order": _rows(to, node, 1, "i"),
        "w_transposed": _transposed(to, w_hh, need(node, "x").shape[0], parts),
        "steps": need(node, "x").shape[1],
    }  # fmt: skip
    to.call_for(kernel, node, extra)
    to.kept.setdefault(node, {})["dz"] = written["dz"]
    return written


def _gradients(
    to: Lowering,
    node: Node,
    found: Values,
    written: Values,
    step: int,
    recurrent: Sequence[dict[str, Any]],
    biases: tuple[str, str],
) -> None:
    """Gradients to the input, to weights and biases from a cell's `dz`.

    `step` is the size of a step in dz; `recurrent` says for groups of columns of w_hh what they
    were multiplied with; `biases` names the written sums for b_ih and b_hh.
    """
    x, dz = need(node, "x"), written["dz"]
    batch, steps, inputs = x.shape
    gates = need(node, "w_ih").shape[1]
    parts = _parts(to, node)
    on_unit = {"parts": parts} if parts else {}
    ending = "_unit" * bool(parts)
    if "x" in found:
        transposed = packed(to, need(node, "w_ih"), transposed=True, parts=parts)
        more = {"w_transposed": transposed, "dx": found["x"], "step": step, "gates": gates}
        if parts:
            more["scratch"] = _rows(to, node, input_scratch(gates, parts))
        to.call_for(f"sequence_backward_input{ending}", node, {"dz": dz, **more, **on_unit})
    common = {"dz": dz, "dz_step": step, "steps": steps, **on_unit}
    kernel = f"sequence_backward_weight{ending}"
    wide = GRADIENT_WORDS * parts if parts else GRADIENT_SCRATCH
    if "w_ih" in found:
        scratch = to.value((inputs, wide))
        of_input = {
            "x": to.view(x, (batch, steps * inputs)), "x_step": inputs, "x_first": 0,
            "before": None, "dw": found["w_ih"], "scratch": scratch,
            "dz_first": 0, "column": 0, "columns": gates, "shift": 0,
        }  # fmt: skip
        to.call_for(kernel, node, {**of_input, **common})
    if "w_hh" in found:
        scratch = to.value((found["w_hh"].shape[0], wide))
        for part in recurrent:
            given = {"dw": found["w_hh"], "scratch": scratch, **common, **part}
            to.call_for(kernel, node, given)
    for name, source in zip(("b_ih", "b_hh"), biases, strict=True):
        if name in found:
            to.call_for("sum_rows", node, {"x": written[source], "y": found[name]})


def _from_outputs(to: Lowering, node: Node, columns: int) -> dict[str, Any]:
    """The first columns of w_hh: multiplied with the output of the turn before."""
    y = node.outputs["y"]
    batch, steps, hidden = y.shape
    return {
        "x": to.view(y, (batch, steps * hidden)), "x_step": hidden, "x_first": 0,
        "before": node.inputs["h0"], "dz_first": 0, "column": 0, "columns": columns, "shift": 1,
    }  # fmt: skip


# ---------------------------------------------------------------- the cells' gradients


def _rnn(to: Lowering, node: Node, douts: Values, found: Values) -> None:
    _, steps, hidden = node.outputs["y"].shape
    step = padded(hidden)
    sizes = {"dz": steps * step, "dbias": hidden, "dh0": hidden}
    sizes["scratch"] = rnn.rnn_backward_scratch(hidden)
    written = _backward(to, node, "rnn_backward", douts, found, sizes)
    parts = [_from_outputs(to, node, hidden)]
    _gradients(to, node, found, written, step, parts, ("dbias", "dbias"))


def _lstm(to: Lowering, node: Node, douts: Values, found: Values) -> None:
    _, steps, hidden = node.outputs["y"].shape
    step = padded(4 * hidden)
    sizes = {"dz": steps * step, "dbias": 4 * hidden, "dh0": hidden, "dc0": hidden}
    sizes["scratch"] = lstm.lstm_backward_scratch(hidden)
    if node.inputs["peephole"] is not None:
        sizes["dpeephole"] = 3 * hidden
    written = _backward(to, node, "lstm_backward", douts, found, sizes)
    parts = [_from_outputs(to, node, 4 * hidden)]
    _gradients(to, node, found, written, step, parts, ("dbias", "dbias"))
    if "peephole" in found:
        to.call_for("sum_rows", node, {"x": written["dpeephole"], "y": found["peephole"]})


def _gru(to: Lowering, node: Node, douts: Values, found: Values) -> None:
    _, steps, hidden = node.outputs["y"].shape
    step = padded(4 * hidden)
    sizes = {"dz": steps * step, "dbias_ih": 3 * hidden, "dbias_hh": 3 * hidden, "dh0": hidden}
    sizes["scratch"] = gru.gru_backward_scratch(hidden)
    written = _backward(to, node, "gru_backward", douts, found, sizes)
    parts = [_from_outputs(to, node, 2 * hidden)]
    if node.attrs["reset_before"]:
        parts.append({
            "x": to.kept[node]["saved"], "x_step": step, "x_first": 3 * hidden, "before": None,
            "dz_first": 2 * hidden, "shift": 0,
        })  # fmt: skip
    else:
        parts.append({**_from_outputs(to, node, hidden), "dz_first": 3 * hidden})
    parts[1] |= {"column": 2 * hidden, "columns": hidden}
    _gradients(to, node, found, written, step, parts, ("dbias_ih", "dbias_hh"))


@gradient("leaky")
def _leaky(to: Lowering, node: Node, douts: Values, found: Values) -> None:
    written = {
        f"d{n}": found[n] if n in found else to.value(node.outputs[like].shape)
        for n, like in (("x", "y"), ("h0", "h_n"))
    }
    incoming = {"dy": douts.get("y"), "dh_n": douts.get("h_n")}
    to.call_for("leaky_backward", node, {**incoming, **written})
