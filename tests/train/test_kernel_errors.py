"""A step in which a user's kernel raises leaves all as it was before; training can go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import KernelError
from fastnn.graph.op import OPS
from fastnn.kernels.declare import KERNELS
from fastnn.kernels.simd import fma, max_lanes
from fastnn.runtime.cpu.ahead import load_all
from fastnn.testing.kernels import call

RNG = np.random.default_rng(0)
SIZE = 300
LIMIT = 100.0


def scaled_forward(
    x: "in rows f[N,C]", weight: "in whole f[C]", y: "out rows f[N,C]", lo: "begin", hi: "end"
):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] * weight[j]


def scaled_backward(
    weight: "in whole f[C]", dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"
):
    for i in range(lo, hi):
        for j in range(dy.shape[1]):
            dx[i, j] = dy[i, j] * weight[j]


def scaled_backward_weight(
    x: "in cols f[N,C]", dy: "in cols f[N,C]", dweight: "out cols f[C]", lo: "begin", hi: "end"
):
    for j in range(lo, hi):
        total = 0.0
        for i in range(x.shape[0]):
            if x[i, j] > LIMIT:
                raise ValueError("too large")
            total += x[i, j] * dy[i, j]
        dweight[j] = total


@pytest.fixture
def scaled() -> Iterator[Any]:
    made = fnn.define_op(
        "scaled",
        fnn.kernel(scaled_forward),
        [fnn.kernel(scaled_backward), fnn.kernel(scaled_backward_weight)],
    )
    yield made
    mine = (scaled_forward, scaled_backward, scaled_backward_weight)
    for name in [name for name, kernel in KERNELS.items() if kernel.function in mine]:
        del KERNELS[name]
    OPS.pop("scaled", None)


class Model(nn.Module):
    """Its first layers' updates come before the gradient that raises, in one way or another."""

    def __init__(self, scaled: Any) -> None:
        self.scaled = scaled
        self.weight = nn.Parameter((6,), 1.0)
        self.first, self.norm = nn.Linear(6, 40), nn.BatchNorm(40)
        self.second, self.last = nn.Linear(40, 40), nn.Linear(40, 3)

    def forward(self, x: Any) -> Any:
        hidden = self.norm(self.first(self.scaled(x, self.weight)))
        return self.last(fnn.ops.tanh(self.second(hidden)))


def data(bad: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(SIZE, 6)).astype(np.float32)
    if bad:
        x[SIZE - 7, 5] = 2 * LIMIT
    return x, rng.integers(0, 3, SIZE)


def contents(model: nn.Module, session: Any) -> dict[str, bytes]:
    found = {name: array.tobytes() for name, array in model.state_dict().items()}
    names = [name for name in session.memory if name.startswith("slots/")]
    return found | {name: session.memory[name].tobytes() for name in names}


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_single_step(scaled: Any, workers: int, guarded: bool) -> None:
    runs = []
    for meets_it in (False, True):
        model = Model(scaled)
        step = fnn.compile(
            model, "cross_entropy", optim.Adam(lr=0.01), workers=workers, device="cpu",
            stop_on_nonfinite=guarded,
        )  # fmt: skip
        losses = [step(*data()) for _ in range(3)]
        if meets_it:
            before = contents(model, step.session)
            for _ in range(20):
                with pytest.raises(KernelError, match=r"item 5: ValueError: too large$"):
                    step(*data(bad=True))
                assert contents(model, step.session) == before
            assert step.steps == 3
        losses += [step(*data()) for _ in range(3)]
        runs.append((losses, contents(model, step.session)))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_smaller_batch(scaled: Any, workers: int, guarded: bool) -> None:
    """It runs with the tables of a larger one: what comes before the failure is told all the same,
    and the good step before it stays."""
    step = fnn.compile(
        Model(scaled), "cross_entropy", optim.Adam(lr=0.01), workers=workers, device="cpu",
        stop_on_nonfinite=guarded,
    )  # fmt: skip
    x, y = data()
    bad, _ = data(bad=True)
    for size in (SIZE, 200, SIZE, 250):
        step(x[-size:], y[-size:])
        before = contents(step.model, step.session)
        with pytest.raises(KernelError, match=r"item 5: ValueError: too large$"):
            step(bad[-size:], y[-size:])
        assert contents(step.model, step.session) == before
    assert step.steps == 4


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_fit(scaled: Any, workers: int) -> None:
    """The epoch is begun anew, after the steps that were done of it."""
    x, y = data()
    runs = []
    for meets_it in (False, True):
        model = Model(scaled)
        trainer = fnn.Trainer(
            model, "cross_entropy", optim.Adam(lr=0.01), metrics=["accuracy"], workers=workers,
            device="cpu",
        )  # fmt: skip
        trainer.fit([(x[:100], y[:100])] * 2, verbose=False)
        if meets_it:
            bad, _ = data(bad=True)
            before = contents(model, trainer.session)
            with pytest.raises(KernelError, match=r"too large$"):
                trainer.fit(bad, y, batch_size=SIZE, verbose=False)
            assert contents(model, trainer.session) == before
            assert trainer.step == 2
        history = trainer.fit(x, y, batch_size=100, epochs=2, shuffle=False, verbose=False)
        values = {name: list(history[name]) for name in ("loss", "accuracy")}
        runs.append((values, contents(model, trainer.session)))
    assert runs[0] == runs[1]


