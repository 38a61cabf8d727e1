"""Which products of few rows take a weight from other workers' caches, and that no bit changes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.kernels.control_block import WORKERS
from fastnn.kernels.matmul.cpu import TAKEN_ROWS
from fastnn.plan import products, taking
from tests.plan.test_columns import COLUMNS, ROWS, X, Y, forward_kernels

TAKING = "linear_forward_taking"
IMAGES = np.random.default_rng(1).standard_normal((24, 1, 28, 28)).astype(np.float32)


def perceptron(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for c, k in itertools.pairwise(sizes):
        layers += [nn.Linear(c, k), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    ("sizes", "batch", "wanted"),
    [
        ((784, 128, 10), 1, [TAKING, ROWS]),
        ((784, 128, 10), TAKEN_ROWS, [TAKING, ROWS]),
        ((784, 128, 10), TAKEN_ROWS + 1, [COLUMNS, ROWS]),
        ((784, 128, 128, 10), 4, [TAKING, TAKING, ROWS]),
        # too large to stay in a core's cache: the first alone, and both together
        ((784, 260, 10), 4, [COLUMNS, ROWS]),
        ((784, 150, 700, 10), 4, [COLUMNS, COLUMNS, ROWS]),
        # too small to matter
        ((784, 10, 10), 4, [ROWS, ROWS]),
    ],
)
def test_small_batches_and_weights(sizes: tuple[int, ...], batch: int, wanted: list[str]) -> None:
    assert forward_kernels(perceptron(*sizes), X, Y, batch) == wanted


class Convolved(nn.Module):
    def __init__(self) -> None:
        self.convolution, self.out = nn.Conv2d(1, 2, 5), nn.Linear(2 * 24 * 24, 10)

    def forward(self, x: Any) -> Any:
        return self.out(nn.Flatten()(self.convolution(x)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        self.cells, self.out = nn.LSTM(28, 128), nn.Linear(128, 100)

    def forward(self, x: Any) -> Any:
        return self.out(self.cells(x)[0][:, -1])


class Looped(nn.Module):
    def __init__(self) -> None:
        self.step, self.out = nn.Linear(28, 28), nn.Linear(28, 400)

    def forward(self, x: Any) -> Any:
        return self.out(ops.loop(lambda a, h: (ops.tanh(self.step(a + h)),) * 2, x, x[:, 0])[1])


@pytest.mark.parametrize("kind", [Convolved, Recurrent, Looped])
def test_one_worker_is_not_given_the_rest_of_the_net(kind: type[nn.Module]) -> None:
    x = IMAGES if kind is Convolved else IMAGES[:, 0]
    kernels = forward_kernels(kind(), x, Y, 8)
    assert kernels
    assert TAKING not in kernels


def test_weights_that_the_step_does_not_write_are_left_alone() -> None:
    """Somebody else may write them meanwhile, which writing back what they were would undo."""
    model = perceptron(784, 128, 128, 10)
    model[0].weight.trainable = False
    assert forward_kernels(model, X, Y, 8) == [COLUMNS, TAKING, ROWS]


def test_an_evaluation_writes_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    taken = taking.taking

    def look(lowered: Any, given: Any) -> Any:
        found = taken(lowered, given)
        seen.extend(call.kernel for call in found)
        return found

    trainer = fnn.Trainer(perceptron(784, 128, 10), "cross_entropy")
    monkeypatch.setattr(products, "taking", look)
    trainer.evaluate(X, Y, batch_size=8)
    trainer.model.predict(X[:1])
    assert COLUMNS in seen
    assert TAKING not in seen


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_the_same_bits(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(workers: int) -> bytes:
        trainer = fnn.Trainer(
            perceptron(784, 131, 67, 10), "cross_entropy", optim.Adam(), workers=workers, seed=2
        )
        trainer.fit(X, Y, batch_size=batch, epochs=2, verbose=False)
        return b"".join(p.tobytes() for p in trainer.get_parameters().values())

    found = {trained(workers) for workers in (1, 2, 3)}
    monkeypatch.setattr(products, "taking", lambda lowered, given: given)
    assert found == {trained(1)}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_run_says_how_many_workers_it_has(workers: int) -> None:
    trainer = fnn.Trainer(perceptron(784, 128, 10), "cross_entropy", workers=workers)
    trainer.fit(X, Y, batch_size=8, verbose=False)
    assert trainer.session.control[WORKERS] == workers
