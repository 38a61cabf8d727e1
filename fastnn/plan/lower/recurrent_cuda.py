"""How the recurrent ops are computed on CUDA.

The input projection of all steps is one product, and so are the gradients of weights and input; in
between one launch walks the whole sequence, if the recurrent weights fit into the shared memory of
the device's blocks (`kernels/recurrent/cuda_layout.py`), else a loop of a few launches makes the
turns (`kernels/recurrent/cuda_steps.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from fastnn.graph.node import Node
from fastnn.graph.value import Counter, Repeat, Value
from fastnn.kernels.recurrent.cuda_layout import Layout, best, exchange_words, fits
from fastnn.plan.lower.lowering import Lowering, Values
from fastnn.plan.lower.products import need

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
#: numbers that a unit saves at each step for the gradient
SAVED = {"lstm": 5, "gru": 4}


def _layout(to: Lowering, node: Node) -> Layout | None:
    batch, _, hidden = node.outputs["y"].shape
    itemsize = np.dtype(to.dtype).itemsize
    gates = GATES[node.op.name]
    return fits(batch, hidden, gates, itemsize, *to.limits[:2], half=_in_halves(to))


def _in_halves(to: Lowering) -> bool:
    """Whether factors of products are of 16 bits."""
    return to.precision in ("bf16", "fp16")


def _slots(node: Node) -> int:
    return 3 if node.attrs.get("reset_before") else 2


def _kernel(
    to: Lowering, node: Node, far: Layout, direction: str, depth: int
) -> tuple[str, dict[str, Any]]:
    """The kernel that walks all turns, and what it takes besides the node's inputs and outputs."""
    batch, _, hidden = node.outputs["y"].shape
    layout = best(
        far, batch, hidden, GATES[node.op.name], np.dtype(to.dtype).itemsize, to.limits,
        _slots(node), direction == "backward", half=_in_halves(to),
    )  # fmt: skip
    early = "_early" if node.attrs.get("reset_before") else ""
    return f"{node.op.name}_{layout.how}_{direction}{early}", _cooperation(to, node, layout, depth)


def _cooperation(to: Lowering, node: Node, layout: Layout, depth: int) -> dict[str, Any]:
    """What kernels of blocks that work together take besides their inputs and outputs."""
    words = None
    if not layout.near:
        batch, itemsize = node.outputs["y"].shape[0], np.dtype(to.dtype).itemsize
        count = exchange_words(batch, depth, _slots(node), layout, itemsize)
        words = to.value((count,), "i", name="exchange")
        to.call("clear_words", words=words)
    return {
        "words": words, "order": _order(to, node), "groups": layout.groups,
        "blocks": layout.blocks, "units": layout.units, "is_bf16": int(to.precision == "bf16"),
    }  # fmt: skip


def _order(to: Lowering, node: Node) -> Value | None:
    """The sequences, longest first: found once for all nets that the lengths are given to. None
    where all are as long as each other."""
    lengths, (batch, steps, _) = node.inputs["lengths"], node.outputs["y"].shape
    if lengths is None:
        return None
    key = ("order", lengths, steps)
    if key not in to.memo:
        to.memo[key] = to.value((batch,), "i", name="order")
        to.call("sequence_order", lengths=lengths, order=to.memo[key], steps=steps)
    return to.memo[key]


# ---------------------------------------------------------------- forward


def forward(to: Lowering, node: Node) -> None:
    """The calls that compute a recurrent op."""
    x, w_ih, hidden = need(node, "x"), need(node, "w_ih"), node.outputs["y"].shape[2]
    zx = to.value((*x.shape[:2], w_ih.shape[1]))
    to.call("linear_forward", x=x, w=w_ih, bias=node.inputs["b_ih"], y=zx)
    layout = _layout(to, node)
    if node.op.name in SAVED:
        size = x.shape[1] * SAVED[node.op.name] * hidden
        to.kept[node] = {"saved": to.value((x.shape[0], size), name=f"{node.op.name}.saved")}
    if layout is None:
        _forward_by_steps(to, node, zx)
        return
    kernel, extra = _kernel(to, node, layout, "forward", hidden)
    to.call_for(kernel, node, {"zx": zx, **extra})


def _forward_by_steps(to: Lowering, node: Node, zx: Value) -> None:
    cell, w_hh, h_n = node.op.name, need(node, "w_hh"), node.outputs["h_n"]
    to.call("state_begin", given=node.inputs["h0"], state=h_n)
    if cell == "lstm":
        to.call("state_begin", given=node.inputs["c0"], state=node.outputs["c_n"])
    zh = to.value((h_n.shape[0], w_hh.shape[1]))
    rh, zn = (to.value(like.shape) for like in (h_n, zh))
    common = {"zx": zx, "zh": zh, "zn": None}
    with _turns(to, zx.shape[1]) as turn:
        to.call("linear_forward", x=h_n, w=w_hh, bias=node.inputs["b_hh"], y=zh)
        if node.attrs.get("reset_before"):
            to.call_for("gru_step_reset", node, {**common, "rh": rh, "turn": turn})
            to.call("linear_forward", x=rh, w=w_hh, bias=node.inputs["b_hh"], y=zn)
            common["zn"] = zn
        to.call_for(f"{cell}_step_forward", node, {**common, "turn": turn})


@contextmanager
def _turns(to: Lowering, length: int, reverse: bool = False) -> Iterator[Counter]:
    """Calls that are made in each turn, of which the number moves on."""
    loop = Repeat(length, reverse)
    with to.aside() as calls:
        yield Counter(length - 1, {loop: -1}) if reverse else Counter(0, {loop: 1})
    to.add([replace(call, repeats=(loop, *call.repeats)) for call in calls])


# ---------------------------------------------------------------- backward


