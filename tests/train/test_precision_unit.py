"""`precision` on CPUs with a tile unit; on others its sums are made by multiply-adds here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.kernels.cpu import tile_unit
from fastnn.kernels.matmul.cpu_unit import PARTS, pays

RNG = np.random.default_rng(0)
X = RNG.normal(size=(170, 70)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
#: what a product may be off by, of the sum of its terms' magnitudes: see test_tile_unit
LIMITS = {"bf16": 2.1 * 2.0**-8, "medium": 3.1 * 2.0**-16, "high": 2.1 * 2.0**-24}
LEVELS = list(LIMITS)


@pytest.fixture(autouse=True)
def unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are planned for the unit on any CPU."""
    tile_unit.usable()  # asks for the permission
    monkeypatch.setattr(tile_unit, "usable", lambda: True)


def off(got: Any, a: np.ndarray, b: np.ndarray) -> float:
    """The largest error, as a share of the sum of the terms' magnitudes."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((np.abs(got - a @ b) / (np.abs(a) @ np.abs(b))).max())


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(70, 130), nn.ReLU(), nn.Linear(130, 100), nn.ReLU(), nn.Linear(100, 2)
    )


def losses(
    model: nn.Module, batch: int = 64, x: np.ndarray = X, y: np.ndarray = Y, **options: Any
) -> list[float]:
    trainer = fnn.Trainer(model, "cross_entropy", "adam", device="cpu", **options)
    history = trainer.fit(x, y, epochs=5, batch_size=batch, verbose=False)
    return list(history["loss"])


def sums(depth: int) -> float:
    """What float32's sums of so many terms add to an error."""
    return float((18 + depth) * 2.0**-24)


@pytest.mark.parametrize("precision", LEVELS)
@pytest.mark.parametrize(("n", "c", "k"), [(64, 130, 70), (90, 520, 130)])
def test_products(n: int, c: int, k: int, precision: str) -> None:
    assert pays(n, c, k, PARTS[precision])
    model = nn.Sequential(nn.Linear(70, c, bias=False), nn.Linear(c, k, bias=False))
    x, r = X[:n], RNG.normal(size=(n, k)).astype(np.float32)
    limit = LIMITS[precision]
    hidden = model[0].predict(x, precision=precision)
    out = model[1].predict(hidden, precision=precision)
    first, second = (layer.weight.value.T for layer in model)
    assert off(hidden, x, first) < limit + sums(70)
    assert limit / 30 < off(out, hidden, second) + sums(c) < limit + 2 * sums(c)
    step = fnn.compile(model, lambda y, t: (y * t).sum(), "sgd", precision=precision, device="cpu")
    found = [g.T for g in step.gradients(x, r).values()]
    assert off(found[1], hidden.T, r) < limit + sums(n)
    dx = r.astype(np.float64) @ second.T.astype(np.float64)
    magnitude = np.abs(x).T @ (np.abs(r) @ np.abs(second).T)
    assert (np.abs(found[0] - x.T @ dx) < (2 * limit + sums(n) + sums(k)) * magnitude).all()


@pytest.mark.parametrize("precision", LEVELS)
def test_training(precision: str) -> None:
    """Nearly the losses of the highest precision, the more so the higher; workers change no bit."""
    highest, own = losses(mlp()), losses(mlp(), precision=precision)
    assert own != highest
    rtol = {"bf16": 0.02, "medium": 2e-4, "high": 2e-5}[precision]
    np.testing.assert_allclose(own, highest, rtol=rtol)
    for workers in (2, 3):
        assert losses(mlp(), precision=precision, workers=workers) == own


def test_small_products_stay_as_they_are() -> None:
    """Of few rows: quicker by multiply-adds, at the highest precision."""
    model = mlp()
    few = model.predict(X[:7], precision="bf16")
    np.testing.assert_array_equal(few, model.predict(X[:7]))
    assert (model.predict(X, precision="bf16") != model.predict(X)).any()
    assert losses(mlp(), batch=5, precision="bf16") == losses(mlp(), batch=5)


def test_float64_is_left_alone() -> None:
    with pytest.raises(fnn.errors.OptionError, match="it is for float32"):
        losses(mlp(), precision="medium", dtype="float64")


def test_a_run_goes_on_with_the_same_bits(tmp_path: Any) -> None:
    whole = losses(mlp(), precision="medium")
    options: dict[str, Any] = {"device": "cpu", "precision": "medium"}
    first = fnn.Trainer(mlp(), "cross_entropy", "adam", **options)
    first.fit(X, Y, epochs=2, batch_size=64, verbose=False)
    path = tmp_path / "half.safetensors"
    first.save(path)
    second = fnn.Trainer(mlp(), "cross_entropy", "adam", **options)
    again = second.fit(X, Y, epochs=5, batch_size=64, verbose=False, resume=path)
    assert list(again["loss"])[-3:] == whole[2:]


@pytest.mark.parametrize("precision", LEVELS)
def test_a_loop(precision: str) -> None:
    """The products of a loop's steps, and the gradient over the rows of all of them."""

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.Linear(70, 70), nn.Linear(70, 2)

        def forward(self, x: Any) -> Any:
            def body(x_t: Any, h: Any) -> Any:
                h = (self.cell(h) + x_t).tanh()
                return h, h

            return self.out(fnn.ops.loop(body, x, fnn.ops.zeros_state(x, 70))[1])

    x = RNG.normal(size=(64, 3, 70)).astype(np.float32)
    options: dict[str, Any] = {"x": x, "y": Y[:64]}
    own = losses(Loop(), precision=precision, **options)
    np.testing.assert_allclose(own, losses(Loop(), **options), rtol=0.02)
    assert own == losses(Loop(), precision=precision, workers=2, **options)
