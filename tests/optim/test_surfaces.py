"""Every optimiser on surfaces of two numbers: Rosenbrock's banana, a long valley, a saddle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim

SURFACES: dict[str, tuple[tuple[float, float], Callable[[Any, Any], Any]]] = {
    "rosenbrock": ((-1.0, 1.0), lambda x, y: (1 - x) ** 2 + 100 * (y - x * x) ** 2),
    "valley": ((-4.0, 1.0), lambda x, y: 0.5 * (0.02 * x * x + y * y)),
    # a saddle at 0, minima at y = -1 and y = 1; it begins a little beside the ridge
    "saddle": ((1.0, 1e-3), lambda x, y: 0.5 * x * x + 0.25 * (y * y - 1) ** 2),
}
STEPS = 4000
#: for rules whose steps do not shrink by themselves
FALLING = optim.schedules.CosineAnnealing(STEPS)
#: name -> (maker of a rate, rates: Rosenbrock, valley, saddle)
MAKERS: dict[str, tuple[Callable[..., optim.Optimizer], tuple[float, float, float]]] = {
    "sgd": (optim.SGD, (2e-3, 1.0, 0.1)),
    "momentum": (lambda lr: optim.SGD(lr=lr, momentum=0.9), (3e-4, 0.3, 0.1)),
    "nesterov": (lambda lr: optim.SGD(lr=lr, momentum=0.9, nesterov=True), (3e-4, 0.3, 0.1)),
    "adagrad": (optim.Adagrad, (0.5, 1.0, 0.3)),
    "rmsprop": (optim.RMSprop, (2e-3, 0.01, 0.01)),
    "rmsprop centred": (
        lambda lr: optim.RMSprop(lr=lr, centered=True, momentum=0.9),
        (2e-5, 2e-4, 2e-3),
    ),
    "adadelta": (lambda lr: optim.Adadelta(lr=lr, schedule=FALLING), (0.3, 0.3, 0.3)),
    "adam": (optim.Adam, (0.02, 0.05, 0.05)),
    "adamw": (lambda lr: optim.AdamW(lr=lr, weight_decay=0.0), (0.02, 0.05, 0.05)),
    "amsgrad": (lambda lr: optim.Adam(lr=lr, amsgrad=True), (0.02, 0.05, 0.05)),
    "adamax": (optim.Adamax, (0.02, 0.05, 0.05)),
    "nadam": (optim.NAdam, (0.02, 0.05, 0.05)),
    "radam": (optim.RAdam, (2e-3, 0.05, 0.05)),
    "lion": (optim.Lion, (1e-3, 5e-3, 5e-3)),
    "lamb": (optim.LAMB, (2e-3, 5e-3, 5e-3)),
    "adafactor": (lambda lr: optim.Adafactor(lr=lr, schedule=FALLING), (0.02, 5e-3, 5e-3)),
    "rprop": (optim.Rprop, (0.01, 0.01, 0.01)),
    "irprop": (optim.IRprop, (0.01, 0.01, 0.01)),
    "quickprop": (optim.Quickprop, (1e-3, 0.1, 0.1)),
    "delta-bar-delta": (optim.DeltaBarDelta, (3e-4, 0.1, 0.05)),
    "asgd": (optim.ASGD, (2e-3, 1.0, 0.1)),
    "schedule-free": (optim.ScheduleFreeAdamW, (0.02, 0.1, 0.1)),
    "ema": (lambda lr: optim.EMA(optim.Adam(lr=lr), decay=0.9), (0.02, 0.05, 0.05)),
    "swa": (lambda lr: optim.SWA(optim.Adam(lr=lr), start=3900), (0.02, 0.05, 0.05)),
    "lookahead": (lambda lr: optim.Lookahead(optim.Adam(lr=lr)), (0.03, 0.05, 0.05)),
    "muon": (lambda lr: optim.Muon(lr=lr, weight_decay=0.0), (0.02, 0.05, 0.05)),
    # these have rates of their own
    "vsgd": (optim.VSGD, (2.0, 1.0, 1.0)),
    "vsgd_fd": (optim.VSGDfd, (5.0, 1.0, 1.0)),
    "adasecant": (optim.AdaSecant, (1.0, 1.0, 1.0)),
}


#: their steps are relative to the parameter's norm, so that they can't go through 0
RELATIVE = ("lamb", "adafactor")


class Point(nn.Module):
    """Two numbers; its output is the height of a surface there."""

    def __init__(self, begin: tuple[float, float], surface: Callable[[Any, Any], Any]) -> None:
        self.place = nn.Parameter((2,), "zeros")
        self.surface = surface
        self.place.value[...] = begin

    def forward(self, x: Any) -> Any:
        """x (batch, 2), of ones."""
        at = x * self.place
        return self.surface(at[:, 0], at[:, 1])


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", MAKERS)
def test_it_comes_down(name: str, surface: str) -> None:
    """From above 1 (0.25 on the saddle's ridge) to a thousandth."""
    make, rates = MAKERS[name]
    begin, height = SURFACES[surface]
    if name in RELATIVE and surface == "rosenbrock":
        begin = (2.0, 1.0)
    rate = rates[list(SURFACES).index(surface)]
    model = Point(begin, height)
    trainer = fnn.Trainer(
        model, lambda out, y: ops.mean(out), make(lr=rate), dtype="float64",
        device="cpu", workers=1,
    )  # fmt: skip
    ones = np.ones((STEPS, 2))
    trainer.fit(ones, np.zeros(STEPS), batch_size=1, verbose=False)
    averages = trainer.optimizer.averages(0.0, dict.fromkeys(trainer.optimizer.slots, 0.0))
    if averages is not None:
        with trainer.averaged():
            place = np.array(model.place.value)
    else:
        place = np.array(model.place.value)
    assert height(*place) < 1e-3, place


#: the same heights as sums of two squares, for methods that are made for these
ROOTS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "rosenbrock": lambda x, y: (1 - x, 10 * (y - x * x)),
    "valley": lambda x, y: (0.1 * x, 0.5**0.5 * y),
    "saddle": lambda x, y: (0.5**0.5 * x, 0.5 * (y * y - 1)),
}


class Roots(Point):
    """What is squared, by what x chooses: (1, 0) the first number, (0, 1) the second one."""

    def forward(self, x: Any) -> Any:
        first, second = self.surface(self.place[0:1], self.place[1:2])
        return x[:, 0:1] * first + x[:, 1:2] * second


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    "name", ["LBFGS", "ConjugateGradient", "HessianFree", "LevenbergMarquardt"]
)
def test_full_batch_methods_come_down(name: str, surface: str) -> None:
    """To a billionth within 60 iterations."""
    begin, height = SURFACES[surface]
    squares = name in ("HessianFree", "LevenbergMarquardt")
    model = (Roots if squares else Point)(begin, ROOTS[surface] if squares else height)
    loss = nn.MSELoss(reduction="sum") if squares else lambda out, y: ops.mean(out)
    trainer = fnn.Trainer(
        model, loss, getattr(optim, name)(), dtype="float64", device="cpu", workers=1
    )
    x = np.eye(2) if squares else np.ones((2, 2))
    trainer.fit(x, np.zeros((2, 1)), epochs=60, verbose=False)
    assert height(*np.array(model.place.value)) < 1e-9, model.place.value
