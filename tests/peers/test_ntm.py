"""The Neural Turing Machine beside one in PyTorch: outputs, weightings and every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from benchmarks.sequences import machine
from fastnn import nn, ops

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytestmark = pytest.mark.peers


class Both(nn.Module):
    """Outputs and weightings in one array, (batch, steps, -1)."""

    def __init__(self, model: nn.NTM):
        self.ntm = model

    def forward(self, x: Any) -> Any:
        y, w = self.ntm(x)
        return ops.concatenate(y, ops.reshape(w, *w.shape[:2], -1), axis=2)


@pytest.mark.parametrize(
    "settings",
    [{}, {"controller": "feedforward", "read_heads": 2, "write_heads": 2, "shift": 2}],
    ids=["lstm", "feedforward, several heads"],
)
def test_outputs_and_gradients(settings: dict[str, Any]) -> None:
    model = nn.NTM(3, 2, slots=7, width=4, hidden_size=5, **settings).to("float64")
    model.initialize(1)
    theirs = machine.Ntm(model)
    rng = np.random.default_rng(4)
    x = rng.normal(size=(3, 9, 3))
    y, w = theirs(torch.from_numpy(x))
    want = torch.cat([y, w.flatten(2)], 2)
    weight = rng.normal(size=want.shape)
    (want * torch.from_numpy(weight)).sum().backward()

    both = Both(model)
    np.testing.assert_allclose(both.predict(x), want.detach().numpy(), rtol=1e-9, atol=1e-11)
    step = fnn.compile(
        both, lambda out, w: ops.sum(out * w), "sgd", dtype="float64", keep_gradients=True
    )
    step(x, weight)
    for name, parameter in model.named_parameters().items():
        other = theirs.parameters[name].grad.numpy()
        np.testing.assert_allclose(parameter.grad, other, rtol=1e-6, atol=1e-9, err_msg=name)
