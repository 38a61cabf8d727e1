"""Products of 16-bit factors on a GPU: what lies in memory how, and what is copied."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.graph.graph import Graph
from fastnn.graph.value import Repeat
from fastnn.kernels import types
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.ops.declare import apply_effect
from fastnn.plan.call import Call
from fastnn.plan.instruction import instructions_of
from fastnn.plan.lower import Lowering
from fastnn.plan.products import chosen
from fastnn.testing.null import null_device


def lowered(graph: Graph, precision: str = "bf16") -> Lowering:
    return Lowering(graph, device="cuda", precision=precision)


def kernels(calls: list[Call]) -> list[str]:
    return [call.kernel for call in calls]


def two_layers(graph: Graph) -> dict[str, Any]:
    """x -> h = relu(x w1) -> y = h w2, and the gradients of all that from dy."""
    n, c, h, k = 8, 12, 16, 10
    v = {"x": graph.value((n, c)), "z": graph.value((n, h)), "h": graph.value((n, h))}
    v |= {"y": graph.value((n, k)), "dy": graph.value((n, k)), "dh": graph.value((n, h))}
    v |= {"dz": graph.value((n, h)), "dw1": graph.value((c, h)), "dw2": graph.value((h, k))}
    for name, shape, offset in (("w1", (c, h), 64), ("w2", (h, k), 64 + 208)):
        v[name] = graph.leaf(name, shape, "params", offset=offset, name=name)
    apply_effect(graph, "linear_forward", x=v["x"], w=v["w1"], bias=None, y=v["z"])
    apply_effect(graph, "relu_forward", x=v["z"], y=v["h"])
    apply_effect(graph, "linear_forward", x=v["h"], w=v["w2"], bias=None, y=v["y"])
    apply_effect(graph, "linear_backward_weight", x=v["h"], dy=v["dy"], dw=v["dw2"])
    apply_effect(graph, "linear_backward_input_unpacked", dy=v["dy"], w=v["w2"], dx=v["dh"])
    apply_effect(graph, "relu_backward", y=v["h"], dy=v["dh"], dx=v["dz"])
    apply_effect(graph, "linear_backward_weight", x=v["x"], dy=v["dz"], dw=v["dw1"])
    return v


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_lies_between_products_is_16_bits_alone(precision: str) -> None:
    graph = Graph(batch=8)
    v = two_layers(graph)
    to = lowered(graph, precision)
    calls = chosen(to)
    tail = f"_{precision}_tiny"
    assert kernels(calls) == [
        f"to_{precision}", f"to_{precision}", f"linear_forward{tail}", f"linear_forward{tail}",
        f"to_{precision}", f"linear_backward_weight{tail}", f"linear_backward_input{tail}",
        f"linear_backward_weight{tail}",
    ]  # fmt: skip
    weights, _, first, second, _, of_second, back, of_first = calls
    # all weights at once, from the first to the last
    assert (weights.operands["x"].offset, weights.operands["x"].size) == (64, 208 + 160)
    assert first.operands["w"].root is second.operands["w"].root is weights.operands["y"]
    assert second.operands["w"].shift == 208
    for call, name in ((first, "y"), (back, "dx")):  # nobody reads them in float32
        assert call.operands[name] is None
        assert call.operands[f"{name}_half"].dtype == {"bf16": "b", "fp16": "h"}[precision]
    assert second.operands["y"] is v["y"]
    assert second.operands["y_half"] is None
    assert (first.operands["activation"], back.operands["activation"]) == (1, 1)
    hidden = first.operands["y_half"]
    assert all(o.root is hidden for o in (second.operands["x"], of_second.operands["x"]))
    assert back.operands["y"].root is hidden
    assert of_first.operands["dy"].root is back.operands["dx_half"]
    for instruction in instructions_of(calls, to.batch):  # checks the shapes of all operands
        assert instruction.kernel.name in CUDA_KERNELS


def test_what_is_kept_or_read_otherwise_stays_float32_as_well() -> None:
    graph = Graph(batch=8)
    v = two_layers(graph)
    calls = chosen(lowered(graph), [v["h"]])
    first = next(call for call in calls if call.kernel == "linear_forward_bf16_tiny")
    assert first.operands["y"].root is v["h"]
    assert first.operands["y_half"] is not None


def test_weights_that_change_within_a_step_are_copied_anew() -> None:
    graph = Graph(batch=8)
    v = two_layers(graph)
    apply_effect(graph, "affine", x=v["w1"], y=v["w1"], scale=0.5, shift=0.0)
    z = graph.value((8, 16))
    apply_effect(graph, "linear_forward", x=v["x"], w=v["w1"], bias=None, y=z)
    calls = chosen(lowered(graph))
    copies = [call.operands["x"].root for call in calls if call.kernel == "to_bf16"]
    assert sum(root is v["w1"] for root in copies) == 2
    assert calls[-2].kernel == "to_bf16"
    assert calls[-2].operands["x"].root is v["w1"]


def test_memory_written_anew_is_copied_anew() -> None:
    graph = Graph(batch=8)
    x, y = graph.value((8, 4)), graph.value((8, 4))
    w = graph.leaf("w", (4, 4), "params", offset=0, name="w")
    for scale in (1.0, 2.0):
        apply_effect(graph, "affine", x=y, y=x, scale=scale, shift=0.0)
        apply_effect(graph, "linear_forward", x=x, w=w, bias=None, y=y)
    assert kernels(chosen(lowered(graph))).count("to_bf16") == 3


def test_a_loops_steps_take_copies_of_their_own() -> None:
    """The first step might take one from before the loop, and a later one not."""
    graph = Graph(batch=8)
    x, y = graph.value((8, 4)), graph.value((8, 4))
    w = graph.leaf("w", (4, 4), "params", offset=0, name="w")
    apply_effect(graph, "linear_forward", x=x, w=w, bias=None, y=y)
    apply_effect(graph, "linear_forward", x=x, w=w, bias=None, y=y)
    apply_effect(graph, "affine", x=y, y=x, scale=1.0, shift=0.0)
    to, loop = lowered(graph), (Repeat(3),)
    to.calls[1:] = [replace(call, repeats=loop) for call in to.calls[1:]]
    calls = chosen(to)
    copies = [c for c in calls if c.kernel == "to_bf16" and c.operands["x"].root is x]
    assert [len(c.repeats) for c in copies] == [0, 1]


def test_products_of_many_matrices_and_long_sums() -> None:
    graph = Graph(batch=8)
    v = {"a": graph.value((8, 3, 4)), "b": graph.value((8, 4, 5)), "y": graph.value((8, 3, 5))}
    v |= {"da": graph.value((8, 3, 4)), "db": graph.value((8, 4, 5)), "dw": graph.value((5, 5))}
    x = graph.leaf("x", (4096, 5), "inputs", offset=0, name="x")
    apply_effect(graph, "matmul_forward", a=v["a"], b=v["b"], y=v["y"])
    apply_effect(graph, "matmul_backward_b", a=v["a"], dy=v["y"], db=v["db"])
    apply_effect(graph, "linear_backward_weight", x=x, dy=x, dw=v["dw"])
    to = lowered(graph)
    calls = chosen(to)
    assert kernels(calls) == [
        "to_bf16", "to_bf16", "matmul_forward_bf16", "matmul_backward_b_bf16", "to_bf16",
        "linear_backward_weight_bf16_parts",
    ]  # fmt: skip
    assert calls[2].operands["y"] is None  # the other product alone reads it
    assert calls[2].operands["y_half"].root is calls[3].operands["dy"].root
    assert calls[-1].operands["bias_parts"].size == 0
    for instruction in instructions_of(calls, to.batch):
        assert instruction.kernel.name in CUDA_KERNELS


def test_16_bits_take_half_the_memory() -> None:
    assert [types.item_size(letter, "float32") for letter in "fbh"] == [4, 2, 2]
    assert types.TYPES["b"].arithmetic == types.PROGRAM


def test_a_step() -> None:
    """Weights are read once; kernels of whole sequences round theirs themselves."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.layer = nn.Embedding(20, 8), nn.LSTM(8, 16)
            self.out = nn.Linear(16, 5)

        def forward(self, x: Any) -> Any:
            return self.out(self.layer(self.embedding(x))[0])

    x = np.zeros((6, 7), np.int64)
    with null_device("cuda") as null:
        trainer = fnn.Trainer(Tagger(), "cross_entropy", precision="bf16", device="cuda")
        trainer.fit(x, x % 5, epochs=1, batch_size=6, verbose=False)
    assert null.launches["round_bf16"] == 0
    assert not any(name.startswith("linear") and "bf16" not in name for name in null.launches)
    calls = [c for _, c, _ in null.programs[0].steps()]
    copied = [c for c in calls if c.kernel == "to_bf16"]
    assert not any(c.operands[0].segment == "params" for c in copied)  # the update writes them
    taken = [o for c in calls for _, p, o in c.arrays() if o.segment == "halves" and not p.writes]
    written = [o for c in calls for _, p, o in c.arrays() if o.segment == "halves" and p.writes]
    assert taken
    (loss,) = (c for c in calls if c.kernel == "cross_entropy_scaled_bf16")
    assert "dx" in {name for name, _, _ in loss.arrays()}  # where it works
    for operand in taken:  # whatever products take lies in what an update writes
        begin, end = operand.offset, operand.offset + 2 * math.prod(operand.dims)
        assert any(w.offset <= begin and end <= w.offset + 2 * math.prod(w.dims) for w in written)


@pytest.mark.parametrize("optimizer", [optim.Muon(), optim.Adam(max_norm=1.0)])
def test_weights_are_copied_where_something_else_changes_them(optimizer: optim.Optimizer) -> None:
    """Updates in passes, and what follows an update."""
    with null_device("cuda") as null:
        net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 5))
        trainer = fnn.Trainer(net, "cross_entropy", optimizer, precision="bf16", device="cuda")
        x = np.zeros((6, 8), np.float32)
        trainer.fit(x, np.zeros(6, np.int64), epochs=1, batch_size=6, verbose=False)
    calls = [c for _, c, _ in null.programs[0].steps()]
    assert not any(o.segment == "halves" for c in calls for _, _, o in c.arrays())
    assert any(c.kernel == "to_bf16" and c.operands[0].segment == "params" for c in calls)
