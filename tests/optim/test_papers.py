"""Optimisers that no other library has, against their papers' algorithms, number by number.

Written from the papers alone, without the small constants that keep divisions finite: the
optimisers are given constants that do not matter. What is ours is said in each docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim

STEPS, RATE, TINY = 10, 0.05, 1e-30
Gradient = Callable[[list[float]], list[float]]


def quickprop(states: list[dict[str, float]], w: list[float], slopes: Gradient) -> list[float]:
    """Fahlman 1988 (CMU-CS-88-162), section 3.3, whose formula has no number: a step goes to the
    minimum of the parabola through two slopes, S(t) / (S(t-1) - S(t)) times the last step, which it
    is at most mu = 1.75 times as long as; rate times the slope is added unless the slope has
    changed its sign."""
    new = []
    for s, place, slope in zip(states, w, slopes(w), strict=True):
        last, before = s.get("step", 0.0), s.get("slope", 0.0)
        if last == 0.0:
            step = -RATE * slope
        else:
            parabola = slope / (before - slope) if before != slope else math.inf
            uphill = slope * before > 0 and abs(slope) >= abs(before)  # no minimum ahead
            step = last * (1.75 if uphill else min(parabola, 1.75))
            if slope * before > 0:
                step -= RATE * slope
        s.update(step=step, slope=slope)
        new.append(place + step)
    return new


def delta_bar_delta(
    states: list[dict[str, float]], w: list[float], slopes: Gradient, theta: float = 0.7
) -> list[float]:
    """Jacobs 1988, the delta-bar-delta rule: a rate grows by kappa where the slope has the sign of
    the mean of those before, and falls by phi times itself where it has the other; the mean is
    (1 - theta) slope + theta mean. kappa is 0.05 of the first rate, phi 0.05 (Hinton's course);
    rates stay within 0.1 and 10 times the first."""
    new = []
    for s, place, slope in zip(states, w, slopes(w), strict=True):
        mean, rate = s.get("mean", 0.0), s.get("rate", RATE)
        if mean * slope > 0:
            rate += 0.05 * RATE
        elif mean * slope < 0:
            rate -= 0.05 * rate
        s["rate"] = min(max(rate, 0.1 * RATE), 10.0 * RATE)
        s["mean"] = (1 - theta) * slope + theta * mean
        new.append(place - s["rate"] * slope)
    return new


def vsgd(
    states: list[dict[str, float]], w: list[float], slopes: Gradient, fd: bool = False
) -> list[float]:
    """Schaul, Zhang & LeCun 2013, "No more pesky learning rates", algorithm 1, element-wise; with
    `fd` Schaul & LeCun 2013, "Adaptive learning rates and parallelization", algorithm 1. Curvature
    is by finite differences along the mean slope in both (their BackProp of second derivatives is
    not there). Ours: three steps that only look, means times C = 2 after them, and that a
    mini-batch is one sample."""
    here = slopes(w)
    shift = [s.get("g", slope) for s, slope in zip(states, here, strict=True)]
    there = slopes([place + d for place, d in zip(w, shift, strict=True)])
    new = []
    for s, place, slope, other, d in zip(states, w, here, there, shift, strict=True):
        h = abs((other - slope) / d)
        seen = {"g": slope, "v": slope * slope, "h": h, "h2": h * h}
        s["t"] = s.get("t", 0) + 1
        if s["t"] <= 3:
            for name, value in seen.items():
                s[name] = s.get(name, 0.0) + (value - s.get(name, 0.0)) / s["t"]
            if s["t"] == 3:
                s["v"], s["h"], s["h2"], s["tau"] = 2 * s["v"], 2 * s["h"], 4 * s["h2"], 3.0
            new.append(place)
            continue
        if fd and (
            abs(slope - s["g"]) > 2 * math.sqrt(s["v"] - s["g"] ** 2)
            or abs(h - s["h"]) > 2 * math.sqrt(max(s["h2"] - s["h"] ** 2, 0.0))
        ):  # an outlier
            s["tau"] += 1
        for name, value in seen.items():
            s[name] += (value - s[name]) / s["tau"]
        share = s["g"] ** 2 / s["v"]
        rate = s["h"] / s["h2"] * share if fd else share / s["h"]
        s["tau"] = (1 - share) * s["tau"] + 1
        new.append(place - rate * slope)
    return new


def vsgd_fd(states: list[dict[str, float]], w: list[float], slopes: Gradient) -> list[float]:
    return vsgd(states, w, slopes, fd=True)


def adasecant(states: list[dict[str, float]], w: list[float], slopes: Gradient) -> list[float]:
    """Gulcehre & Bengio 2014, algorithm 1, with the starts and the outliers of the authors'
    program: a step is minus (rms of steps / rms of differences - cov(step, difference) / mean
    square of differences) times the corrected slope (g + gamma E[g]) / (1 + gamma). Ours: no step
    up the slope."""
    raw, new = slopes(w), []
    length = math.sqrt(sum(g * g for g in raw))
    for s, place, slope in zip(states, w, raw, strict=True):
        g, tau, first = slope / length, s.get("tau", 2.1), not s

        def mean(name: str, value: float, s: Any = s, tau: float = tau) -> float:
            s[name] = s.get(name, 0.0) * (1 - 1 / tau) + value / tau
            return float(s[name])

        s["m"] = 0.95 * s.get("m", 0.0) + 0.05 * g
        s["m2"] = 0.95 * s.get("m2", 0.0) + 0.05 * g * g
        m, old = s["m"], s.get("corrected", 0.0)
        above = mean("above", ((g - old) * (old - m)) ** 2)
        below = mean("below", ((g - m) * (old - m)) ** 2)
        gamma = min(math.sqrt(above / below), 1.8)
        s["corrected"] = (g + gamma * m) / (1 + gamma)
        difference = g - s.get("g", 0.0)
        s["g"] = g
        a, a2 = mean("a", difference), mean("a2", difference**2)
        if first:
            s["step"], s["step2"] = g, g * g
        rate = math.sqrt(s["step2"] / a2) - s.get("both", 0.0) / a2
        step = -max(rate, 0.0) * s["corrected"]
        share = s["step"] ** 2 / s["step2"]
        mean("step", step)
        mean("step2", step**2)
        mean("both", step * difference)
        outlier = (g - m) ** 2 > 4 * (s["m2"] - m * m) or (difference - a) ** 2 > 4 * (a2 - a * a)
        s["tau"] = min(max(2.2 if outlier else (1 - share) * tau + 1, 1.5), 1e8)
        new.append(place + step)
    return new


PAPERS: dict[str, tuple[Callable[..., list[float]], optim.Optimizer]] = {
    "quickprop": (quickprop, optim.Quickprop(lr=RATE)),
    "delta-bar-delta": (delta_bar_delta, optim.DeltaBarDelta(lr=RATE, theta=0.7)),
    "vsgd": (vsgd, optim.VSGD(initial=3, slow_start=2.0, eps=TINY)),
    "vsgd-fd": (vsgd_fd, optim.VSGDfd(initial=3, slow_start=2.0, eps=TINY)),
    "adasecant": (adasecant, optim.AdaSecant(eps=TINY)),
}


@pytest.mark.parametrize("name", PAPERS)
def test_steps_are_the_papers(name: str) -> None:
    """A linear model with squares, other samples at each step but for the rules that need all."""
    oracle, optimizer = PAPERS[name]
    rng = np.random.default_rng(5)
    same = name in ("quickprop", "delta-bar-delta")
    xs, ys = rng.normal(size=(2 * STEPS, 8, 3)), rng.normal(size=(2 * STEPS, 8, 2))
    model = nn.Linear(3, 2, bias=False)
    step = fnn.compile(model, "mse", optimizer, dtype="float64")
    w = [float(v) for v in np.array(model.weight).reshape(-1)]
    states: list[dict[str, float]] = [{} for _ in w]
    moved = 0.0
    for t in range(2 * STEPS):
        x, y = (xs[0], ys[0]) if same else (xs[t], ys[t])

        def slopes(at: list[float], x: Any = x, y: Any = y) -> list[float]:
            error = x @ np.reshape(at, (2, 3)).T - y
            return [float(v) for v in (2 * error.T @ x / error.size).reshape(-1)]

        before, w = w, oracle(states, w, slopes)
        step(x, y)
        np.testing.assert_allclose(
            np.array(model.weight).reshape(-1), w, rtol=1e-6, atol=1e-8, err_msg=f"step {t + 1}"
        )
        moved += float(np.abs(np.subtract(w, before)).sum())
    assert moved > 0.1
