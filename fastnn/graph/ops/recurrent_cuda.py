"""How the recurrent ops are computed on CUDA.

The input projection of all steps is one product, and so are the gradients of weights and input; in
between one launch walks the whole sequence, if the recurrent weights fit into the shared memory of
the device's blocks (`kernels/recurrent/cuda.py`), else a few launches make a turn
(`kernels/recurrent/cuda_steps.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph.graph import Graph, Node, Value
from fastnn.kernels.recurrent.cuda import Layout, exchange_elements, fits

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def _need(node: Node, name: str) -> Value:
    value = node.inputs[name]
    assert value is not None
    return value


def _layout(graph: Graph, node: Node) -> Layout | None:
    batch, _, hidden = node.outputs["y"].shape
    itemsize = np.dtype(graph.dtype).itemsize
    gates = GATES[node.op.name]
    return fits(batch, hidden, gates, itemsize, *graph.limits)


def _kernel(node: Node, direction: str) -> str:
    early = "_early" if node.attrs.get("reset_before") else ""
    return f"{node.op.name}_persistent_{direction}{early}"


def _together(graph: Graph, node: Node, layout: Layout, depth: int) -> dict[str, Any]:
    """What kernels of blocks that work together take besides their inputs and outputs."""
    batch, steps, _ = node.outputs["y"].shape
    order = graph.value((batch,), "i")
    flags = graph.value((layout.groups * layout.blocks,), "i")
    lengths = node.inputs["lengths"]
    graph.call("sequence_order", lengths=lengths, order=order, flags=flags, steps=steps)
    slots = 3 if node.attrs.get("reset_before") else 2
    return {
        "exchange": graph.value((exchange_elements(batch, depth, slots, layout),)),
        "order": order, "flags": flags, "groups": layout.groups, "blocks": layout.blocks,
        "units": layout.units,
    }  # fmt: skip


# ---------------------------------------------------------------- forward


def forward(graph: Graph, node: Node) -> None:
    """The calls that compute a recurrent op."""
    x, w_ih, hidden = _need(node, "x"), _need(node, "w_ih"), node.outputs["y"].shape[2]
    zx = graph.value((*x.shape[:2], w_ih.shape[1]))
    graph.call("linear_forward", x=x, w=w_ih, bias=node.inputs["b_ih"], y=zx)
    layout = _layout(graph, node)
    if layout is None:
        _forward_by_steps(graph, node, zx)
        return
    extra = _together(graph, node, layout, hidden)
    graph.call_for(_kernel(node, "forward"), node, {"zx": zx, **extra})


def _forward_by_steps(graph: Graph, node: Node, zx: Value) -> None:
    cell, w_hh, h_n = node.op.name, _need(node, "w_hh"), node.outputs["h_n"]
    graph.call("state_begin", given=node.inputs["h0"], state=h_n)
    if cell == "lstm":
        graph.call("state_begin", given=node.inputs["c0"], state=node.outputs["c_n"])
    zh = graph.value((h_n.shape[0], w_hh.shape[1]))
    rh, zn = (graph.value(like.shape) for like in (h_n, zh))
    common = {"zx": zx, "zh": zh, "zn": None}
    for turn in range(zx.shape[1]):
        graph.call("linear_forward", x=h_n, w=w_hh, bias=node.inputs["b_hh"], y=zh)
        if node.attrs.get("reset_before"):
            graph.call_for("gru_step_reset", node, {**common, "rh": rh, "turn": turn})
            graph.call("linear_forward", x=rh, w=w_hh, bias=node.inputs["b_hh"], y=zn)
            common["zn"] = zn
        graph.call_for(f"{cell}_step_forward", node, {**common, "turn": turn})


# ---------------------------------------------------------------- backward


def gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """The calls for a recurrent op's gradients."""
    y, cell = node.outputs["y"], node.op.name
    written = _outputs(graph, node)
    incoming = {f"d{name}": douts.get(name) for name in node.op.returns}
    layout = _layout(graph, node)
    if layout is None:
        _backward_by_steps(graph, node, written, incoming)
    else:
        extra = _together(graph, node, layout, GATES[cell] * y.shape[2])
        more = {**incoming, **written, **extra}
        graph.call_for(_kernel(node, "backward"), node, more)
    return _products(graph, node, needed, written)


def _outputs(graph: Graph, node: Node) -> dict[str, Any]:
    """What a cell's backward kernel writes."""
    batch, steps, hidden = node.outputs["y"].shape
    gates, cell = GATES[node.op.name], node.op.name
    every = (batch, steps, hidden)
    written: dict[str, Any] = {
        "dz": graph.value((batch, steps, gates * hidden)), "before": graph.value(every),
        "dh0": graph.value((batch, hidden)),
    }  # fmt: skip
    if cell == "lstm":
        written["dc0"] = graph.value((batch, hidden))
        peephole = node.inputs["peephole"] is not None
        written["dpeephole"] = graph.value((batch, 3 * hidden)) if peephole else None
    if cell == "gru":
        early = node.attrs["reset_before"]
        written["dz_h"] = graph.value((batch, steps, (2 if early else 3) * hidden))
        written["reset"] = graph.value(every) if early else None
        written["dn"] = graph.value(every) if early else None
    return written


