"""Where a trainer's data come from, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.callbacks import LambdaCallback
from fastnn.errors import DataError
from fastnn.train.slices import permutation
from tests.train.models import fresh, state, vectors
from tests.train.test_trainer import QUIET, same, trained

# ---------------------------------------------------------------- sources of data


def test_lists_are_arrays() -> None:
    x, y = vectors(24)
    assert same(trained(x.tolist(), y.tolist()), trained(x.astype(np.float64), y))
    assert same(trained(x, y.tolist()), trained(x, y))


def test_memory_maps_are_read_in_place(tmp_path: Path) -> None:
    x, y = vectors(32)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape)
    trainer, read = fresh("mlp", optimizer="sgd"), []
    look = LambdaCallback(
        on_train_end=lambda logs: read.append(trainer.session.memory["data/x0"].ctypes.data)
    )
    trainer.fit(mapped, y, batch_size=8, epochs=2, callbacks=look, **QUIET)
    assert same(trainer.get_parameters(), trained(x, y))
    # so is a plain array
    trainer.fit(x, y, batch_size=8, callbacks=look, **QUIET)
    assert read == [mapped.ctypes.data, x.ctypes.data]


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float64", "float16"])
def test_element_types_of_inputs(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2 if dtype == "bool" else 256, (24, 6)).astype(dtype)
    y = rng.integers(0, 4, 24)
    assert same(trained(x, y), trained(x.astype(np.float32), y))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "uint32"])
def test_element_types_of_targets(dtype: str) -> None:
    x, y = vectors(24)
    assert same(trained(x, y.astype(dtype)), trained(x, y))


def test_arrays_that_are_not_contiguous() -> None:
    x, y = vectors(48)
    assert same(trained(x[::2], y[::2]), trained(x[::2].copy(), y[::2].copy()))
    assert same(trained(np.asfortranarray(x), y), trained(x, y))


class Batches:
    """Can be iterated again and again; counts how often."""

    def __init__(self, x: np.ndarray, y: np.ndarray, size: int):
        self.x, self.y, self.size, self.rounds = x, y, size, 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.rounds += 1
        for k in range(0, len(self.x), self.size):
            yield self.x[k : k + self.size], self.y[k : k + self.size]


def test_iterable_of_batches_is_like_arrays_in_order() -> None:
    x, y = vectors(27)  # the last batch has 3
    source = Batches(x, y, 8)
    assert same(trained(source), trained(x, y, shuffle=False))
    assert source.rounds == 2
    assert same(trained(list(Batches(x, y, 8)), None), trained(x, y, shuffle=False))


def test_generator_serves_one_epoch() -> None:
    x, y = vectors(16)
    trainer = fresh("mlp", optimizer="sgd")
    trainer.fit(iter(Batches(x, y, 8)), epochs=1, **QUIET)
    assert same(trainer.get_parameters(), trained(x, y, shuffle=False, epochs=1))
    with pytest.raises(DataError, match=r"exhausted after one epoch.*epochs=1"):
        fresh("mlp").fit(iter(Batches(x, y, 8)), epochs=2, **QUIET)


def test_no_targets_means_the_inputs() -> None:
    x, _ = vectors(16)
    models = [nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 6)) for _ in range(2)]
    results = []
    for model, y in zip(models, (None, x), strict=True):
        trainer = fnn.Trainer(model, "mse", "sgd")
        results.append(trainer.fit(x, y, batch_size=8, **QUIET)["loss"])
        results.append(trainer.get_parameters())
    assert results[0] == results[2]
    assert same(results[1], results[3])


# ---------------------------------------------------------------- order


class Seen(nn.Module):
    """With one-hot samples, its gradient tells which of them were in the batch."""

    def __init__(self, samples: int):
        self.count = nn.Parameter((samples,), 0.0)

    def forward(self, x: Any) -> Any:
        return ops.sum_features(ops.multiply(x, self.count))


class Order(fnn.callbacks.Callback):
    needs_gradients = True

    def __init__(self, model: Seen):
        self.net, self.batches = model, []

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.batches.append(np.flatnonzero(self.net.count.grad).tolist())


def batches_of(samples: int, batch: int, epochs: int = 1, seed: int = 0, **fit: Any) -> list[Any]:
    model = Seen(samples)
    order = Order(model)
    trainer = fnn.Trainer(model, lambda o, t: ops.total(o), optim.SGD(lr=1.0), seed=seed)
    x = np.eye(samples, dtype=np.float32)
    trainer.fit(x, x[:, 0], batch_size=batch, epochs=epochs, callbacks=[order], **QUIET, **fit)
    if not fit.get("drop_last"):  # each sample once per epoch
        assert (model.count.value == -epochs).all()
    return order.batches


def test_shuffling_is_a_permutation() -> None:
    first, second = batches_of(23, 4)[:6], batches_of(23, 4, epochs=2)[6:]
    for epoch in (first, second):
        assert [len(b) for b in epoch] == [4] * 5 + [3]
        assert sorted(i for b in epoch for i in b) == list(range(23))
    assert first != second
    assert first == batches_of(23, 4, epochs=3)[:6]
    assert first != batches_of(23, 4, seed=1)
    wanted = permutation(0, 1, 23)
    assert [sorted(wanted[k : k + 4].tolist()) for k in range(0, 23, 4)] == second


def test_order_does_not_depend_on_the_batch_size() -> None:
    small, large = batches_of(24, 4), batches_of(24, 8)
    assert [sorted(a + b) for a, b in zip(small[::2], small[1::2], strict=True)] == large


def test_no_shuffling() -> None:
    assert batches_of(7, 3, shuffle=False) == [[0, 1, 2], [3, 4, 5], [6]]


def test_drop_last() -> None:
    kept = batches_of(23, 4, epochs=2, drop_last=True)
    assert [len(b) for b in kept] == [4] * 10
    left_out = [set(range(23)) - {i for b in kept[k : k + 5] for i in b} for k in (0, 5)]
    assert all(len(s) == 3 for s in left_out)
    assert left_out[0] != left_out[1]


def test_epochs_go_on() -> None:
    x, y = vectors(20)
    once, parts = fresh("mlp"), fresh("mlp")
    history = once.fit(x, y, epochs=5, batch_size=8, **QUIET)
    pieces = [parts.fit(x, y, epochs=n, batch_size=8, **QUIET) for n in (2, 0, 3)]
    assert state(parts) == state(once)
    assert [e for piece in pieces for e in piece.epoch] == history.epoch == list(range(5))
    assert [v for p in (pieces[0], pieces[2]) for v in p["loss"]] == history["loss"]
    assert parts.step == 15
    assert history.stopped == "completed"
    assert history.params["steps"] == 3
