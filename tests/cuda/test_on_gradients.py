"""A function of the host between the launches of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import DataError, NonFiniteError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(10, 5)).astype(np.float32), RNG.integers(0, 3, 10)
Gradients = Mapping[str, np.ndarray]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm(6), nn.Tanh(), nn.Linear(6, 3))


def contents(trained: Any) -> dict[str, bytes]:
    memory = trained.session.memory
    slots = {name: memory[name].tobytes() for name in memory if name.startswith("slots/")}
    return slots | {name: array.tobytes() for name, array in trained.model.state_dict().items()}


def halve(gradients: Gradients) -> None:
    for gradient in gradients.values():
        assert gradient.any()
        gradient *= 0.5


class Fails:
    def __init__(self, error: BaseException, *at: int):
        self.error, self.at, self.calls = error, at, 0

    def __call__(self, gradients: Gradients) -> None:
        self.calls += 1
        if self.calls in self.at:
            gradients["0.weight"][...] = 1e9
            raise self.error


@pytest.mark.parametrize("graphs", [True, False])
def test_updates_take_what_it_leaves(graphs: bool) -> None:
    results = []
    for hook, rate in ((halve, 0.5), (None, 0.25)):
        step = fnn.compile(
            network(), "cross_entropy", optim.SGD(rate), device="cuda", on_gradients=hook,
            graphs=graphs,
        )  # fmt: skip
        trainer = fnn.Trainer(
            network(), "cross_entropy", optim.SGD(rate), metrics=["accuracy"], device="cuda",
            on_gradients=hook, graphs=graphs,
        )  # fmt: skip
        losses = [step(X, Y) for _ in range(3)]
        history = trainer.fit(X, Y, epochs=2, batch_size=4, verbose=False).history
        results.append((losses, history, contents(step), contents(trainer)))
    assert results[0] == results[1]


def test_parameters_that_it_looks_at_and_sets() -> None:
    """What it has fetched from the device is not taken for the step's result."""
    seen = []

    def looks(gradients: Gradients) -> None:
        seen.append(step.model.state_dict()["3.bias"].copy())
        step.parameters["3.weight"].value[...] = 0.0

    step = fnn.compile(
        network(), "cross_entropy", optim.SGD(0.5), device="cuda", on_gradients=looks
    )
    for _ in range(3):
        step(X, Y)
    after = step.model.state_dict()
    assert not np.array_equal(seen[1], seen[2])
    assert not np.array_equal(seen[2], after["3.bias"])
    assert after["3.weight"].any()
    assert np.abs(after["3.weight"]).max() < 0.5


@pytest.mark.parametrize("error", [LookupError("lost"), KeyboardInterrupt()])
def test_an_exception_undoes_the_step(error: BaseException) -> None:
    step = fnn.compile(
        network(), "cross_entropy", "adam", device="cuda", on_gradients=Fails(error, 3, 4)
    )
    plain = fnn.compile(network(), "cross_entropy", "adam", device="cuda")
    losses = [step(X, Y) for _ in range(2)]
    before = contents(step)
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            step(X, Y)
        assert caught.value is error
        assert contents(step) == before
    losses += [step(X, Y) for _ in range(2)]
    assert losses == [plain(X, Y) for _ in range(4)]
    assert contents(step) == contents(plain)


def test_fit_goes_on_where_it_was_cut_off() -> None:
    hooks = (None, Fails(LookupError("lost"), 2), Fails(KeyboardInterrupt(), 2))
    trainers = [
        fnn.Trainer(network(), "cross_entropy", "adam", device="cuda", on_gradients=hook)
        for hook in hooks
    ]
    found = []
    for trainer in trainers:
        if trainer is trainers[1]:
            with pytest.raises(LookupError):
                trainer.fit(X, Y, epochs=2, batch_size=4, verbose=False)
        elif trainer is trainers[2]:
            trainer.fit(X, Y, epochs=2, batch_size=4, verbose=False)
            assert trainer.interrupted
        history = trainer.fit(X, Y, epochs=2, batch_size=4, verbose=False).history
        found.append((history["loss"], contents(trainer)))
    assert found[0] == found[1] == found[2]


def test_not_called_where_the_loss_is_not_finite_nor_for_wrong_ids() -> None:
    calls: list[int] = []
    step = fnn.compile(
        network(), "cross_entropy", "adam", device="cuda", on_gradients=lambda g: calls.append(0)
    )
    before = contents(step)
    with pytest.raises(NonFiniteError):
        step(X * np.inf, Y)
    with pytest.raises(DataError, match="3"):
        step(X, Y + 1)
    assert calls == []
    assert contents(step) == before


def test_a_gradient_that_it_breaks() -> None:
    def breaks(gradients: Gradients) -> None:
        gradients["0.weight"][2, 1] = np.nan

    step = fnn.compile(network(), "cross_entropy", "adam", device="cuda", on_gradients=breaks)
    before = contents(step)
    with pytest.raises(NonFiniteError, match="came from on_gradients"):
        step(X, Y)
    assert contents(step) == before
