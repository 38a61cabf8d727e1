"""Directions of the full-batch methods are the textbooks', iteration by iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import ops, optim
from fastnn.kernels.descent import directions, search
from tests.train.test_full_batch import Rosenbrock

SIZE = 6


def slope(p: np.ndarray) -> np.ndarray:
    """Of the sum of (1 - a)^2 + 100 (b - a^2)^2 over neighbours a, b."""
    g = np.zeros_like(p)
    g[:-1] = -2 * (1 - p[:-1]) - 400 * p[:-1] * (p[1:] - p[:-1] ** 2)
    g[1:] += 200 * (p[1:] - p[:-1] ** 2)
    return g


def places(method: Any, epochs: int) -> tuple[list[np.ndarray], Any]:
    """Where iterations begin and end."""
    model = Rosenbrock(SIZE)
    trainer = fnn.Trainer(model, lambda y, t: ops.mean(y), method, dtype="float64", seed=1)
    found = [np.tile([-1.2, 1.0], SIZE // 2)]
    mark = fnn.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: found.append(np.array(model.p.value))
    )
    zeros = np.zeros((1, 1))
    history = trainer.fit(zeros, zeros, epochs=epochs, callbacks=[mark], verbose=False)
    return found, history


def along(step: np.ndarray, direction: np.ndarray) -> bool:
    """Whether they point the same way."""
    cosine = step @ direction / np.linalg.norm(step) / np.linalg.norm(direction)
    return bool(cosine > 1 - 1e-9)


@pytest.mark.parametrize("formula", ["polak-ribiere", "fletcher-reeves"])
@pytest.mark.parametrize("restart", [0, 4])
def test_conjugate_gradients(formula: str, restart: int) -> None:
    """Nocedal & Wright 2006: beta by (5.41a) or, at least 0, (5.44); Powell's restart (5.52) with
    nu = 0.2 for the former; steepest descent after `restart` iterations and uphill."""
    way, _ = places(optim.ConjugateGradient(formula=formula, restart=restart), 40)
    direction, since, restarts = -slope(way[0]), 0, 0
    for k in range(len(way) - 1):
        g = slope(way[k])
        if k:
            before = slope(way[k - 1])
            if formula == "fletcher-reeves":
                beta = g @ g / (before @ before)
                beta = 0.0 if abs(g @ before) >= 0.2 * (g @ g) else beta
            else:
                beta = max(0.0, g @ (g - before) / (before @ before))
            since += 1
            if restart and since >= restart:
                beta = 0.0
            if beta:
                direction = -g + beta * direction
            if not beta or g @ direction >= -0.01 * (g @ g):
                direction, since, restarts = -g, 0, restarts + 1
        assert along(way[k + 1] - way[k], direction), k
    assert restarts > (8 if restart else 0)


@pytest.mark.parametrize("size", [1, 3])
def test_limited_memory(size: int) -> None:
    """Nocedal & Wright 2006, algorithm 7.4, with the scale of (7.20), as a matrix: (7.19)."""
    way, _ = places(optim.LBFGS(history_size=size), 30)
    for k in range(len(way) - 1):
        inverse = np.eye(SIZE)
        pairs = [
            (way[j + 1] - way[j], slope(way[j + 1]) - slope(way[j]))
            for j in range(max(k - size, 0), k)
        ]
        if pairs:
            s, y = pairs[-1]
            inverse *= s @ y / (y @ y)
        for s, y in pairs:
            left = np.eye(SIZE) - np.outer(s, y) / (s @ y)
            inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
        assert along(way[k + 1] - way[k], -inverse @ slope(way[k])), k
    assert len(way) > 25


def test_a_loss_that_hardly_falls_ends_it() -> None:
    way, history = places(optim.LBFGS(history_size=3, tolerance_change=0.3), 60)
    shares = -np.diff(history["loss"]) / history["loss"][:-1]
    assert shares[-1] <= 0.3 < min(shares[:-1])
    assert len(way) < 60
    assert history.stopped.startswith("converged")


@pytest.mark.parametrize(("along", "kept"), [(0.48, True), (0.497, False), (0.6, False)])
def test_a_conjugate_direction_has_to_descend(along: float, kept: bool) -> None:
    """By a hundredth of the steepest slope; beta is 2 here. Steps that satisfy the strong Wolfe
    conditions leave such directions behind on no ordinary function."""
    state, g = np.zeros(search.HEAD), np.array([1.0, 0.0])
    direction = np.array([along, 3.0])
    slope = directions.cg_direction(state, g, g / 2, direction, 0, 0)
    np.testing.assert_allclose(direction, [2 * along - 1, 6.0] if kept else [-1.0, 0.0])
    assert slope == pytest.approx(2 * along - 1 if kept else -1.0)
    assert state[search.STEEPEST] == (not kept)


@pytest.mark.parametrize(("change", "kept"), [(0.5, True), (0.0, False), (-0.5, False)])
def test_a_pair_without_positive_curvature_is_not_kept(change: float, kept: bool) -> None:
    """Nocedal & Wright 2006, (7.20), and (6.7): s.y > 0, or the history begins anew."""
    state, g = np.zeros(search.HEAD + directions.numbers_needed(1)), np.array([1.0, 2.0])
    state[search.ITERATIONS], state[search.STORED] = 2, 1
    step = np.array([0.5, 0.0])
    s, y, direction, zero = (np.zeros(2) for _ in range(4))
    before = g - np.array([change, 0.25])
    slope = directions.compact_direction(state, step, g, zero, before, direction, (s,), (y,), 1)
    inverse = np.eye(2)
    if kept:
        s, y = step, g - before
        left = np.eye(2) - np.outer(s, y) / (s @ y)
        inverse = left @ left.T * (s @ y) / (y @ y) + np.outer(s, s) / (s @ y)
    np.testing.assert_allclose(direction, -inverse @ g, rtol=1e-12)
    assert slope == pytest.approx(g @ direction)
    assert (state[search.STORED], state[search.STEEPEST]) == ((1, 0) if kept else (0, 1))


class Pairs:
    """What a function of L-BFGS's directions keeps, with vectors of 1,100 elements."""

    def __init__(self, function: Any, m: int, dtype: Any = np.float64):
        self.function, self.m, self.dtype = function, m, dtype
        self.state = np.zeros(search.HEAD + max(2 * m, directions.numbers_needed(m)))
        self.s, self.y = (tuple(np.zeros((2, m, 1100), dtype)[k]) for k in (0, 1))

    def __call__(self, number: int, *places: np.ndarray) -> tuple[float, np.ndarray]:
        """The slope and the direction after iteration `number`, which went from `origin`, with the
        gradient `before`, to p, with g."""
        p, g, origin, before = (np.array(a, self.dtype) for a in places)
        self.state[search.ITERATIONS] = number
        found = np.zeros_like(p)
        slope = self.function(self.state, p, g, origin, before, found, self.s, self.y, self.m)
        return slope, found


@pytest.mark.parametrize("m", [1, 3])
def test_both_forms_of_limited_memory_agree(m: int) -> None:
    """Inner products that are kept give what two loops give: while pairs are few, when the oldest
    are replaced, and from a new beginning on where a pair shows no curvature."""
    rng = np.random.default_rng(m)
    bends = rng.random(1100) * 9 + 1
    forms = [Pairs(form, m) for form in (directions.two_loops, directions.compact_direction)]
    p = rng.normal(size=1100)
    for number in range(1, 3 * m + 4):
        origin, p = p, p + rng.normal(size=1100)
        g, before = bends * p, bends * origin
        anew = number == m + 2
        if anew:
            g = before - 1e-3 * (p - origin)
        (slope, direction), (other, compact) = (
            form(number, p, g, origin, before) for form in forms
        )
        np.testing.assert_allclose(compact, direction, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(other, slope, rtol=1e-9)
        stored = min(m, number if number < m + 2 else number - m - 2)
        for form in forms:
            assert form.state[search.STEEPEST] == anew
            assert form.state[search.STORED] == stored
        if anew:
            np.testing.assert_array_equal(direction, -g)
