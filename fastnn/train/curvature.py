"""The largest eigenvalues of a loss's Hessian, and the learning rates that follow from them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnn.errors import NonFiniteError, OptionError, check_whole
from fastnn.nn.module import Module
from fastnn.train.products import Products

MATRICES = {"hessian": "hvp", "gauss_newton": "gnvp"}


class Rates(NamedTuple):
    """Learning rates of plain gradient descent on a batch.

    Attributes:
        largest: the largest eigenvalue of the Hessian.
        optimal: 1 / largest, which reaches the minimum along that direction in one step.
        stable: 2 / largest, above which gradient descent diverges.
    """

    largest: float
    optimal: float
    stable: float


def eigenvalues(
    model: Module, loss: Any, x: Any, y: Any, count: int = 1, *, matrix: str = "hessian",
    steps: int = 200, tolerance: float = 1e-6, seed: int = 0, sample_weight: Any = None,
    **options: Any,
) -> np.ndarray:  # fmt: skip
    """The largest eigenvalues (by magnitude, with their signs) of the Hessian of a loss with
    respect to a model's parameters, by Lanczos's method on Hessian-vector products, with full
    reorthogonalisation.

    Args:
        model, loss, options: as for `Products`.
        x, y, sample_weight: the samples that the loss is computed on, all at once.
        count: how many.
        matrix: "hessian" or "gauss_newton".
        steps: most products; never more than there are parameters.
        tolerance: stop when all residuals are below this share of the largest eigenvalue.
        seed: of the first vector.

    Returns:
        Shape (count,), float64, largest magnitude first.

    Raises:
        OptionError: there are fewer parameters than eigenvalues wanted.
        NonFiniteError: a product is not finite.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> x, y = np.array([[1.0], [3.0]]), np.zeros((2, 1))
    >>> net = fnn.nn.Linear(1, 1)
    >>> fnn.autodiff.eigenvalues(net, "mse", x, y, 2, dtype="float64").round(4)
    array([11.6569,  0.3431])
    """
    if matrix not in MATRICES:
        raise OptionError(f"eigenvalues matrix: expected one of {list(MATRICES)}, got {matrix!r}")
    check_whole("eigenvalues", 1, count=count, steps=steps)
    products = Products(model, loss, seed=seed, **options)
    size = sum(p.size for p in products.parameters.values())
    if count > size:
        raise OptionError(
            f"eigenvalues count: expected at most {size}, one for each number that is trained, got "
            f"{count}"
        )
    multiply = getattr(products, MATRICES[matrix])
    v = np.random.default_rng(seed).normal(size=size)
    basis: list[np.ndarray] = []
    diagonal: list[float] = []
    beside: list[float] = []
    v /= np.sqrt(np.sum(v * v))
    for _ in range(min(max(steps, count), size)):
        basis.append(v)
        w = np.asarray(multiply(x, y, v.astype(products.dtype), sample_weight), np.float64)
        diagonal.append(float(np.sum(w * v)))
        if not np.isfinite(diagonal[-1]):
            raise NonFiniteError("eigenvalues: a product with the matrix is not finite")
        for _ in range(2):  # once is not enough, twice is
            for q in basis:
                w -= np.sum(w * q) * q
        length = float(np.sqrt(np.sum(w * w)))
        tri = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        found, vectors = np.linalg.eigh(tri)
        order = np.argsort(-np.abs(found))[:count]
        top = abs(found[order[0]])
        residuals = length * np.abs(vectors[-1, order])
        if len(diagonal) >= count and (residuals <= tolerance * top).all():
            break
        if length <= 1e-12 * max(top, 1e-300):  # the vector meets few directions: another one
            w = np.random.default_rng(seed + len(basis)).normal(size=size)
            for _ in range(2):
                for q in basis:
                    w -= np.sum(w * q) * q
            length = 0.0
        beside.append(length)
        v = w / np.sqrt(np.sum(w * w))
    return np.array(found[order])


def learning_rates(model: Module, loss: Any, x: Any, y: Any, **options: Any) -> Rates:
    """The optimal and the largest stable rate of gradient descent, from the largest eigenvalue of
    the Hessian (LeCun, Bottou, Orr & Müller 1998, "Efficient BackProp", section 4).

    On a quadratic loss gradient descent diverges beyond 2 / largest; in one dimension
    1 / largest is best. The Hessian of a loss that is not quadratic varies from place to place:
    these are the rates at the present parameters.

    Args:
        model, loss, x, y, options: as for `eigenvalues`.

    Raises:
        OptionError: the loss does not curve upward in any direction.

    >>> import fastnn as fnn
    >>> model, x = fnn.nn.Linear(1, 1, bias=False), np.array([[1.0], [3.0]])
    >>> rates = fnn.autodiff.learning_rates(model, "mse", x, np.zeros((2, 1)), dtype="float64")
    >>> round(rates.largest, 6), round(rates.stable, 6)  # the second derivative of mean (w x)^2
    (10.0, 0.2)
    """
    found = eigenvalues(model, loss, x, y, **options)
    largest = float(found[0])
    if largest <= 0:
        raise OptionError(
            f"learning_rates: expected a Hessian whose largest eigenvalue is positive, got "
            f"{largest:g}: the parameters are at a maximum or a saddle; train a little first, or "
            "take matrix='gauss_newton'"
        )
    return Rates(largest, 1.0 / largest, 2.0 / largest)
