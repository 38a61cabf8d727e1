"""Gradients of several steps that make one update."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import NonFiniteError, OptionError
from fastnn.optim import schedules
from tests.train.models import fresh, state, vectors

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "momentum": lambda **m: optim.SGD(lr=0.1, momentum=0.9, clip_norm=0.05, **m),
    "adam": lambda **m: optim.Adam(lr=0.01, weight_decay=0.1, clip_global_norm=0.1, **m),
    "adamw": lambda **m: optim.AdamW(lr=0.01, weight_decay=0.5, clip_value=0.01, **m),
    "lamb": lambda **m: optim.LAMB(lr=0.01, **m),
    "adafactor": lambda **m: optim.Adafactor(**m),
    "muon": lambda **m: optim.Muon(lr=0.01, **m),
    "ema": lambda **m: optim.EMA(optim.NAdam(lr=0.01, **m), decay=0.5),
    "schedule-free": lambda **m: optim.ScheduleFreeAdamW(lr=0.01, warmup=3, **m),
}


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_as_a_larger_batch(name: str, every: int) -> None:
    x, y = vectors(60)
    found = []
    for size, count in ((10 // every * every, 1), (10 // every, every)):
        trainer = fresh("mlp", optimizer=OPTIMIZERS[name](accumulate=count), dtype="float64")
        samples = 5 * (10 // every * every)
        trainer.fit(x[:samples], y[:samples], batch_size=size, shuffle=False, verbose=False)
        slots = {n: a.copy() for n, a in trainer.session.memory.items() if n.startswith("slots/")}
        found.append((trainer.get_parameters(), slots))
    (whole, whole_slots), (parts, part_slots) = found
    for key, value in whole.items():
        np.testing.assert_allclose(parts[key], value, rtol=1e-9, atol=1e-12, err_msg=key)
    for key, value in whole_slots.items():
        np.testing.assert_allclose(part_slots[key], value, rtol=1e-9, atol=1e-12, err_msg=key)
    assert set(part_slots) - set(whole_slots) == {"slots/accumulated"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bits(name: str, tmp_path: Path) -> None:
    """The same on any number of workers, and in a run that goes on in the middle of an update."""
    x, y = vectors(56)
    options: dict[str, Any] = {"batch_size": 8, "verbose": False}  # 7 steps an epoch

    def new(workers: int) -> fnn.Trainer:
        return fresh("wide", optimizer=OPTIMIZERS[name](accumulate=3), workers=workers)

    whole = new(1)
    whole.fit(x, y, epochs=2, **options)
    first, again = new(2), new(3)
    first.fit(x, y, epochs=1, **options)
    first.save(tmp_path / "run")
    again.fit(x, y, epochs=2, resume=tmp_path / "run", **options)
    assert state(again) == state(whole)


def test_nothing_changes_between_updates() -> None:
    x, y = vectors(8)
    schedule = schedules.Piecewise([2], [1.0, 0.5])
    step = fnn.compile(
        fresh("mlp").model, "cross_entropy",
        optim.AdamW(lr=0.1, weight_decay=0.5, accumulate=2, schedule=schedule), device="cpu",
    )  # fmt: skip
    for k in range(6):
        before = step.session.memory["params"].copy()
        step(x, y)
        assert (before == step.session.memory["params"]).all() == (k % 2 == 0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_is_not_finite_changes_nothing(name: str) -> None:
    """Neither the parameters nor what has been accumulated."""
    model = nn.Linear(4, 3)
    step = fnn.compile(
        model, lambda o, t: ops.total(o * t), OPTIMIZERS[name](accumulate=3), device="cpu"
    )
    x = np.full((4, 4), 1e-3, np.float32)
    for bad in (1, 2, 3):
        step(x, np.ones((4, 3), np.float32))
        if bad == 3:
            step(x, np.ones((4, 3), np.float32))
        model.weight.value[...] = model.bias.value[...] = 0  # the loss is 0, its gradient 1e40
        kept = {n: a.tobytes() for n, a in step.session.memory.items()
                if n.startswith(("params", "slots"))}  # fmt: skip
        with pytest.raises(NonFiniteError):
            step(x * 1e23, np.full((4, 3), 1e20, np.float32))
        for key, value in kept.items():
            assert step.session.memory[key].tobytes() == value, key


def test_a_huge_gradient_in_an_earlier_step_is_looked_at() -> None:
    """Finite in the sum, and too large for the update that comes later."""
    model = nn.Linear(4, 3)
    optimizer = optim.SGD(lr=1e3, momentum=0.9, accumulate=2)
    step = fnn.compile(model, lambda o, t: ops.total(o * t), optimizer, device="cpu")
    x = np.ones((4, 4), np.float32)
    step(x, np.full((4, 3), 3e35, np.float32))
    kept = step.session.memory["params"].tobytes()
    with pytest.raises(NonFiniteError):
        step(x, np.ones((4, 3), np.float32))
    assert step.session.memory["params"].tobytes() == kept


@pytest.mark.parametrize("wrong", [0, 1.5, "two", True])
def test_bad_options(wrong: Any) -> None:
    with pytest.raises(OptionError, match="expected accumulate to be a whole number >= 1"):
        optim.SGD(accumulate=wrong)
