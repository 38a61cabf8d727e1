"""Recurrent nets step by step, in other ops: what gradients of their gradients are made of.

A second gradient of a fused net is that of these steps, each with nodes of its own: right, but
slower than the net, and planned for as many steps as there are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.gradient import Values
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.ops.activation import relu, sigmoid, tanh
from fastnn.ops.arithmetic import detach, greater
from fastnn.ops.arithmetic import where as choose
from fastnn.ops.expressions import formula, need
from fastnn.ops.shape import columns, reshape, stack

#: of (node, the gates' part from the input, the states before): the states after
Cell = Callable[[Node, Value, list[Value]], list[Value]]


def _product(x: Value, node: Node, weight: str, bias: str) -> Value:
    result: Value = x.graph.apply("linear", x=x, w=need(node, weight), bias=node.inputs[bias])
    return result


def _gates(z: Value, count: int) -> list[Value]:
    size = z.shape[-1] // count
    return [columns(z, k * size, (k + 1) * size) for k in range(count)]


def _rnn(node: Node, z: Value, states: list[Value]) -> list[Value]:
    function = (tanh, relu, sigmoid)[node.attrs["activation"]]
    return [function(z + _product(states[0], node, "w_hh", "b_hh"))]


def _lstm(node: Node, z: Value, states: list[Value]) -> list[Value]:
    h, c = states
    i, f, g, o = _gates(z + _product(h, node, "w_hh", "b_hh"), 4)
    if node.inputs["peephole"] is not None:
        p_i, p_f, p_o = _gates(reshape(need(node, "peephole"), (1, -1)), 3)
        i, f = i + p_i * c, f + p_f * c
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    if node.inputs["peephole"] is not None:
        o = o + p_o * c
    return [sigmoid(o) * tanh(c), c]


def _gru(node: Node, z: Value, states: list[Value]) -> list[Value]:
    h = states[0]
    z_r, z_z, z_n = _gates(z, 3)
    h_r, h_z, h_n = _gates(_product(h, node, "w_hh", "b_hh"), 3)
    r, gate = sigmoid(z_r + h_r), sigmoid(z_z + h_z)
    if node.attrs["reset_before"]:
        h_n = _gates(_product(r * h, node, "w_hh", "b_hh"), 3)[2]
        new = tanh(z_n + h_n)
    else:
        new = tanh(z_n + r * h_n)
    return [(1.0 - gate) * new + gate * h]


_CELLS: dict[str, tuple[Cell, tuple[str, ...]]] = {
    "rnn": (_rnn, ("h0",)), "lstm": (_lstm, ("h0", "c0")), "gru": (_gru, ("h0",)),
}  # fmt: skip


@formula("rnn", "lstm", "gru")
def _steps(node: Node) -> Values:
    """All steps; a sequence's states stay as they are past its end, and its outputs are 0."""
    cell, names = _CELLS[node.op.name]
    x, lengths = need(node, "x"), node.inputs["lengths"]
    (batch, steps, _), size = x.shape, node.outputs["y"].shape[2]
    reverse, bptt = bool(node.attrs["reverse"]), node.attrs["bptt"]
    if bptt and reverse and lengths is not None:
        raise ShapeError(
            f"{where(node.scope)}{node.op.name}: expected no lengths for a second gradient of a "
            "net that runs backwards with bptt; leave one of the three out"
        )
    states = [
        x.graph.full((batch, size), 0.0, batched=True) if v is None else v
        for v in (node.inputs[name] for name in names)
    ]
    z = _product(x, node, "w_ih", "b_ih")
    outputs: list[Value] = []
    for turn in range(steps):
        t = steps - 1 - turn if reverse else turn
        if bptt and turn and turn % bptt == 0:
            states = [detach(state) for state in states]
        after = cell(node, z[:, t], states)
        y = after[0]
        if lengths is not None:
            valid = greater(reshape(lengths, (-1, 1)), np.full((1, 1), t))
            y = choose(valid, y, np.zeros((1, 1)))
            after = [choose(valid, a, b) for a, b in zip(after, states, strict=True)]
        states = after
        outputs.append(y)
    if reverse:
        outputs.reverse()
    named = zip(("h_n", "c_n"), states, strict=False)
    return {"y": stack(outputs, axis=1), **dict(named)}
