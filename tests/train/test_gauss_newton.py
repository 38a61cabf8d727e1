"""Levenberg-Marquardt and Hessian-free optimisation."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
import fastnn.train.full_batch as full_batch
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from tests.train.test_full_batch import X, Y, state, trainer_of

METHODS = {"lm": optim.LevenbergMarquardt, "hf": optim.HessianFree}


class Curve(nn.Module):
    """a exp(b x) + c tanh(d x)."""

    def __init__(self, start):
        self.p = nn.Parameter((4,), lambda shape, rng: np.array(start))

    def forward(self, x):
        a, b, c, d = (self.p[k : k + 1] for k in range(4))
        return ops.exp(x * b) * a + ops.tanh(x * d) * c


def test_a_curve_is_fitted_to_the_last_digits():
    x = np.linspace(-1.0, 2.0, 80)[:, None]
    wanted = np.array([1.5, -0.7, 0.8, 2.0])
    y = wanted[0] * np.exp(wanted[1] * x) + wanted[2] * np.tanh(wanted[3] * x)
    model = Curve([1.0, -0.1, 0.3, 1.0])
    trainer = fnn.Trainer(
        model, nn.MSELoss(reduction="sum"), optim.LevenbergMarquardt(), dtype="float64"
    )
    history = trainer.fit(x, y, epochs=30, verbose=False)
    assert history["loss"][-1] < 1e-12
    np.testing.assert_allclose(model.p.value, wanted, rtol=1e-6)


def test_the_first_step_is_that_of_the_formula():
    """(G + damping diag(G)) d = -g, and least squares are solved at once where damping is tiny."""
    net = nn.Linear(4, 2)
    trainer = trainer_of(optim.LevenbergMarquardt(damping=1e-12), net=net)
    trainer.fit(X, Y, epochs=1, verbose=False)
    wanted = np.linalg.lstsq(np.c_[X, np.ones(100)], Y, rcond=None)[0]
    np.testing.assert_allclose(net.weight.value, wanted[:4].T, rtol=1e-7)
    np.testing.assert_allclose(net.bias.value, wanted[4], rtol=1e-7)
    other = nn.Linear(4, 2)
    damped = trainer_of(optim.LevenbergMarquardt(damping=0.5), net=other)
    before = {n: a.copy() for n, a in damped.get_parameters().items()}
    damped.fit(X, Y, epochs=1, verbose=False)
    a = np.c_[X, np.ones(100)]
    old = np.c_[before["weight"], before["bias"]].T
    g, full = a.T @ (a @ old - Y) / 100, a.T @ a / 100
    new = old - np.linalg.solve(full + 0.5 * np.diag(np.diag(full)), g)
    np.testing.assert_allclose(np.c_[other.weight.value, other.bias.value].T, new, rtol=1e-9)


def test_hessian_free_solves_least_squares():
    net = nn.Linear(4, 2)
    trainer = trainer_of(optim.HessianFree(damping=1e-6), net=net)
    trainer.fit(X, Y, epochs=12, verbose=False)
    wanted = np.linalg.lstsq(np.c_[X, np.ones(100)], Y, rcond=None)[0]
    np.testing.assert_allclose(net.weight.value, wanted[:4].T, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_with_every_iteration_and_is_that_of_the_model(name):
    trainer = trainer_of(METHODS[name]())
    history = trainer.fit(X, Y, epochs=12, verbose=False)
    assert np.all(np.diff(history["loss"]) < 0)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert trainer.step == len(history["loss"])
    assert trainer.evaluate(X, Y)["loss"] == pytest.approx(history["loss"][-1], rel=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_same_bits_on_any_number_of_workers_and_after_resume(name, tmp_path):
    found = []
    for workers in (1, 2, 3):
        trainer = trainer_of(METHODS[name](), dtype="float32", workers=workers)
        trainer.fit(X, Y, epochs=7, verbose=False)
        found.append(state(trainer))
    trainer = trainer_of(METHODS[name](), dtype="float32")
    trainer.fit(X, Y, epochs=3, verbose=False)
    trainer.save(tmp_path / "half")
    resumed = trainer_of(METHODS[name](), dtype="float32")
    resumed.fit(X, Y, epochs=7, verbose=False, resume=tmp_path / "half")
    found.append(state(resumed))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_blocks_are_the_whole(name, reduction, monkeypatch):
    classes = np.random.default_rng(3).integers(0, 2, 100)
    found = []
    for block in (4096, 64):
        monkeypatch.setattr(full_batch, "BLOCK", block)
        method = METHODS[name]() if name == "lm" else optim.HessianFree(max_iterations=5)
        trainer = trainer_of(method, loss=nn.CrossEntropyLoss(reduction=reduction))
        found.append(trainer.fit(X, classes, epochs=4, verbose=False)["loss"])
    np.testing.assert_allclose(*found, rtol=1e-7)


def test_what_is_refused():
    with pytest.raises(OptionError, match=r"at most 10 parameters, got 44.*HessianFree"):
        trainer_of(optim.LevenbergMarquardt(max_parameters=10)).fit(X, Y, verbose=False)
    with pytest.raises(OptionError, match=r"batch_size: HessianFree takes all"):
        trainer_of(optim.HessianFree()).fit(X, Y, batch_size=10, verbose=False)
    with pytest.raises(OptionError, match="factor"):
        optim.LevenbergMarquardt(factor=1.0)
    with pytest.raises(OptionError, match="damping"):
        optim.HessianFree(damping=0.0)
    with pytest.raises(OptionError, match="decay"):
        optim.HessianFree(decay=1.0)
