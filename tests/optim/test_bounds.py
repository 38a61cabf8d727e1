"""Beside any rule: the proximal step of L1, a limit of norms, noise on gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from fastnn.optim import schedules
from tests import naive
from tests import naive_optimizers as more
from tests.train.models import fresh, state, vectors

RNG = np.random.default_rng(0)

MAKERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda **m: optim.SGD(lr=0.1, momentum=0.9, **m),
    "adam": lambda **m: optim.Adam(lr=0.1, **m),
    "lamb": lambda **m: optim.LAMB(lr=0.1, **m),
    "lookahead": lambda **m: optim.Lookahead(optim.Adam(lr=0.1, **m), k=3),
    "adam every 2": lambda **m: optim.Adam(lr=0.1, accumulate=2, **m),
}


class Product(nn.Module):
    """Weights kept transposed, as shown, and a vector."""

    def __init__(self, rows: int, columns: int):
        self.linear = nn.Linear(columns, rows)
        self.table = nn.Embedding(rows, columns)

    def forward(self, x: Any) -> Any:
        return self.linear(x) @ ops.as_value(x.graph, self.table.weight)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (16, 17), (33, 31)])
@pytest.mark.parametrize("limits", [{"max_norm": 0.4}, {"proximal_l1": 0.3},
                                    {"max_norm": 0.4, "proximal_l1": 0.05}])  # fmt: skip
def test_ten_steps(shape: tuple[int, int], limits: dict[str, float]) -> None:
    """Against the oracle, with a schedule, and a group without limits."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(10, 5, shape[1])), rng.normal(size=(10, 5, shape[1]))
    schedule = schedules.StepDecay(3, gamma=0.5)
    none = {name: None if name == "max_norm" else 0.0 for name in limits}
    model = Product(*shape)
    step = fnn.compile(
        model, "mse",
        optim.SGD(lr=0.2, momentum=0.5, schedule=schedule, groups={"*.bias": none}, **limits),
        dtype="float64",
    )  # fmt: skip
    p = {name: np.array(v) for name, v in model.state_dict().items()}
    s: dict[str, Any] = {name: {} for name in p}
    for t in range(10):
        g, rate = step.gradients(x[t], y[t]), schedule(t, base_lr=0.2)
        step(x[t], y[t])
        for name in p:
            p[name] = naive.sgd(p[name], g[name], s[name], rate, momentum=0.5)
            if name != "linear.bias":
                if "proximal_l1" in limits:
                    p[name] = more.proximal_l1(p[name], rate * limits["proximal_l1"])
                if "max_norm" in limits:
                    p[name] = more.max_norm(p[name], limits["max_norm"])
            np.testing.assert_allclose(
                model.state_dict()[name], p[name], rtol=1e-12, atol=1e-14, err_msg=f"{name} {t}"
            )


def test_zeros_of_the_lasso() -> None:
    """The minimum of |Xw - y|^2/(2n) + l1 |w| (Tibshirani 1996) has these zeros."""
    x = RNG.normal(size=(60, 8))
    y = x[:, :2] @ np.array([[1.0], [-2.0]]) + 0.01 * RNG.normal(size=(60, 1))
    model = nn.Linear(8, 1, bias=False)
    half = nn.MSELoss()
    trainer = fnn.Trainer(
        model, lambda o, t: half(o, t) * 0.5, optim.SGD(lr=0.3, proximal_l1=0.1), dtype="float64"
    )
    trainer.fit(x, y, epochs=300, batch_size=60, shuffle=False, verbose=False)
    w = model.weight.value[0]
    assert (w[2:] == 0.0).all()
    slope = x.T @ (x @ w - y[:, 0]) / 60
    np.testing.assert_allclose(slope[:2], -0.1 * np.sign(w[:2]), atol=1e-6)
    assert (np.abs(slope[2:]) < 0.1).all()


