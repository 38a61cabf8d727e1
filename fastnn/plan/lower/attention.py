"""Attention: the memory in which its blocks lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.kernels.attention.cpu_blocks import backward_scratch, forward_scratch
from fastnn.plan.lower.lowering import Lowering, Values, forward, gradient
from fastnn.plan.lower.products import need


def _more(to: Lowering, node: Node, backward: bool) -> dict[str, Any]:
    """What a call takes beside the node's own: scratch memory, and what dropout is made of."""
    q, k, v = (need(node, name) for name in "qkv")
    heads, apart = (1, node.attrs["heads"]) if node.attrs["apart"] else (node.attrs["heads"], 1)
    sizes = k.shape[1] // apart, k.shape[2] // heads, v.shape[2] // heads
    return _room(to, node, q, sizes, backward)


def _room(
    to: Lowering, node: Node, q: Value, sizes: tuple[int, int, int], backward: bool
) -> dict[str, Any]:
    """The same, for so many keys, of this size, with values of that."""
    room: Value | None = None
    if to.device == "cpu":
        item = np.dtype(to.dtype).itemsize
        count = (backward_scratch if backward else forward_scratch)(*sizes, item)
        key = ("attention", q.shape[0], count, q.batched)
        if key not in to.memo:
            to.memo[key] = to.value((q.shape[0], count), name="blocks", batched=q.batched)
        room = to.memo[key]
    return {"scratch": room, "control": to.graph.control() if node.attrs["keep"] != 1.0 else None}


@forward("attention")
def _attention(to: Lowering, node: Node) -> None:
    to.call_for("attention_forward", node, _more(to, node, False))


@gradient("attention")
def _attention_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    extra = _more(to, node, True) | {"dy": douts["y"]}
    for name in "qkv":
        source = need(node, name)
        extra[f"d{name}"] = written.get(name)
        if extra[f"d{name}"] is None:  # nobody asks for it
            extra[f"d{name}"] = to.value(source.shape, name=f"attention.d{name}")
    to.call_for("attention_backward", node, extra)


def _more_of_self(to: Lowering, node: Node, backward: bool) -> dict[str, Any]:
    x, heads = need(node, "x"), node.attrs["heads"]
    size = x.shape[2] // 3 // heads
    return _room(to, node, x, (x.shape[1], size, size), backward)


@forward("self_attention")
def _self_attention(to: Lowering, node: Node) -> None:
    to.call_for("self_attention_forward", node, _more_of_self(to, node, False))


@gradient("self_attention")
def _self_attention_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    extra = _more_of_self(to, node, True) | {"dy": douts["y"], "dx": written["x"]}
    to.call_for("self_attention_backward", node, extra)
