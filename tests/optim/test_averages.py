"""Averages of parameters: what evaluates and saves, what begins them, what goes on afterwards."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import callbacks, optim
from fastnn.errors import OptionError
from fastnn.train.hooks import Callback
from tests.train.models import fresh, state, vectors

KEEPING = {
    "ema": lambda: optim.EMA(optim.SGD(lr=0.1), decay=0.9),
    "swa": lambda: optim.SWA(optim.SGD(lr=0.1), start=2),
    "asgd": lambda: optim.ASGD(lr=0.1, t0=2),
    "schedule-free": lambda: optim.ScheduleFreeAdamW(lr=0.01),
    "ema of lookahead": lambda: optim.EMA(optim.Lookahead(optim.Adam(lr=0.01)), decay=0.9),
}


class Losses(Callback):
    """Evaluates the parameters as they are at the end of each epoch."""

    def __init__(self, x: Any, y: Any) -> None:
        self.data, self.found = (x, y), []  # type: ignore[var-annotated]

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        found = self.trainer.evaluate(*self.data, batch_size=8)  # type: ignore[attr-defined]
        self.found.append(found["loss"])


@pytest.mark.parametrize("name", KEEPING)
def test_validation_is_that_of_the_averages(name: str) -> None:
    x, y = vectors(60)
    trainer, alone = (fresh("mlp", optimizer=KEEPING[name]()) for _ in range(2))
    look = Losses(x, y)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "verbose": False}
    history = trainer.fit(x, y, validation=(x, y), callbacks=[look], **options)
    alone.fit(x, y, **options)
    assert state(trainer) == state(alone)  # training doesn't notice
    with trainer.averaged() as model:
        assert model is trainer.model
        inside = trainer.evaluate(x, y, batch_size=8)["loss"]
        np.testing.assert_array_equal(trainer.predict(x), model.predict(x))
    assert history["val_loss"][-1] == inside
    assert look.found[-1] == trainer.evaluate(x, y, batch_size=8)["loss"] != inside
    assert state(trainer) == state(alone)


def test_what_is_saved_within_are_the_averages(tmp_path: Path) -> None:
    x, y = vectors(60)
    trainer = fresh("mlp", optimizer=KEEPING["ema"]())
    trainer.fit(x, y, epochs=2, batch_size=8, verbose=False)
    with trainer.averaged() as model:
        model.save(tmp_path / "model")
        with pytest.raises(OptionError, match="fit: the averages are in the parameters' place"):
            trainer.fit(x, y, verbose=False)
        with pytest.raises(OptionError, match="save: the averages are in the parameters' place"):
            trainer.save(tmp_path / "run")
        with (
            pytest.raises(OptionError, match="averaged: the averages are in"),
            trainer.averaged(),
        ):
            pass
    other = fresh("mlp").model
    other.load(tmp_path / "model")
    slots = trainer.session.memory["slots/average"]
    for key, parameter in trainer.model.named_arrays().items():
        want = trainer.store.view(slots, parameter)
        want = want.T if parameter.transposed else want
        np.testing.assert_array_equal(other.state_dict()[key], want)


def test_an_exception_within_puts_the_parameters_back() -> None:
    x, y = vectors(60)
    trainer = fresh("mlp", optimizer=KEEPING["ema"]())
    trainer.fit(x, y, batch_size=8, verbose=False)
    before = state(trainer)
    with pytest.raises(ZeroDivisionError), trainer.averaged():
        _ = 1 / 0
    assert state(trainer) == before

    class Cut(Callback):
        def on_test_end(self, logs: Any) -> None:
            raise KeyboardInterrupt

    trainer.fit(x, y, batch_size=8, validation=(x, y), callbacks=[Cut()], verbose=False)
    other = fresh("mlp", optimizer=KEEPING["ema"]())
    other.fit(x, y, epochs=2, batch_size=8, verbose=False)
    assert trainer.interrupted
    assert state(trainer) == state(other)


def test_steps_have_averages_too() -> None:
    x, y = vectors(8)
    step = fnn.compile(fresh("mlp").model, "cross_entropy", KEEPING["ema"](), device="cpu")
    for _ in range(3):
        step(x, y)
    before = step.session.memory["params"].copy()
    with step.averaged():
        np.testing.assert_array_equal(
            step.session.memory["params"], step.session.memory["slots/average"]
        )
        with pytest.raises(OptionError, match="a step: the averages are in"):
            step(x, y)
    np.testing.assert_array_equal(step.session.memory["params"], before)
    step(x, y)


def test_averages_begin_with_the_parameters_of_the_first_step() -> None:
    """Also with those that are set after the trainer was made, and those of frozen layers."""
    x, y = vectors(60)
    trainer = fresh("mlp", optimizer=optim.EMA(optim.SGD(lr=0.1), decay=0.5))
    values = {n: a + 1 for n, a in trainer.get_parameters().items()}
    trainer.set_parameters(values)
    trainer.model.freeze("0.*")
    trainer.fit(x, y, batch_size=60, verbose=False)
    with trainer.averaged() as model:
        found = model.state_dict()
    for key, value in values.items():
        if key.startswith("0."):
            np.testing.assert_array_equal(found[key], value)
        else:
            assert (found[key] != value).any()


def test_without_averages_it_is_refused() -> None:
    trainer = fresh("mlp", optimizer=optim.Lookahead(optim.SGD(lr=0.1)))
    with pytest.raises(OptionError, match="Lookahead keeps no averages; train with"):
        trainer.averaged().__enter__()


def test_a_copy_goes_on_alike(tmp_path: Path) -> None:
    x, y = vectors(60)
    trainer = fresh("mlp", optimizer=KEEPING["swa"]())
    trainer.fit(x, y, batch_size=8, verbose=False)
    other = copy.deepcopy(trainer)
    for one in (trainer, other):
        one.fit(x, y, batch_size=8, verbose=False)
    assert state(trainer) == state(other)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.EMA(optim.SGD(), decay=1.0), r"decay: expected a number in \[0, 1\), got 1"),
        (lambda: optim.EMA("adam"), "EMA: expected an optimizer from fastnn.optim to wrap"),
        (lambda: optim.EMA(optim.SWA(optim.SGD())), "without one of its kind"),
        (lambda: optim.SWA(optim.SGD(), start=0), "expected start to be a whole number >= 1"),
        (lambda: optim.SWA(optim.SGD(), every=0.5), "expected every to be a whole number >= 1"),
        (lambda: optim.Lookahead(optim.SGD(), k=0), "expected k to be a whole number >= 1"),
        (lambda: optim.Lookahead(optim.SGD(), alpha=1.5), r"alpha: expected a number in \(0, 1\]"),
        (lambda: optim.ASGD(t0=-1), "expected t0 to be a whole number >= 0"),
        (
            lambda: optim.ScheduleFreeAdamW(schedule=optim.schedules.Constant()),
            "schedule: expected none",
        ),
    ],
)
def test_bad_options(make: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()


@pytest.mark.parametrize(
    "make", [lambda: optim.ASGD(lr=0.1, t0=None), lambda: optim.SWA(optim.SGD(lr=0.1), start=None)]
)
def test_a_trigger_begins_the_average(make: Any, tmp_path: Path) -> None:
    """After epochs without a better loss, and again after a resume."""
    x, y = vectors(64)
    far = (x, (y + 1) % 4)  # gets worse all the time

    def run(epochs: int, **options: Any) -> tuple[fnn.Trainer, callbacks.AverageTrigger]:
        trainer, trigger = fresh("mlp", optimizer=make()), callbacks.AverageTrigger(patience=2)
        trainer.fit(
            x, y, epochs=epochs, batch_size=16, validation=far, callbacks=[trigger],
            verbose=False, **options,
        )  # fmt: skip
        return trainer, trigger

    first, trigger = run(2)
    assert trigger.begun is None
    memory = first.session.memory
    np.testing.assert_array_equal(memory["params"], memory["slots/average"])
    whole, trigger = run(6)
    assert trigger.begun is not None
    assert 4 * 2 < trigger.begun <= 4 * 6
    assert (whole.session.memory["params"] != whole.session.memory["slots/average"]).any()
    part, _ = run(5)
    part.save(tmp_path / "run")
    again, trigger = run(6, resume=tmp_path / "run")
    assert state(again) == state(whole)
    with pytest.raises(OptionError, match="AverageTrigger: expected an optimizer whose average"):
        fresh("mlp", optimizer=optim.SGD()).fit(
            x, y, validation=far, callbacks=[callbacks.AverageTrigger()], verbose=False
        )