OPTIONS: dict[str, dict[str, Any]] = {
    "max_norm": {"max_norm": 0.5}, "proximal_l1": {"proximal_l1": 0.01},
    "gradient_noise": {"gradient_noise": 0.3},
    "all": {"max_norm": 0.5, "proximal_l1": 0.01, "gradient_noise": 0.3, "clip_norm": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", MAKERS)
def test_workers_and_resume(name: str, options: str, tmp_path: Path) -> None:
    x, y = vectors(60)

    def made(workers: int) -> fnn.Trainer:
        return fresh("wide", optimizer=MAKERS[name](**OPTIONS[options]), workers=workers)

    fit: dict[str, Any] = {"batch_size": 8, "verbose": False}
    found = []
    for workers in (1, 2, 3, 4):
        trainer = made(workers)
        trainer.fit(x, y, epochs=2, **fit)
        found.append(state(trainer))
    assert all(one == found[0] for one in found)
    first = made(2)
    first.fit(x, y, epochs=1, **fit)
    first.save(tmp_path / "run")
    again = made(3)
    again.fit(x, y, epochs=2, resume=tmp_path / "run", **fit)
    assert state(again) == found[0]
    if "max_norm" in OPTIONS[options]:
        for value in again.get_parameters().values():
            if value.ndim == 2:
                assert np.sqrt((value**2).sum(1)).max() < 0.5 + 1e-6


def noise_of(steps: int, every: int = 1, **options: Any) -> np.ndarray:
    """What noise alone makes of 1000 numbers without a slope, by updates."""
    model = nn.Linear(100, 10, bias=False)
    step = fnn.compile(
        model, lambda o, t: (o * 0.0).sum(), optim.SGD(lr=1.0, accumulate=every, **options),
        dtype="float64",
    )  # fmt: skip
    points = [np.array(model.state_dict()["weight"])]
    for _ in range(steps * every):
        step(np.ones((2, 100)), np.ones((2, 10)))
        points.append(np.array(model.state_dict()["weight"]))
    return -np.diff(np.stack(points), axis=0)[every - 1 :: every]


@pytest.mark.parametrize("every", [1, 3])
def test_noise_has_its_variance(every: int) -> None:
    found = noise_of(12, every, gradient_noise=0.3)
    t = np.arange(12)
    want = np.sqrt(0.3 / (1 + t) ** 0.55)  # equation 1
    np.testing.assert_allclose(found.std(axis=(1, 2)), want, rtol=0.12)
    assert (np.abs(found.mean(axis=(1, 2))) < 5 * want / np.sqrt(1000)).all()
    scaled = found.reshape(12, -1) / want[:, None]
    assert np.abs(np.corrcoef(scaled) - np.eye(12)).max() < 0.15  # drawn anew each time
    assert (noise_of(2) == 0.0).all()


def test_noise_is_not_clipped_by_norm_and_groups_have_their_own() -> None:
    assert noise_of(3, gradient_noise=0.3, clip_norm=1e-3).std() > 0.3
    assert noise_of(3, gradient_noise=0.3, clip_global_norm=1e-3).std() > 0.3
    assert (noise_of(3, gradient_noise=0.3, groups={"*": {"gradient_noise": 0.0}}) == 0.0).all()


def test_gradients_that_are_kept_have_no_noise() -> None:
    model = nn.Linear(3, 2)
    step = fnn.compile(model, "mse", optim.SGD(gradient_noise=1.0), keep_gradients=True)
    x, y = RNG.normal(size=(5, 3)).astype("f"), RNG.normal(size=(5, 2)).astype("f")
    want = step.gradients(x, y)["weight"]
    step(x, y)
    np.testing.assert_array_equal(model.weight.grad, want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_norm": 0.0}, "max_norm: expected a positive number or None, got 0.0"),
        ({"max_norm": -1.0}, "max_norm: expected a number that is not negative"),
        ({"proximal_l1": -1.0}, "proximal_l1: expected a number that is not negative"),
        ({"gradient_noise": "a"}, "gradient_noise: expected a number"),
        ({"gradient_noise": -0.1}, "gradient_noise: expected a number that is not negative"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        optim.Adam(**options)
    with pytest.raises(OptionError, match=message):
        optim.Adam(groups={"*": options})


def test_schedule_free_refuses_limits() -> None:
    for options in ({"max_norm": 1.0}, {"proximal_l1": 0.1}):
        with pytest.raises(OptionError, match="whose parameters are made of two sequences"):
            optim.ScheduleFreeAdamW(**options)


def test_names_of_kernels_are_no_options() -> None:
    class Mine(optim.Optimizer):
        name = "mine"

        @staticmethod
        def scalars(t: int, lr: float, decay: float) -> tuple[float, ...]:
            return lr, decay

        @staticmethod
        def rule(p: Any, g: Any, rate: Any, decay: Any) -> tuple[Any, ...]:
            return (p * decay - g * rate,)

    with pytest.raises(OptionError, match=r"another name for the option .decay."):
        Mine(lr=0.1, decay=0.5).kernels()
