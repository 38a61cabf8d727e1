"""vSGD against its papers' equations; the second gradient, of the same batch, changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from tests import naive_optimizers as naive
from tests.train.models import fresh, state, vectors

RNG = np.random.default_rng(0)
KINDS: dict[str, Any] = {"vsgd": optim.VSGD, "vsgd_fd": optim.VSGDfd}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 17))


def slopes(p: dict[str, Any], x: Any, y: Any) -> dict[str, Any]:
    """Of the mean square of the net above."""
    h = np.tanh(x @ p["0.weight"].T + p["0.bias"])
    d = 2 * (h @ p["2.weight"].T + p["2.bias"] - y) / y.size
    dh = d @ p["2.weight"] * (1 - h * h)
    return {
        "0.weight": dh.T @ x, "0.bias": dh.sum(0), "2.weight": d.T @ h, "2.bias": d.sum(0),
    }  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("options", [{}, {"initial": 2, "slow_start": 5.0, "eps": 1e-6}])
def test_is_the_papers(name: str, options: dict[str, Any]) -> None:
    x, y = RNG.normal(size=(40, 8, 3)), RNG.normal(size=(40, 8, 17))
    x[25] *= 30.0  # an outlier
    model = net()
    optimizer = KINDS[name](lr=0.1, **options)
    step = fnn.compile(model, "mse", optimizer, dtype="float64")
    p = {n: np.array(v) for n, v in model.state_dict().items()}
    s: dict[str, Any] = {n: {} for n in p}
    given = {"initial": 10, "slow_start": 2.0, "eps": 1e-3, **options}
    slow = given.pop("slow_start")
    for t in range(1, 41):
        g = slopes(p, x[t - 1], y[t - 1])
        there = {n: p[n] + naive.vsgd_shift(g[n], s[n]) for n in p}
        second = slopes(there, x[t - 1], y[t - 1])
        for n in p:
            p[n] = naive.vsgd(
                p[n], g[n], second[n], s[n], 0.1, t, fd=name == "vsgd_fd", slow=slow, **given
            )
        step(x[t - 1], y[t - 1])
        for n, value in model.state_dict().items():
            np.testing.assert_allclose(value, p[n], rtol=1e-7, atol=1e-9, err_msg=f"{n} {t}")


class Carries(nn.Module):
    """Running statistics, a carried state, dropout: what a second pass could spoil."""

    def __init__(self) -> None:
        self.rnn = nn.RNN(3, 5, stateful=4)
        self.norm, self.drop, self.head = nn.BatchNorm(5), nn.Dropout(0.3), nn.Linear(5, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.drop(self.norm(self.rnn(x)[0])))


def test_the_second_pass_changes_nothing_and_draws_the_same_numbers() -> None:
    x, y = RNG.normal(size=(5, 4, 6, 3)), RNG.normal(size=(5, 4, 6, 2))
    found = []
    for optimizer in (optim.VSGDfd(initial=100), optim.SGD(lr=0.0)):
        model = Carries()
        step = fnn.compile(model, "mse", optimizer, dtype="float64")
        losses = [step(a, b) for a, b in zip(x, y, strict=True)]
        found.append((losses, model.state_dict()))
    assert found[0][0] == found[1][0]
    for name, value in found[1][1].items():
        assert value.tobytes() == found[0][1][name].tobytes(), name


def test_curvature_of_a_quadratic_is_exact_whatever_is_dropped() -> None:
    """The loss is w^2 times a number of the step's mask: both gradients see the same mask."""

    class Mask(nn.Module):
        def __init__(self) -> None:
            self.w = nn.Parameter((1,), 2.0)

        def forward(self, x: Any) -> Any:
            return ops.dropout(x.graph.full(x.shape, 1.0, x.batched), 0.5) * ops.square(self.w)

    model = Mask()
    step = fnn.compile(model, lambda o, t: o.mean(), optim.VSGDfd(initial=1, slow_start=1.0),
                       dtype="float64")  # fmt: skip
    x = np.ones((50, 3))
    step(x, x)
    slot = step.session.memory["slots/curvature"]
    g = step.session.memory["slots/mean"][0]
    assert slot[0] == pytest.approx(g / 2.0 * g / (g + 1e-3) + 1e-3, rel=1e-9)  # |2m w| / w = 2m


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("model", ["wide", "regularised"])
def test_workers_and_resume(name: str, model: str, tmp_path: Path) -> None:
    x, y = vectors(60)
    options: dict[str, Any] = {"batch_size": 8, "verbose": False}

    def made(workers: int) -> fnn.Trainer:
        return fresh(model, optimizer=KINDS[name](lr=0.1, initial=3), workers=workers)

    found = []
    for workers in (1, 2, 3, 4):
        trainer = made(workers)
        trainer.fit(x, y, epochs=2, **options)
        found.append(state(trainer))
    assert all(one == found[0] for one in found)
    first = made(2)
    first.fit(x, y, epochs=1, **options)
    first.save(tmp_path / "run")
    again = made(3)
    again.fit(x, y, epochs=2, resume=tmp_path / "run", **options)
    assert state(again) == found[0]


@pytest.mark.parametrize("name", KINDS)
def test_needs_no_rate(name: str) -> None:
    """Least squares with noise, and directions a hundred times as steep as others."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2000, 6)) * np.array([10.0, 3.0, 1.0, 1.0, 0.3, 0.1])
    w = rng.normal(size=(6, 1))
    y = x @ w + 0.1 * rng.normal(size=(2000, 1))
    model = nn.Linear(6, 1, bias=False)
    trainer = fnn.Trainer(model, "mse", KINDS[name](), dtype="float64")
    history = trainer.fit(x, y, epochs=30, batch_size=10, verbose=False)
    assert history["loss"][-1] < 0.015  # the noise's variance is 0.01


def test_losses_with_penalties_mixup_and_frozen_parameters() -> None:
    model = net()
    model.freeze("0.*")
    trainer = fnn.Trainer(
        model, "mse", optim.VSGDfd(initial=2), mixup=0.2, penalties=nn.L2Penalty(1e-3)
    )
    x, y = RNG.normal(size=(40, 3)).astype("f"), RNG.normal(size=(40, 17)).astype("f")
    before = model.state_dict()
    history = trainer.fit(x, y, epochs=20, batch_size=8, verbose=False)
    assert history["loss"][-1] < history["loss"][0]
    assert (before["0.weight"] == model.state_dict()["0.weight"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr: expected a number that is not negative"),
        ({"initial": 0}, "initial to be a whole number >= 1"),
        ({"slow_start": 0.5}, "slow_start: expected a number >= 1"),
        ({"eps": 0.0}, "eps: expected a number above 0"),
        ({"weight_decay": 0.1}, "use nn.L2Penalty"),
        ({"clip_norm": 1.0}, "clip_norm: expected None"),
        ({"clip_value": 1.0}, "clip_value: expected None"),
        ({"clip_global_norm": 1.0}, "clip_global_norm: expected None"),
        ({"gradient_noise": 0.1}, "gradient_noise: expected 0"),
        ({"maximize": True}, "maximize: expected False"),
        ({"accumulate": 2}, "accumulate: expected 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    for made in KINDS.values():
        with pytest.raises(OptionError, match=message):
            made(**options)
