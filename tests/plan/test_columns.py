"""Which products are split by columns of their weight, and that this changes no bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.plan.lower import products
from fastnn.plan.lower.products import columns_move_less

COLUMNS, ROWS = "linear_forward_columns", "linear_forward"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 784)).astype(np.float32)
Y = np.arange(24) % 10


def forward_kernels(model: Any, x: Any, y: Any, batch: int) -> list[str]:
    """The products of a training step, in order."""
    trainer = fnn.Trainer(model, "cross_entropy")
    trainer.fit(x, y, batch_size=batch, verbose=False)
    calls = next(iter(trainer._built.values())).program.calls()
    return [call.kernel for call in calls if call.kernel.startswith(ROWS)]


def test_by_what_moves_between_two_workers() -> None:
    sizes = [(n, 784, 128) for n in (1, 2, 8, 27, 28, 128)] + [(8, 256, 256), (63, 512, 512)]
    assert [columns_move_less(*size) for size in sizes] == [
        False, True, True, True, False, False, False, True
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("units", "batch", "wanted"), [(128, 20, COLUMNS), (300, 8, COLUMNS), (300, 1, ROWS)]
)
def test_the_large_layer_of_a_small_batch(units: int, batch: int, wanted: str) -> None:
    """(Smaller weights of smaller batches: `test_taking`.)"""
    model = nn.Sequential(nn.Linear(784, units), nn.ReLU(), nn.Linear(units, 10))
    assert forward_kernels(model, X, Y, batch) == [wanted, ROWS]


class Loop(nn.Module):
    """A state that goes through a large layer in each step."""

    def __init__(self) -> None:
        self.step, self.out = nn.Linear(320, 320), nn.Linear(320, 10)

    def forward(self, x: Any) -> Any:
        return self.out(ops.loop(lambda x_t, h: (ops.tanh(self.step(x_t + h)),) * 2, x, x[:, 0])[1])


def test_rows_go_through_a_loop_without_a_barrier() -> None:
    assert columns_move_less(4, 320, 320)
    x = RNG.standard_normal((4, 3, 320)).astype(np.float32)
    assert COLUMNS not in forward_kernels(Loop(), x, Y[:4], 4)


@pytest.mark.parametrize("batch", [17, 20, 24])
def test_the_same_bits(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(workers: int) -> bytes:
        model = nn.Sequential(nn.Linear(784, 131), nn.ReLU(), nn.Linear(131, 10))
        trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(), workers=workers, seed=2)
        trainer.fit(X, Y, batch_size=batch, epochs=2, verbose=False)
        return b"".join(p.tobytes() for p in trainer.get_parameters().values())

    found = {trained(workers) for workers in (1, 2, 3)}
    monkeypatch.setattr(products, "SHARED", 1 << 30)
    assert found == {trained(1)}
