"""The line search against the tables of its paper, and SciPy's, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fastnn.kernels.descent import search

Function = Callable[[float], tuple[float, float]]


def one(a: float) -> tuple[float, float]:
    """Moré & Thuente 1994, equation 5.1, beta = 2: concave from some point on."""
    return -a / (a * a + 2.0), (a * a - 2.0) / (a * a + 2.0) ** 2


def two(a: float) -> tuple[float, float]:
    """Equation 5.2, beta = 0.004."""
    b = a + 0.004
    return b**5 - 2 * b**4, 5 * b**4 - 8 * b**3


def three(a: float, beta: float = 0.01, waves: int = 39) -> tuple[float, float]:
    """Equations 5.3 and 5.4: many local minima."""
    value, slope = (1 - a, -1.0) if a <= 1 else (a - 1, 1.0)
    if abs(a - 1) < beta:
        value, slope = (a - 1) ** 2 / (2 * beta) + beta / 2, (a - 1) / beta
    inner = waves * math.pi / 2
    wave = (1 - beta) / inner
    return value + wave * math.sin(inner * a), slope + wave * inner * math.cos(inner * a)


def yanai(first: float, second: float) -> Function:
    """Equation 5.5 (Yanai, Ozawa & Kaneko 1981): steep at 0 and at 1."""
    left, right = (math.sqrt(1 + b * b) - b for b in (first, second))

    def function(a: float) -> tuple[float, float]:
        u, v = math.hypot(1 - a, second), math.hypot(a, first)
        return left * u + right * v, left * (a - 1) / u + right * a / v

    return function


#: function, mu, eta; for first steps of 1e-3, 0.1, 10 and 1,000: evaluations and the step found
TABLES: dict[str, tuple[Function, float, float, list[tuple[int, float]]]] = {
    "I": (one, 1e-3, 1e-1, [(6, 1.4), (3, 1.4), (1, 10.0), (4, 37.0)]),
    "II": (two, 1e-1, 1e-1, [(12, 1.6), (8, 1.6), (8, 1.6), (11, 1.6)]),
    "III": (three, 1e-1, 1e-1, [(12, 1.0), (12, 1.0), (10, 1.0), (13, 1.0)]),
    "IV": (yanai(1e-3, 1e-3), 1e-3, 1e-3, [(4, 0.085), (1, 0.1), (3, 0.35), (4, 0.83)]),
    "V": (yanai(1e-2, 1e-3), 1e-3, 1e-3, [(6, 0.075), (3, 0.078), (7, 0.073), (8, 0.076)]),
    "VI": (yanai(1e-3, 1e-2), 1e-3, 1e-3, [(13, 0.93), (11, 0.93), (8, 0.92), (11, 0.92)]),
}


def searched(function: Function, first: float, mu: float, eta: float) -> tuple[list[float], int]:
    """All steps that are tried, and the answer to the last."""
    state, steps = np.zeros(search.HEAD), []
    search.begin_search(state, *function(0.0), first)
    while True:
        steps.append(float(state[search.STEP]))
        answer = search.search_step(state, *function(steps[-1]), mu, eta, 1e-10)
        if answer != search.TRY or len(steps) == 60:
            return steps, int(answer)


@pytest.mark.parametrize("name", TABLES)
def test_evaluations_and_steps_are_the_papers(name: str) -> None:
    """Its tables I to VI, and the strong Wolfe conditions at the end."""
    function, mu, eta, rows = TABLES[name]
    start, slope = function(0.0)
    for first, (count, end) in zip((1e-3, 1e-1, 1e1, 1e3), rows, strict=True):
        steps, answer = searched(function, first, mu, eta)
        assert answer == search.TAKE
        assert (len(steps), float(f"{steps[-1]:.2g}")) == (count, end)
        value, final = function(steps[-1])
        assert value <= start + mu * steps[-1] * slope
        assert abs(final) <= eta * abs(slope)


@pytest.mark.peers
@pytest.mark.parametrize("name", TABLES)
def test_every_trial_is_that_of_scipy(name: str) -> None:
    module = pytest.importorskip("scipy.optimize._dcsrch")
    function, mu, eta, _ = TABLES[name]
    for first in 10.0 ** np.arange(-4, 5):
        tried: list[float] = []

        def value(a: float, tried: list[float] = tried) -> float:
            tried.append(float(a))
            return function(a)[0]

        theirs = module.DCSRCH(value, lambda a: function(a)[1], mu, eta, 1e-10, 0.0, 1e10)
        start, slope = function(0.0)
        theirs(float(first), phi0=start, derphi0=slope, maxiter=60)
        np.testing.assert_allclose(searched(function, float(first), mu, eta)[0], tried, rtol=1e-9)
