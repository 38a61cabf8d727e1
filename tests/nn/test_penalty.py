"""Penalties on parameters: values and slopes, which parameters, what is reported, full batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import FastnnError, OptionError, ShapeError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 5))


def orthogonal(w: np.ndarray) -> float:
    return float(((w @ w.T - np.eye(len(w))) ** 2).sum())


#: by penalty: its value and its slope, of a weight (rows, columns)
PENALTIES: dict[str, tuple[nn.Penalty, Callable[..., float], Callable[..., Any]]] = {
    "l1": (nn.L1Penalty(0.3), lambda w: 0.3 * np.abs(w).sum(), lambda w: 0.3 * np.sign(w)),
    "l2": (nn.L2Penalty(0.3), lambda w: 0.15 * (w**2).sum(), lambda w: 0.3 * w),
    "elastic net": (
        nn.ElasticNetPenalty(0.3, 0.4),
        lambda w: 0.3 * np.abs(w).sum() + 0.2 * (w**2).sum(),
        lambda w: 0.3 * np.sign(w) + 0.4 * w,
    ),
    "orthogonal": (
        nn.OrthogonalPenalty(0.3),
        lambda w: 0.3 * min(orthogonal(w), orthogonal(w.T)),
        lambda w: (
            1.2 * w @ (w.T @ w - np.eye(w.shape[1]))
            if w.shape[0] > w.shape[1]
            else 1.2 * (w @ w.T - np.eye(len(w))) @ w
        ),
    ),
}


class Shown(nn.Module):
    """A linear layer whose weight lies in memory as it is shown."""

    def __init__(self, inputs: int, outputs: int):
        self.weight, self.bias = nn.Parameter((outputs, inputs), 0.3), nn.Parameter((outputs,), 0.1)

    def forward(self, x: Value) -> Value:
        return ops.linear(x, self.weight, self.bias)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 1), (17, 16)])
def test_value_and_slope(name: str, transposed: bool, shape: tuple[int, int]) -> None:
    penalty, value, slope = PENALTIES[name]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, shape[1])), rng.normal(size=(4, shape[0]))
    model = nn.Linear(shape[1], shape[0]) if transposed else Shown(*shape[::-1])
    assert model.weight.transposed == transposed
    w = rng.normal(size=shape)
    w[0, 0] = 0.0  # where the slope of |w| is 0
    model.weight.value = w
    plain = fnn.compile(model, "mse", "sgd", dtype="float64")
    step = fnn.compile(model, "mse", optim.SGD(lr=0.0), penalties=penalty, dtype="float64")
    before, after = plain.gradients(x, y), step.gradients(x, y)
    np.testing.assert_allclose(after["weight"] - before["weight"], slope(w), atol=1e-12)
    np.testing.assert_array_equal(after["bias"], before["bias"])  # a vector has none
    assert step(x, y) == pytest.approx(plain.evaluate(x, y) + value(w), rel=1e-12)
    assert step.evaluate(x, y) == plain.evaluate(x, y)


@pytest.mark.parametrize("name", PENALTIES)
def test_slopes_by_differences(name: str) -> None:
    _, value, slope = PENALTIES[name]
    w, eps = RNG.normal(size=(4, 3)), 1e-6
    found = np.zeros_like(w)
    for place in np.ndindex(*w.shape):
        d = np.zeros_like(w)
        d[place] = eps
        found[place] = (value(w + d) - value(w - d)) / (2 * eps)
    np.testing.assert_allclose(found, slope(w), atol=1e-7)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 17), nn.Tanh(), nn.Linear(17, 5))


@pytest.mark.peers
def test_pytorch() -> None:
    torch = pytest.importorskip("torch")
    model = net()
    trainer = fnn.Trainer(
        model, "mse", optim.Adam(lr=0.05), dtype="float64",
        penalties={"0.weight": [nn.L1Penalty(0.01), nn.OrthogonalPenalty(0.02)],
                   "2.*": nn.L2Penalty(0.1)},
    )  # fmt: skip
    other = torch.nn.Sequential(
        torch.nn.Linear(3, 17), torch.nn.Tanh(), torch.nn.Linear(17, 5)
    ).double()
    other.load_state_dict({n: torch.tensor(v) for n, v in model.state_dict().items()})
    adam = torch.optim.Adam(other.parameters(), lr=0.05)
    for _ in range(10):
        adam.zero_grad()
        w, v = other[0].weight, other[2]
        loss = torch.nn.functional.mse_loss(other(torch.tensor(X)), torch.tensor(Y))
        loss = loss + 0.01 * w.abs().sum() + 0.05 * (v.weight.pow(2).sum() + v.bias.pow(2).sum())
        loss = loss + 0.02 * (w.T @ w - torch.eye(3)).pow(2).sum()
        loss.backward()
        adam.step()
    trainer.fit(X, Y, epochs=10, batch_size=20, shuffle=False, verbose=False)
    for name, value in other.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], value.numpy(), rtol=1e-9, atol=1e-11)


def test_reports_are_of_the_data() -> None:
    trainer = fnn.Trainer(net(), "mse", optim.SGD(lr=0.0), penalties=nn.L2Penalty(1.0))
    history = trainer.fit(X, Y, epochs=1, batch_size=7, verbose=False)
    assert history["loss"][0] == pytest.approx(trainer.evaluate(X, Y)["loss"], rel=1e-5)


def test_frozen_parameters_have_none() -> None:
    model = net()
    model.freeze("0.*")
    step = fnn.compile(
        model, "mse", optim.SGD(lr=0.0), dtype="float64", penalties=nn.L2Penalty(2.0)
    )
    plain = fnn.compile(model, "mse", "sgd", dtype="float64")
    w = model.state_dict()["2.weight"]
    assert step(X, Y) == pytest.approx(plain.evaluate(X, Y) + (w**2).sum(), rel=1e-12)


@pytest.mark.parametrize("name", PENALTIES)
def test_workers_and_resume(name: str, tmp_path: Path) -> None:
    def made(workers: int) -> fnn.Trainer:
        return fnn.Trainer(net(), "mse", "adam", penalties=PENALTIES[name][0], workers=workers)

    def bits(trainer: fnn.Trainer) -> list[bytes]:
        return [v.tobytes() for v in trainer.get_parameters().values()]

    options: dict[str, Any] = {"batch_size": 7, "verbose": False}
    found = []
    for workers in (1, 2, 3, 4):
        trainer = made(workers)
        trainer.fit(X, Y, epochs=3, **options)
        found.append(bits(trainer))
    assert all(one == found[0] for one in found)
    first = made(2)
    first.fit(X, Y, epochs=1, **options)
    first.save(tmp_path / "run")
    again = made(1)
    again.fit(X, Y, epochs=3, resume=tmp_path / "run", **options)
    assert bits(again) == found[0]


@pytest.mark.parametrize("loss", ["mse", nn.MSELoss(reduction="sum")])
def test_full_batch_in_blocks(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The minimum of ridge regression, whose equation is known."""
    from fastnn.train import full_batch

    monkeypatch.setattr(full_batch, "BLOCK", 64)
    x, y = RNG.normal(size=(150, 3)), RNG.normal(size=(150, 1))
    model = nn.Linear(3, 1, bias=False)
    trainer = fnn.Trainer(
        model, loss, optim.LBFGS(), dtype="float64", device="cpu", penalties=nn.L2Penalty(3.0)
    )
    trainer.fit(x, y, epochs=60, verbose=False)
    count = 1.0 if not isinstance(loss, str) else float(len(x))
    want = np.linalg.solve(2 * x.T @ x / count + 3.0 * np.eye(3), 2 * x.T @ y / count)
    np.testing.assert_allclose(model.weight.value, want.T, rtol=1e-5, atol=1e-8)