def gradient(to: Lowering, node: Node, douts: Values, found: Values) -> None:
    """The calls for a recurrent op's gradients."""
    y, cell = node.outputs["y"], node.op.name
    written = _outputs(to, node)
    written |= {f"d{name}": value for name, value in found.items() if name in ("h0", "c0")}
    incoming = {f"d{name}": douts.get(name) for name in node.op.returns}
    layout = _layout(to, node)
    if layout is None:
        _backward_by_steps(to, node, written, incoming)
    else:
        depth = GATES[cell] * y.shape[2]
        kernel, extra = _kernel(to, node, layout, "backward", depth)
        to.call_for(kernel, node, {**incoming, **written, **extra})
    _products(to, node, found, written)


def _outputs(to: Lowering, node: Node) -> dict[str, Any]:
    """What a cell's backward kernel writes."""
    batch, steps, hidden = node.outputs["y"].shape
    gates, cell = GATES[node.op.name], node.op.name
    every = (batch, steps, hidden)
    written: dict[str, Any] = {
        "dz": to.value((batch, steps, gates * hidden)), "before": to.value(every),
        "dh0": to.value((batch, hidden)),
    }  # fmt: skip
    if cell == "lstm":
        written["dc0"] = to.value((batch, hidden))
        peephole = node.inputs["peephole"] is not None
        written["dpeephole"] = to.value((batch, 3 * hidden)) if peephole else None
    if cell == "gru":
        early = node.attrs["reset_before"]
        written["dz_h"] = to.value((batch, steps, (2 if early else 3) * hidden))
        written["reset"] = to.value(every) if early else None
        written["dn"] = to.value(every) if early else None
    return written


def _backward_by_steps(
    to: Lowering, node: Node, written: dict[str, Any], incoming: dict[str, Value | None]
) -> None:
    cell, w_hh, bptt = node.op.name, need(node, "w_hh"), node.attrs["bptt"]
    batch, steps, hidden = node.outputs["y"].shape
    early = node.attrs.get("reset_before")
    carried = {"dh": to.value((batch, hidden))}
    carried |= {
        n: to.value((batch, hidden)) for n in {"lstm": ("dc",), "gru": ("direct",)}.get(cell, ())
    }
    zeros = [
        *carried.values(),
        *([written["dpeephole"]] if written.get("dpeephole") is not None else []),
    ]
    for value in zeros:
        to.call("state_begin", given=None, state=value)
    dz_step, drh = to.value((batch, w_hh.shape[1])), to.value((batch, hidden))
    extra: dict[str, Any] = {**incoming, **written, **carried, "dz_step": dz_step, "drh": drh}
    extra["dz_late"] = to.value((batch, hidden)) if early else None
    with _turns(to, steps, reverse=True) as turn:
        to.call_for(f"{cell}_step_backward", node, {**extra, "turn": turn})
        if early:
            to.call("linear_backward_input_unpacked", dy=dz_step, w=w_hh, dx=drh)
            to.call_for("gru_step_backward_reset", node, {**extra, "turn": turn})
        # where gradients are truncated, the kernel of the turn before does not look at it
        to.call("linear_backward_input_unpacked", dy=dz_step, w=w_hh, dx=carried["dh"])
    common = {"lengths": node.inputs["lengths"], "steps": steps, "bptt": bptt}
    to.call(
        "state_begin_backward", carried=carried["dh"], direct=carried.get("direct"),
        final=incoming["dh_n"], gradient=written["dh0"], **common,
    )  # fmt: skip
    if cell == "lstm":
        to.call(
            "state_begin_backward", carried=carried["dc"], direct=None, final=incoming["dc_n"],
            gradient=written["dc0"], **common,
        )  # fmt: skip


def _valid(to: Lowering, node: Node, x: Value) -> Value:
    """The input with zeros past the sequences' ends: once for all nets (and directions) it is given
    to."""
    lengths = node.inputs["lengths"]
    if lengths is None:
        return x
    key = ("valid", x, lengths)
    if key not in to.memo:
        to.memo[key] = to.value(x.shape, name="valid steps")
        to.call("valid_steps", x=x, lengths=lengths, y=to.memo[key])
    return to.memo[key]


def _products(to: Lowering, node: Node, found: Values, written: dict[str, Any]) -> None:
    """Gradients to the input, to weights and biases, from those of the gates."""
    x, dz = need(node, "x"), written["dz"]
    dz_h = written.get("dz_h", dz)
    if "x" in found:
        to.call("linear_backward_input_unpacked", dy=dz, w=need(node, "w_ih"), dx=found["x"])
    if "w_ih" in found:
        to.call("linear_backward_weight", x=_valid(to, node, x), dy=dz, dw=found["w_ih"])
    if "w_hh" in found:
        pairs = [(written["before"], dz_h)]
        if written.get("reset") is not None:
            pairs.append((written["reset"], written["dn"]))
        parts = [to.value((a.shape[-1], b.shape[-1])) for a, b in pairs]
        for (a, b), dw in zip(pairs, parts if len(pairs) > 1 else [found["w_hh"]], strict=True):
            to.call("linear_backward_weight", x=a, dy=b, dw=dw)
        if len(pairs) > 1:
            left, right = parts
            to.call("insert_columns", x=left, y=found["w_hh"], offset=0)
            to.call("insert_columns", x=right, y=found["w_hh"], offset=left.shape[1])
    if "b_ih" in found:
        to.call("sum_rows", x=dz, y=found["b_ih"])
    if "b_hh" in found:
        # with the reset before, n's bias is added to the same sum on either side
        late = written.get("reset") is not None
        to.call("sum_rows", x=dz if late else dz_h, y=found["b_hh"])
    if "peephole" in found:
        to.call("sum_rows", x=written["dpeephole"], y=found["peephole"])
