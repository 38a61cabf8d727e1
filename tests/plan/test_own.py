"""Which gradients of weights copy their factors, and that trainings keep their bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.graph.graph import Graph
from fastnn.kernels.matmul.cpu import choose_linear
from fastnn.kernels.matmul.cpu_own import own_scratch
from fastnn.ops.declare import apply_effect
from fastnn.plan import products
from fastnn.plan.lower import Lowering
from tests.plan.test_turned import on

PLAIN, OWN = "linear_backward_weight", "linear_backward_weight_own"


def kernels(n: int, c: int, k: int) -> list[str]:
    """Of the gradients of two weights with the same factors."""
    graph = Graph(batch=n, dtype="float32")
    x, dy = graph.value((n, c)), graph.value((n, k))
    for _ in range(2):
        apply_effect(graph, PLAIN, x=x, dy=dy, dw=graph.value((c, k)))
    calls = products.chosen(Lowering(graph, device="cpu"))
    for call in calls:
        if call.kernel == OWN:
            assert call.operands["scratch"].shape == (c, own_scratch(n))
    return [call.kernel for call in calls]


@pytest.mark.parametrize(("vector_bits", "registers"), [(256, 16), (512, 32)])
def test_large_ones(vector_bits: int, registers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is packed before them, for all workers together."""
    for _ in on(monkeypatch, vector_bits, registers):
        assert kernels(64, 512, 512) == [OWN, OWN]
        assert kernels(64, 256, 256) == [PLAIN, PLAIN]
        many = OWN if vector_bits == 256 else PLAIN
        assert kernels(256, 256, 256) == [many, many]
        assert kernels(1024, 128, 128) == [many, many]
        assert kernels(1024, 64, 64) == [PLAIN, PLAIN]


def trained(workers: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 21)).astype("float32"), rng.integers(0, 70, 600)
    net = nn.Sequential(nn.Linear(21, 150), nn.Tanh(), nn.Linear(150, 70))
    trainer = fnn.Trainer(net, "cross_entropy", optim.Adam(), workers=workers, seed=3)
    trainer.fit(x, y, epochs=2, batch_size=530, verbose=False)
    return trainer.get_parameters()


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_trainings_keep_their_bits(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def choose_as(way: str) -> Any:
        def choose(rows: int, *sizes: int) -> Any:
            asked.append(rows)
            return choose_linear(rows, *sizes)._replace(backward_weight=way)

        return choose

    monkeypatch.setattr(products, "choose_linear", choose_as(OWN))
    found = trained(workers)
    assert set(asked) == {530, 70}
    monkeypatch.setattr(products, "choose_linear", choose_as(PLAIN))
    for name, array in trained(1).items():
        assert np.array_equal(array, found[name]), name
