"""Dropout whose rate is a number in memory, and falls from epoch to epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import callbacks, nn, optim
from fastnn.errors import OptionError
from fastnn.optim import schedules
from tests.nn.test_noise import trained

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3000, 6))


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5])
def test_is_dropout(p: float) -> None:
    """The same random numbers, to the last bit where the rate is exact."""
    found, model = trained(nn.AnnealedDropout(p), X)
    want, _ = trained(nn.Dropout(p), X)
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(model.predict(X), X)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 40), nn.AnnealedDropout(0.5), nn.ReLU(), nn.AnnealedDropout(0.2),
        nn.Linear(40, 2),
    )  # fmt: skip


def test_another_rate_needs_no_new_program() -> None:
    model = nn.Sequential(nn.AnnealedDropout(0.5))
    seen = nn.Parameter((1,), 1.0)

    class Kept(nn.Module):
        def __init__(self) -> None:
            self.inner, self.scale = model, seen

        def forward(self, x: Any) -> Any:
            return self.inner(x) * self.scale

    step = fnn.compile(Kept(), lambda y, _: y.mean(), optim.SGD(lr=0.0), dtype="float64")
    ones = np.ones((4000, 5))
    step(ones, ones)
    step.gradients(ones, ones)
    programs = len(step._ready)
    for p in (0.1, 0.9, 0.0, 0.99, 0.5):
        model[0].set_rate(p)
        kept = step.gradients(ones, ones)["scale"][0]
        spread = np.sqrt(p / (1 - p) / ones.size)
        assert kept == pytest.approx(1.0, abs=5 * spread + 1e-9)
        step(ones, ones)
    assert len(step._ready) == programs


def test_the_rate_falls_as_in_the_paper() -> None:
    model, rates = net(), []
    x, y = X[:64].astype("f"), X[:64, :2].astype("f")

    class Look(callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            rates.append([float(model[k].rate.value[0]) for k in (1, 3)])

    trainer = fnn.Trainer(model, "mse", "adam")
    history = trainer.fit(
        x, y, epochs=6, callbacks=[Look(), callbacks.AnnealDropout(4)], verbose=False
    )
    want = [max(0.0, 1 - epoch / 4) for epoch in range(6)]
    np.testing.assert_allclose(rates, [[0.5 * w, 0.2 * w] for w in want], rtol=1e-6)
    np.testing.assert_allclose(history["dropout"], [0.5 * w for w in want], rtol=1e-6)


@pytest.mark.parametrize(
    "schedule", [3, schedules.Exponential(0.5), lambda epoch, p: p / (1 + epoch)]
)
def test_workers_and_resume(schedule: Any, tmp_path: Path) -> None:
    x, y = X[:60].astype("f"), X[:60, :2].astype("f")
    options: dict[str, Any] = {"batch_size": 8, "verbose": False}

    def made(workers: int) -> fnn.Trainer:
        return fnn.Trainer(net(), "mse", "adam", workers=workers)

    def bits(trainer: fnn.Trainer) -> list[bytes]:
        return [v.tobytes() for v in trainer.get_parameters().values()]

    def calls() -> Any:
        return [callbacks.AnnealDropout(schedule)]

    found = []
    for workers in (1, 2, 3, 4):
        trainer = made(workers)
        trainer.fit(x, y, epochs=3, callbacks=calls(), **options)
        found.append(bits(trainer))
    assert all(one == found[0] for one in found)
    first = made(2)
    first.fit(x, y, epochs=1, callbacks=calls(), **options)
    first.save(tmp_path / "run")
    again = made(3)
    again.fit(x, y, epochs=3, callbacks=calls(), resume=tmp_path / "run", **options)
    assert bits(again) == found[0]


def test_wrong() -> None:
    x = X[:8].astype("f")
    for wrong in (-0.1, 1.0, 1.5, "a", None, float("nan")):
        with pytest.raises(OptionError):
            nn.AnnealedDropout(wrong)  # type: ignore[arg-type]
        with pytest.raises(OptionError):
            nn.AnnealedDropout().set_rate(wrong)  # type: ignore[arg-type]
    for wrong in (0, -1, 1.5, None, "a"):
        with pytest.raises(OptionError, match="a number of epochs >= 1"):
            callbacks.AnnealDropout(wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"expected a model with nn\.AnnealedDropout"):
        fnn.Trainer(nn.Linear(6, 2), "mse").fit(
            x, x[:, :2], callbacks=[callbacks.AnnealDropout(3)], verbose=False
        )
    with pytest.raises(OptionError, match=r"rate in \[0, 1\) for epoch 0, got 2\.0"):
        fnn.Trainer(net(), "mse").fit(
            x, x[:, :2], callbacks=[callbacks.AnnealDropout(lambda e, p: 2.0)], verbose=False
        )