def _backward_by_steps(
    graph: Graph, node: Node, written: dict[str, Any], incoming: dict[str, Value | None]
) -> None:
    cell, w_hh, bptt = node.op.name, _need(node, "w_hh"), node.attrs["bptt"]
    batch, steps, hidden = node.outputs["y"].shape
    early = node.attrs.get("reset_before")
    carried = {"dh": graph.value((batch, hidden))}
    carried |= {
        n: graph.value((batch, hidden)) for n in {"lstm": ("dc",), "gru": ("direct",)}.get(cell, ())
    }
    zeros = [
        *carried.values(),
        *([written["dpeephole"]] if written.get("dpeephole") is not None else []),
    ]
    for value in zeros:
        graph.call("state_begin", given=None, state=value)
    dz_step, drh = graph.value((batch, w_hh.shape[1])), graph.value((batch, hidden))
    extra: dict[str, Any] = {**incoming, **written, **carried, "dz_step": dz_step, "drh": drh}
    extra["dz_late"] = graph.value((batch, hidden)) if early else None
    for turn in reversed(range(steps)):
        graph.call_for(f"{cell}_step_backward", node, {**extra, "turn": turn})
        if early:
            graph.call("linear_backward_input_unpacked", dy=dz_step, w=w_hh, dx=drh)
            graph.call_for("gru_step_backward_reset", node, {**extra, "turn": turn})
        if not (bptt and turn % bptt == 0):
            graph.call("linear_backward_input_unpacked", dy=dz_step, w=w_hh, dx=carried["dh"])
    common = {"lengths": node.inputs["lengths"], "steps": steps, "bptt": bptt}
    graph.call(
        "state_begin_backward", carried=carried["dh"], direct=carried.get("direct"),
        final=incoming["dh_n"], gradient=written["dh0"], **common,
    )  # fmt: skip
    if cell == "lstm":
        graph.call(
            "state_begin_backward", carried=carried["dc"], direct=None, final=incoming["dc_n"],
            gradient=written["dc0"], **common,
        )  # fmt: skip


def _products(
    graph: Graph, node: Node, needed: set[str], written: dict[str, Any]
) -> dict[str, Value]:
    """Gradients to the input, to weights, biases and initial states, from those of the gates."""
    x, dz = _need(node, "x"), written["dz"]
    dz_h = written.get("dz_h", dz)
    found: dict[str, Value] = {n: written[f"d{n}"] for n in ("h0", "c0") if n in needed}
    if "x" in needed:
        found["x"] = graph.value(x.shape)
        graph.call("linear_backward_input_unpacked", dy=dz, w=_need(node, "w_ih"), dx=found["x"])
    if "w_ih" in needed:
        lengths = node.inputs["lengths"]
        if lengths is not None:
            valid = graph.value(x.shape)
            graph.call("valid_steps", x=x, lengths=lengths, y=valid)
            x = valid
        found["w_ih"] = _weight(graph, x, dz)
    if "w_hh" in needed:
        found["w_hh"] = _weight(graph, written["before"], dz_h)
        if written.get("reset") is not None:
            late = _weight(graph, written["reset"], written["dn"])
            found["w_hh"] = _side_by_side(graph, found["w_hh"], late)
    if "b_ih" in needed:
        found["b_ih"] = _sum(graph, dz)
    if "b_hh" in needed:
        # with the reset before, n's bias is added to the same sum on either side
        found["b_hh"] = _sum(graph, dz if written.get("reset") is not None else dz_h)
    if "peephole" in needed:
        found["peephole"] = _sum(graph, written["dpeephole"])
    return found


def _weight(graph: Graph, x: Value, dy: Value) -> Value:
    dw = graph.value((x.shape[-1], dy.shape[-1]))
    graph.call("linear_backward_weight", x=x, dy=dy, dw=dw)
    return dw


def _sum(graph: Graph, x: Value) -> Value:
    total = graph.value((x.shape[-1],))
    graph.call("sum_rows", x=x, y=total)
    return total


def _side_by_side(graph: Graph, left: Value, right: Value) -> Value:
    joined = graph.value((left.shape[0], left.shape[1] + right.shape[1]))
    graph.call("insert_columns", x=left, y=joined, offset=0)
    graph.call("insert_columns", x=right, y=joined, offset=left.shape[1])
    return joined
