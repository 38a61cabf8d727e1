"""Full-batch methods against SciPy's: evaluations to the same gradient norm."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from tests.train.test_full_batch import X, Y

scipy_optimize = pytest.importorskip("scipy.optimize")
pytestmark = pytest.mark.peers


def problem(model):
    """Loss and gradient as a function of a flat vector, from the model's own program."""
    step = fnn.compile(model, "mse", dtype="float64")
    names = list(step.parameters)

    def function(vector):
        begin = 0
        for name in names:
            p = step.parameters[name]
            p.value = vector[begin : begin + p.size].reshape(p.shape)
            begin += p.size
        found = step.gradients(X, Y)
        return step.evaluate(X, Y), np.concatenate([found[n].reshape(-1) for n in names])

    start = np.concatenate([step.parameters[n].value.reshape(-1) for n in names])
    return function, start


def evaluations(name, limit, net, seed):
    """Ours, and SciPy's."""
    kind = optim.LBFGS if name == "lbfgs" else optim.ConjugateGradient
    method = kind(tolerance_change=0.0, tolerance_gradient=limit)
    trainer = fnn.Trainer(net, "mse", method, dtype="float64", seed=seed)
    function, start = problem(trainer.model)
    counted = 0

    def counting(vector):
        nonlocal counted
        counted += 1
        return function(vector)

    options = {"gtol": limit, "maxiter": 1000}
    if name == "lbfgs":
        options |= {"ftol": 0.0, "maxfun": 2000}
    theirs = scipy_optimize.minimize(
        counting, start, jac=True, method="L-BFGS-B" if name == "lbfgs" else "CG", options=options
    )
    assert np.abs(function(theirs.x)[1]).max() <= limit
    function(start)
    history = trainer.fit(X, Y, epochs=1000, verbose=False)
    assert history["gradient"][-1] <= limit
    return history["evaluations"][-1], counted


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Softplus])
@pytest.mark.parametrize("name", ["lbfgs", "cg"])
def test_evaluations_for_a_net(name, activation):
    """Over five beginnings: a path that differs in its last digits may become another one."""
    found = np.zeros(2)
    for seed in range(5):
        net = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 2))
        found += evaluations(name, 1e-2, net, seed)
    assert found[0] <= 1.2 * found[1], found


@pytest.mark.parametrize("name", ["lbfgs", "cg"])
def test_evaluations_for_least_squares(name):
    ours, theirs = evaluations(name, 1e-6, nn.Linear(4, 2), 0)
    assert ours <= 1.2 * theirs, (ours, theirs)
