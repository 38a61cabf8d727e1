"""Gradients of recurrent layers on CUDA against those on the CPU, whole sequences and by turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.graph.value import Value
from fastnn.kernels.recurrent.cuda_layout import Layout
from fastnn.plan.lower import Lowering, recurrent_cuda

LENGTHS = np.array([3, 0, 2])


class Model(nn.Module):
    """A recurrent layer; its outputs and final states side by side."""

    def __init__(self, layer: nn.Module):
        self.layer = layer

    def forward(self, x: Value, lengths: Any = None) -> Any:
        y, states = self.layer(x, lengths=lengths)
        flat = [v for s in states for v in (s if isinstance(s, tuple) else (s,))]
        return ops.concatenate(y.reshape(y.shape[0], y.shape[1] * y.shape[2]), *flat)


def weighted_sum(y: Value, weight: Value) -> Value:
    return ops.total(ops.multiply(y, weight))


@pytest.mark.parametrize("way", ["persistent", "cluster_held", "step"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("RNN", {"nonlinearity": "relu"}),
        ("LSTM", {"peepholes": True}),
        ("GRU", {}),
        ("GRU", {"reset": "before"}),
    ],
)
def test_gradients_agree_with_the_cpu(
    monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, Any], way: str
) -> None:
    layout = None
    if way != "step":
        layout = Layout(1, 2, 4, near=way.startswith("cluster"), held=way.endswith("_held"))
    monkeypatch.setattr(recurrent_cuda, "fits", lambda *sizes, **more: layout)
    monkeypatch.setattr(recurrent_cuda, "best", lambda *sizes, **more: layout)
    called: set[str] = set()
    call_for = Lowering.call_for

    def noted(to: Lowering, kernel: str, *rest: Any, **more: Any) -> None:
        called.add(kernel)
        call_for(to, kernel, *rest, **more)

    monkeypatch.setattr(Lowering, "call_for", noted)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 3, 2))
    x[2, 2] = np.nan  # past the end: nobody reads it
    finals = 2 if kind == "LSTM" else 1
    weight = rng.standard_normal((3, (3 + finals) * 5))
    found = []
    for device in ("cpu", "cuda"):
        model = Model(getattr(nn, kind)(2, 5, **options))
        step = fnn.compile(
            model, weighted_sum, optim.SGD(lr=0.0), dtype="float64", device=device, seed=1
        )
        found.append(step.gradients((x, LENGTHS), weight))
    for name, want in found[0].items():
        np.testing.assert_allclose(found[1][name], want, rtol=1e-12, atol=1e-12, err_msg=name)
        assert np.abs(want).max() > 0
    end = "_early" if way != "step" and "reset" in options else ""
    assert {f"{kind.lower()}_{way}_{d}{end}" for d in ("forward", "backward")} <= called
