"""Eigenvalues of the Hessian, and what they say of learning rates."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.autodiff import Products, eigenvalues, learning_rates
from fastnn.errors import OptionError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)), RNG.normal(size=(40, 2))


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_those_of_the_dense_matrix(matrix):
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    products = Products(model, "mse", dtype="float64")
    multiply = products.hvp if matrix == "hessian" else products.gnvp
    dense = np.stack([multiply(X, Y, row) for row in np.eye(37)])
    np.testing.assert_allclose(dense, dense.T, atol=1e-12)
    wanted = np.linalg.eigvalsh(dense)
    wanted = wanted[np.argsort(-np.abs(wanted))]
    found = eigenvalues(model, "mse", X, Y, 6, matrix=matrix)
    np.testing.assert_allclose(found, wanted[:6], rtol=1e-5, atol=1e-6 * wanted[0])


def test_equal_eigenvalues():
    """Two outputs have the same Hessian each, so that every eigenvalue is there twice."""
    found = eigenvalues(nn.Linear(4, 2), "mse", X, Y, 10, dtype="float64")
    a = np.c_[X, np.ones(40)]
    wanted = np.repeat(np.sort(np.linalg.eigvalsh(a.T @ a / 40))[::-1], 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_a_vector_that_meets_one_direction_is_followed_by_another() -> None:
    """A diagonal Hessian with one eigenvalue four times: every vector is one of its own."""

    class Bowl(nn.Module):
        def __init__(self):
            self.p = nn.Parameter((4,), "normal")

        def forward(self, x):
            return ops.sum(ops.square(self.p)) * 4.0 + x * 0.0

    found = eigenvalues(Bowl(), lambda y, t: ops.mean(y), X[:, :1], Y[:, :1], 4, dtype="float64")
    np.testing.assert_allclose(found, 8.0, rtol=1e-12)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_it_ends_as_soon_as_the_residuals_are_small(tolerance, monkeypatch):
    """Those of the two largest eigenvectors, by the Krylov space's own products in NumPy."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    products = Products(model, "mse", dtype="float64")
    dense = np.stack([products.hvp(X, Y, row) for row in np.eye(37)])
    vectors, own = [], Products.hvp

    def noted(self, x, y, v, *rest):
        vectors.append(v.copy())
        return own(self, x, y, v, *rest)

    monkeypatch.setattr(Products, "hvp", noted)
    eigenvalues(model, "mse", X, Y, 2, tolerance=tolerance, dtype="float64")

    def largest(count):
        q, _ = np.linalg.qr(np.transpose(vectors[:count]))
        values, inner = np.linalg.eigh(q.T @ dense @ q)
        order = np.argsort(-np.abs(values))[:2]
        apart = dense @ q @ inner[:, order] - q @ inner[:, order] * values[order]
        return np.linalg.norm(apart, axis=0).max() / np.abs(values).max()

    assert largest(len(vectors)) <= 1.01 * tolerance
    assert len(vectors) == 2 or largest(len(vectors) - 1) > 0.99 * tolerance


@pytest.mark.parametrize("share", [0.98, 1.02])
def test_gradient_descent_diverges_beyond_the_stable_rate(share):
    model = nn.Linear(4, 2)
    rates = learning_rates(model, "mse", X, Y, dtype="float64")
    assert rates.stable == 2 * rates.optimal == 2 / rates.largest
    trainer = fnn.Trainer(model, "mse", optim.SGD(share * rates.stable), dtype="float64")
    options = {"batch_size": 40, "shuffle": False, "verbose": False}
    losses = trainer.fit(X, Y, epochs=400, **options)["loss"]
    assert (losses[-1] < losses[0]) == (share < 1)
    assert share < 1 or losses[-1] > 1e3 * losses[0]


def test_the_optimal_rate_is_one_step_in_one_dimension():
    model, x = nn.Linear(1, 1, bias=False), X[:, :1]
    rates = learning_rates(model, "mse", x, 3.0 * x, dtype="float64")
    trainer = fnn.Trainer(model, "mse", optim.SGD(rates.optimal), dtype="float64")
    trainer.fit(x, 3.0 * x, epochs=1, batch_size=40, verbose=False)
    np.testing.assert_allclose(model.weight.value, 3.0, rtol=1e-12)


def test_errors():
    model = nn.Linear(4, 2)
    with pytest.raises(OptionError, match=r"expected at most 10, .*got 11"):
        eigenvalues(model, "mse", X, Y, 11)
    with pytest.raises(OptionError, match="expected one of"):
        eigenvalues(model, "mse", X, Y, matrix="fisher")
    with pytest.raises(OptionError, match="largest eigenvalue is positive"):
        learning_rates(model, lambda y, t: -fnn.ops.mean(fnn.ops.square(y - t)), X, Y)