def test_means_of_an_epoch_begun_anew(scaled: Any) -> None:
    x, y = data()
    bad, _ = data(bad=True)
    model = Model(scaled)
    trainer = fnn.Trainer(model, "cross_entropy", optim.SGD(lr=0.0), device="cpu")
    with pytest.raises(KernelError):
        trainer.fit(bad, y, batch_size=100, shuffle=False, verbose=False)
    assert trainer.step == 2
    assert trainer.cursor == 0
    history = trainer.fit(x, y, batch_size=100, shuffle=False, verbose=False)
    assert trainer.step == 5
    other = fnn.Trainer(Model(scaled), "cross_entropy", optim.SGD(lr=0.0), device="cpu")
    wanted = other.fit(x, y, batch_size=100, shuffle=False, verbose=False)
    assert list(history["loss"]) == list(wanted["loss"])


class Careful(optim.Optimizer):
    """Gradient descent that raises at large gradients, in the middle of the updates."""

    name = "careful"

    def __init__(self, lr: float = 0.1):
        super().__init__(lr=lr)

    slots = ("last",)

    @staticmethod
    def scalars(t: int, lr: float) -> tuple[float, ...]:
        return (-lr,)

    @staticmethod
    def rule(p: Any, g: Any, last: Any, lr: Any) -> Any:
        if max_lanes(g) > LIMIT:
            raise ValueError("steep")
        return fma(g, lr, p), g


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("guarded", [True, False])
def test_update_that_raises(workers: int, guarded: bool) -> None:
    """Nothing comes before it that could tell: it is undone, or the error says so."""
    model = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 30), nn.Linear(30, 3))
    step = fnn.compile(model, "mse", Careful(), workers=workers, stop_on_nonfinite=guarded)
    x = data()[0]
    step(x, x[:, :3])
    before = contents(model, step.session)
    for _ in range(3):
        with pytest.raises(KernelError, match="steep$" if guarded else "half an update: load"):
            step(x, x[:, :3] * np.array([1.0, 1.0, 1e4], np.float32))
        assert step.steps == 1
        assert not guarded or contents(model, step.session) == before
    assert np.isfinite(step(x, x[:, :3]))


def test_own_kernels_raise_nothing() -> None:
    """So programs of them alone have their updates beside the gradients."""
    load_all()
    assert not any(
        kernel.may_raise
        for kernel in KERNELS.values()
        if (kernel.function.__module__ or "").startswith("fastnn")
    )


def test_divisions_by_zero_raise_nothing() -> None:
    """As the README says: what may be 0 has to be looked at."""

    def divided(x: "in rows f[N,C]", y: "out rows f[N,D]", lo: "begin", hi: "end"):
        for i in range(lo, hi):
            whole = int(x[i, 0])
            y[i, 0] = 7 // whole
            y[i, 1] = 7 % whole
            y[i, 2] = x[i, 1] / x[i, 0]

    made = fnn.kernel(divided)
    try:
        x, y = np.array([[0, 1], [0, 0], [4, 2]], np.float32), np.full((3, 3), 9, np.float32)
        call(made, x=x, y=y)
    finally:
        del KERNELS["divided"]
    np.testing.assert_array_equal(y, [[0, 0, np.inf], [0, 0, np.nan], [1, 3, 0.5]])
