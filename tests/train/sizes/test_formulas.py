"""Lengths that are not traced: programs that follow from formulas, and what stands in their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.engine import plans
from fastnn.engine.formulas import SizedStep
from tests.train.sizes.tagger import IGNORED, LENGTHS, Tagger, batch, same, trainer

SIZES = [40, 24, 9, 17, 31, 12, 5, 38, 25, 39, 8, 16, 6, 7, 33]


class Net(nn.Module):
    """`between` gets the values of all steps and the number of these."""

    def __init__(self, between: Callable[[Any, Any], Any]):
        self.first, self.last, self.between = nn.Linear(4, 6), nn.Linear(6, 2), between

    def forward(self, x: Any) -> Any:
        return self.last(self.between(ops.tanh(self.first(x)), x.shape[1]))


def count_formulas(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sizes of which a formula gives the program."""
    found: list[Any] = []
    at = SizedStep.at

    def counted(self: SizedStep, sizes: Any) -> Any:
        built = at(self, sizes)
        if built is not None:
            found.append(sizes)
        return built

    monkeypatch.setattr(SizedStep, "at", counted)
    return found


def run(between: Callable[[Any, Any], Any]) -> tuple[list[Any], fnn.Step]:
    """Losses of steps and outputs, at each of the lengths."""
    rng = np.random.default_rng(0)
    step = fnn.compile(Net(between), "mse", "sgd", seed=3)
    found: list[Any] = []
    for steps in SIZES:
        x = rng.normal(size=(8, steps, 4)).astype("f")
        y = step.model.predict(x)
        found += [step(x, np.ones_like(y)), y, step.evaluate(x, np.zeros_like(y))]
    return found, step


def total(y: Any, n: Any) -> Any:
    return ops.sum(y, axis=1)


#: what asks for the number of steps, and whether formulas are found nevertheless
ASKS: dict[str, tuple[Callable[[Any, Any], Any], bool]] = {
    "nothing": (lambda y, n: y, True),
    "compares": (lambda y, n: y * 2.0 if n > 20 else y * 0.5, True),
    "odd or even": (lambda y, n: y + 1.0 if n % 2 else y, True),
    "rounds": (lambda y, n: ops.concatenate(y[:, n // 2 :], y[:, : n // 2], axis=1), True),
    "smallest": (lambda y, n: y[:, : min(n, 8)], True),
    "divides": (lambda y, n: total(y, n) / n, True),
    "divides by a square": (lambda y, n: total(y, n) * (3.0 / (n * n)), True),
    "mean": (lambda y, n: ops.mean(y, axis=1), True),
    "broadcasts": (lambda y, n: ops.where(y > 0.0, y, ops.reshape(total(y, n), -1, 1, 6)), True),
    "last": (lambda y, n: y[:, n - 1], True),
    "reshapes": (lambda y, n: ops.reshape(ops.reshape(y, -1, 2 * n, 3), -1, n, 6), True),
    "pads": (lambda y, n: ops.pad(y, [(0, 0), (n // 3, 1), (0, 0)]), True),
    "every": (lambda y, n: sum((y[:, t] for t in range(n)), 0.0 * y[:, 0]), False),
    "takes it for a number": (lambda y, n: y * float(int(n)), False),
    "is a key": (lambda y, n: y * {24: 2.0}.get(n, 1.0), False),
    "has a name": (lambda y, n: y * (2.0 if str(n) == "24" else 1.0), False),
    "an array": (lambda y, n: y + np.arange(n)[None, :, None] / 7, False),
    "root": (lambda y, n: y * n**0.5, False),
    "with bits": (lambda y, n: y * float(1 << (n & 3)), False),
    "is an int": (lambda y, n: y * (2.0 if isinstance(n, int) else np.nan), True),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKS)
def test_what_a_model_asks_of_its_length(name, exact, monkeypatch):
    """Whatever that is, each length has the numbers of a program of its own."""
    between, formulas = ASKS[name]
    hits = count_formulas(monkeypatch)
    found, _ = run(between)
    assert bool(hits) == formulas
    exact()
    assert same(found, run(between)[0])


def test_most_lengths_are_not_traced(monkeypatch):
    """However many come, the model is looked at for a few."""
    traced, forward = [], Tagger.forward
    monkeypatch.setattr(plans.Plans, "build", BUILD)

    def noted(self: Any, ids: Any, lengths: Any) -> Any:
        traced.append(ids.shape)
        return forward(self, ids, lengths)

    monkeypatch.setattr(Tagger, "forward", noted)
    counts = []
    for lengths in (LENGTHS[:12], LENGTHS):
        for made in (
            fnn.compile(Tagger(), nn.CrossEntropyLoss(ignore_index=IGNORED)), trainer(Tagger()),
        ):  # fmt: skip
            traced.clear()
            data = [batch(n) for n in lengths]
            if not isinstance(made, fnn.Trainer):
                for given in data:
                    made(*given)
            else:
                made.fit(data, verbose=False)
            counts.append(len(traced))
    assert max(counts[2] - counts[0], counts[3] - counts[1]) < 6


BUILD = plans.Plans.build


def test_sizes_that_were_equal_by_chance():
    """Two inputs of one length each, which differ later."""

    class Two(nn.Module):
        def __init__(self) -> None:
            self.one, self.two = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Any, z: Any) -> Any:
            return ops.mean(self.one(x), axis=1) + ops.mean(self.two(z), axis=1)

    step = fnn.compile(Two(), "mse", seed=1)
    rng = np.random.default_rng(0)
    for first, second in [(20, 20), (9, 9), (7, 7), (8, 8), (6, 6), (7, 12), (12, 7), (5, 13)]:
        x, z = (rng.normal(size=(4, n, 3)).astype("f") for n in (first, second))
        y = step.model.predict((x, z))
        model: Any = step.model
        expected = sum(
            v.mean(axis=1) @ np.array(layer.weight).T + np.array(layer.bias)
            for v, layer in ((x, model.one), (z, model.two))
        )
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        step((x, z), np.zeros_like(y))
