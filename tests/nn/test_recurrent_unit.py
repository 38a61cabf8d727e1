"""Recurrent layers at lower precision on the CPU's tile unit (elsewhere by its sums)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.kernels.cpu import tile_unit

RNG = np.random.default_rng(0)
LAYERS = {
    "rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU,
}  # fmt: skip
#: room for the roundings of factors, of the largest element
ROOM = {"bf16": 0.03, "medium": 3e-4, "high": 3e-6}


@pytest.fixture(autouse=True)
def unit(monkeypatch: pytest.MonkeyPatch) -> None:
    tile_unit.usable()  # asks for the permission
    monkeypatch.setattr(tile_unit, "usable", lambda: True)


class Reader(nn.Module):
    def __init__(self, layer: str, inputs: int, hidden: int, **options: Any):
        super().__init__()
        self.first = nn.Linear(3, inputs)
        self.layer = LAYERS[layer](inputs, hidden, **options)

    def forward(self, x: Any, lengths: Any) -> Any:
        return self.layer(self.first(x), lengths=lengths)[0]


def gradients(model: nn.Module, x: Any, lengths: Any, r: Any, **options: Any) -> list[np.ndarray]:
    step = fnn.compile(
        model, lambda y, t: (y * t).sum(), "sgd", device="cpu", **{"workers": 1, **options}
    )
    return [np.array(g) for g in step.gradients((x, lengths), r).values()]


@pytest.mark.parametrize("precision", list(ROOM))
@pytest.mark.parametrize(
    ("layer", "inputs", "hidden", "batch", "steps", "options"),
    [
        ("lstm", 33, 64, 20, 37, {}),
        ("lstm", 70, 40, 14, 5, {"bidirectional": True}),
        ("gru", 20, 64, 17, 9, {}),
        ("gru", 20, 32, 15, 6, {"reset": "before"}),
        ("rnn", 40, 33, 40, 7, {}),
    ],
)
def test_gradients(
    layer: str, inputs: int, hidden: int, batch: int, steps: int, options: Any, precision: str
) -> None:
    """Outputs and all gradients are close to those of the highest precision, none are equal, and
    no bit depends on the workers."""
    model = Reader(layer, inputs, hidden, **options)
    x = RNG.normal(size=(batch, steps, 3)).astype(np.float32)
    lengths = RNG.integers(0, steps + 1, batch)
    size = model.predict(x[:1], lengths[:1]).shape
    r = RNG.normal(size=(batch, *size[1:])).astype(np.float32)
    wanted = gradients(model, x, lengths, r)
    found = gradients(model, x, lengths, r, precision=precision)
    wanted.append(model.predict(x, lengths))
    found.append(model.predict(x, lengths, precision=precision))
    for got, want in zip(found, wanted, strict=True):
        assert np.abs(got - want).max() <= ROOM[precision] * np.abs(want).max()
    assert any((got != want).any() for got, want in zip(found, wanted, strict=True))
    again = gradients(model, x, lengths, r, precision=precision, workers=2)
    for got, want in zip(again, found[:-1], strict=True):
        assert got.tobytes() == want.tobytes()