def test_gauss_newton_refuses() -> None:
    trainer = fnn.Trainer(
        nn.Linear(3, 5), "mse", "levenberg_marquardt", device="cpu", penalties=nn.L2Penalty(3.0)
    )
    with pytest.raises(OptionError, match="penalties: LevenbergMarquardt uses the curvature"):
        trainer.fit(X, Y, verbose=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nothing": nn.L1Penalty()}, "matches none of the model's"),
        ({"weight": nn.L1Penalty}, "expected one, such as nn.L2Penalty"),
        ({"weight": 0.1}, "expected one, such as nn.L2Penalty"),
        (0.1, "expected one, such as nn.L2Penalty"),
        ({1: nn.L1Penalty()}, "expected name patterns"),
    ],
)
def test_wrong_penalties(wrong: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fnn.Trainer(nn.Linear(3, 5), "mse", penalties=wrong)


def test_wrong_results() -> None:
    for penalty, kind in (
        (lambda w: ops.square(w), OptionError),
        (nn.OrthogonalPenalty(), ShapeError),
        (nn.Penalty(), FastnnError),
    ):
        trainer = fnn.Trainer(nn.Linear(3, 5), "mse", penalties={"bias": penalty})
        with pytest.raises(kind):
            trainer.fit(X, Y, verbose=False)
    for wrong in (-1.0, float("nan"), "a"):
        with pytest.raises(OptionError):
            nn.L1Penalty(wrong)  # type: ignore[arg-type]


#: losses with a penalty written out, on a weight that is kept transposed
WRITTEN: dict[str, Callable[[Any], Any]] = {
    "square": lambda w: ops.square(w).sum(),
    "operator": lambda w: (w**2).sum(),
    "method": lambda w: w.abs().sum(),
    "norm": lambda w: ops.sqrt(ops.square(w).sum()),
    "product": lambda w: ops.square(w @ w.T).sum(),
    "product with itself": lambda w: ops.matmul(w, ops.transpose(w)).mean(),
    "row": lambda w: ops.square(w[0]).sum(),
    "penalty": lambda w: nn.L1Penalty(1.0)(w),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_in_a_loss_of_ones_own(name: str) -> None:
    """Values and slopes are those of the shape that users see; a mean with them stays a mean."""
    term, (x, y) = WRITTEN[name], (X, Y)
    model = nn.Linear(3, 5)
    other = Shown(3, 5)  # keeps its weight as it is shown
    for m in (model, other):
        m.weight.value, m.bias.value = np.random.default_rng(2).normal(size=(5, 3)), np.zeros(5)
    mse = nn.MSELoss()
    found, want = (
        fnn.compile(m, lambda o, t, m=m: mse(o, t) + 0.1 * term(m.weight), "sgd", dtype="float64")
        for m in (model, other)
    )
    for key, value in want.gradients(x, y).items():
        np.testing.assert_allclose(found.gradients(x, y)[key], value, atol=1e-12)
    assert found.evaluate(x, y) == pytest.approx(want.evaluate(x, y), rel=1e-12)
    trainer = fnn.Trainer(
        model, lambda o, t: 0.1 * term(model.weight) + mse(o, t), "sgd", dtype="float64"
    )
    whole = trainer.evaluate(x, y, batch_size=20)["loss"]
    assert trainer.evaluate(x, y, batch_size=7)["loss"] == pytest.approx(whole, rel=1e-12)
    history = fnn.Trainer(
        model, lambda o, t: mse(o, t) + 0.1 * term(model.weight), optim.SGD(lr=0.0),
        dtype="float64",
    ).fit(x, y, batch_size=7, verbose=False)  # fmt: skip
    assert history["loss"][0] == pytest.approx(whole, rel=1e-12)
