"""`precision`: what the factors of products are rounded to, in training and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import OptionError
from fastnn.kernels.cpu import tile_unit
from fastnn.kernels.rounding import round_bf16, round_fp16

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 20)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
SEQUENCES = RNG.normal(size=(24, 11, 5)).astype(np.float32)
LABELS = (SEQUENCES.sum((1, 2)) > 0).astype(np.int64)


@pytest.fixture(autouse=True)
def without_tile_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What any CPU computes; tests/train/test_precision_unit.py has the tile unit."""
    monkeypatch.setattr(tile_unit, "most_parts", lambda: 0)


def bf16(x: np.ndarray) -> np.ndarray:
    """The nearest number of 8 bits of mantissa, ties to even."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.rint(mantissa * 256), exponent - 8)


def close(got: Any, a: np.ndarray, b: np.ndarray, eps: float = 2.0**-23) -> bool:
    """Whether `got` is a @ b but for the roundings of float32's sums."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = (4 + np.sqrt(a.shape[1])) * eps * (np.abs(a) @ np.abs(b))
    return bool((np.abs(got - a @ b) <= bound + 1e-30).all())


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.LSTM(5, 16), nn.Linear(16, 2)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(x)[0][:, -1])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 33), nn.ReLU(), nn.Linear(33, 2))


def trainer(model: nn.Module, optimizer: Any = "adam", **options: Any) -> fnn.Trainer:
    return fnn.Trainer(model, "cross_entropy", optimizer, **{"device": "cpu", **options})


def losses(model: nn.Module, x: Any, y: Any, **options: Any) -> list[float]:
    history = trainer(model, **options).fit(x, y, epochs=6, batch_size=16, verbose=False)
    return list(history["loss"])


def test_round_bf16() -> None:
    x = np.concatenate([RNG.normal(size=1000), [0.0, -0.0, 1.00390625, 1.01171875, 3e38, -1e-30]])
    x = x.astype(np.float32)
    np.testing.assert_array_equal(round_bf16(x), bf16(x).astype(np.float32))
    special = np.array([np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(round_bf16(special), special)
    assert round_bf16(np.float32(3.4e38)) == np.inf  # beyond the largest by more than half


def test_round_fp16() -> None:
    """NumPy's float16 is the reference: subnormal numbers and the ends of the range, too."""
    edges = [65504, 65519.9, 65520, 1e30, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 2.0**-14, 1e-30]
    special = [0.0, np.inf, np.nan, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-14 - 2.0**-26]
    x = np.concatenate([RNG.normal(size=1000), 1e-6 * RNG.normal(size=1000), edges, special])
    for numbers in (x, -x):
        for dtype in (np.float32, np.float64):
            given = numbers.astype(dtype)
            with np.errstate(over="ignore"):
                want = given.astype(np.float16).astype(dtype)
            got = round_fp16(given)
            np.testing.assert_array_equal(got, want)
            np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


@pytest.mark.parametrize(("n", "c", "k"), [(1, 1, 1), (3, 17, 5), (64, 130, 33), (70, 520, 1030)])
def test_a_product(n: int, c: int, k: int) -> None:
    model, x = nn.Linear(c, k, bias=False), RNG.normal(size=(n, c)).astype(np.float32)
    w = model.weight.value.T
    got = model.predict(x, precision="bf16")
    assert close(got, bf16(x), bf16(w))
    assert close(got, x, w, eps=2.0**-7)
    assert close(model.predict(x), x, w)
    assert c == 1 or not close(got, x, w)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 17, 5), (64, 130, 33), (70, 520, 1030)])
def test_gradients_of_a_product(n: int, c: int, k: int) -> None:
    """Of sum(r * (x @ w)): dw = x.T @ r, and dx by the layer before; both round their factors."""
    model = nn.Sequential(nn.Linear(2, c, bias=False), nn.Linear(c, k, bias=False))
    x, r = (RNG.normal(size=(n, s)).astype(np.float32) for s in (2, k))
    step = fnn.compile(model, lambda y, t: (y * t).sum(), "sgd", precision="bf16", device="cpu")
    found = list(step.gradients(x, r).values())
    second = model[1].weight.value.T
    hidden = model[0].predict(x, precision="bf16")
    assert close(found[1].T, bf16(hidden).T, bf16(r))
    dx = (bf16(r) @ bf16(second).T).astype(np.float32)
    assert np.allclose(found[0].T, bf16(x).T @ bf16(dx), rtol=0, atol=0.02 * np.abs(dx).max())


def test_batched_products() -> None:
    class Product(nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a @ b

    a, b = (RNG.normal(size=s).astype(np.float32) for s in ((4, 3, 9), (4, 9, 6)))
    got = Product().predict(a, b, precision="bf16")
    for found, left, right in zip(got, a, b, strict=True):
        assert close(found, bf16(left), bf16(right))


@pytest.mark.parametrize(("make", "x", "y"), [(mlp, X, Y), (Reader, SEQUENCES, LABELS)])
def test_training(make: Any, x: Any, y: Any) -> None:
    """Other numbers than at the highest precision, nearly the same losses; workers change none."""
    highest, lower = losses(make(), x, y), losses(make(), x, y, precision="bf16")
    assert highest != lower
    np.testing.assert_allclose(lower, highest, rtol=0.01)
    for workers in (2, 3):
        assert losses(make(), x, y, precision="bf16", workers=workers) == lower


def test_a_loop() -> None:
    """Factors are rounded anew in each step of a loop."""

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(4, 4, bias=False)

        def forward(self, x: Any) -> Any:
            def body(x_t: Any, h: Any) -> Any:
                h = self.cell(h + x_t)
                return h, h

            return fnn.ops.loop(body, x, fnn.ops.zeros_state(x, 4))[1]

    x = RNG.normal(size=(5, 3, 4)).astype(np.float32)
    model = Loop()
    want, w = np.zeros((5, 4)), bf16(model.cell.weight.value.T)
    for t in range(3):
        want = bf16((want + x[:, t]).astype(np.float32)) @ w
    got = model.predict(x, precision="bf16")
    np.testing.assert_allclose(got, want, rtol=0, atol=2.0**-8 * np.abs(want).max())
    assert (got != model.predict(x)).any()
    lower = losses(Loop(), x, LABELS[:5], precision="bf16")
    assert lower != losses(Loop(), x, LABELS[:5])
    assert lower == losses(Loop(), x, LABELS[:5], precision="bf16", workers=2)


def test_resume(tmp_path: Path) -> None:
    whole = losses(mlp(), X, Y, precision="bf16")
    first = trainer(mlp(), precision="bf16")
    first.fit(X, Y, epochs=3, batch_size=16, verbose=False)
    first.save(tmp_path / "half.safetensors")
    second = trainer(mlp(), precision="bf16")
    path = tmp_path / "half.safetensors"
    rest = second.fit(X, Y, epochs=6, batch_size=16, verbose=False, resume=path)
    assert list(rest["loss"])[-3:] == whole[3:]


def test_a_trainer_predicts_at_its_precision() -> None:
    own = trainer(mlp(), precision="bf16")
    lower = own.predict(X)
    np.testing.assert_array_equal(lower, own.model.predict(X, precision="bf16"))
    assert (lower != own.model.predict(X)).any()
    np.testing.assert_array_equal(lower, own.predict(X, batch_size=7))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_more_than_is_asked_for(precision: str) -> None:
    """Without a tile unit parts of factors save nothing."""
    assert losses(mlp(), X, Y, precision=precision) == losses(mlp(), X, Y)


def test_what_is_refused() -> None:
    for given in ("tf32", "bfloat16", None, 16):
        with pytest.raises(OptionError, match="precision: expected one of"):
            trainer(mlp(), precision=given)
    with pytest.raises(OptionError, match="it is for float32, and the dtype is 'float64'"):
        fnn.compile(mlp(), "cross_entropy", dtype="float64", precision="bf16", device="cpu")
    with pytest.raises(OptionError, match="precision: expected one of"):
        mlp().predict(X, precision="half")
