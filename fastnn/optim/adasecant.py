"""AdaSecant: rates from the secants of successive gradients, and gradients of less variance."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt as root
from typing import Any, ClassVar

from fastnn.kernels.simd import fill_like, fma, maximum, minimum, sqrt, where
from fastnn.kernels.update.shared import Pass
from fastnn.optim.common import above_zero, below_one
from fastnn.optim.optimizer import Apply
from fastnn.optim.passes import Passes

SLOTS = (
    "mean", "square", "before", "corrected", "numerator", "denominator", "secant", "secant_square",
    "delta", "delta_square", "cross", "memory",
)  # fmt: skip


class AdaSecant(Passes):
    """AdaSecant (Gulcehre & Bengio 2014, "ADASECANT: robust adaptive secant method for stochastic
    gradient", algorithm 1), for each parameter with a running mean E of weight 1/memory::

        g = gradient / |gradient|                                (block normalisation, section 2)
        m = beta * m + (1 - beta) * g
        gamma = min(rms of (g - c)(c - m) / rms of (g - m)(c - m), gamma_clip)
        c = (g + gamma * m) / (1 + gamma)                        (less variance, section 3)
        a = g - g_before
        rate = sqrt(E[d**2]) / sqrt(E[a**2]) - E[a d] / E[a**2]  (section 4), at least 0
        d = -lr * rate * c,  p = p + d
        memory = (1 - E[d]**2 / E[d**2]) * memory + 1            (section 5.1); 2.2 for outliers

    Sections are those of the paper's version of December 2014. In gamma, c is that of the previous
    step, as are E[d], E[d**2] and E[a d] in rate and memory; an outlier is a g or a that is more
    than two standard deviations from its mean. That order, the root mean squares of gamma, and
    memory's limits of 1.5 and 1e8 are those of the authors' code, which takes gamma from means that
    are one step older. In the first step d**2 counts as g**2, and c as 0. The paper's optional
    Adagrad, thresholded, is left out. Twelve numbers are kept for each parameter.

    Args:
        lr: factor of the rates, above 0: they come from the steps taken so far. `freeze` what is to
            stay as it is.
        beta: decay rate of the mean gradient and its square, in [0, 1).
        gamma_clip: the largest gamma.
        eps: added to squares in denominators, and to the norm.
        common: see `Optimizer`.

    >>> AdaSecant()
    AdaSecant(lr=1.0, beta=0.95, gamma_clip=1.8, eps=1e-06)
    """

    name: ClassVar[str] = "adasecant"
    slots = SLOTS

    def __init__(
        self, lr: float = 1.0, beta: float = 0.95, gamma_clip: float = 1.8, eps: float = 1e-6,
        **common: Any,
    ):  # fmt: skip
        super().__init__(lr=lr, beta=beta, gamma_clip=gamma_clip, eps=eps, **common)

    def check(self, options: Mapping[str, Any]) -> str | None:
        return above_zero(options, "lr", "eps") or below_one(options, "beta")

    def initial(self, slot: str) -> float:
        return 2.1 if slot == "memory" else 0.0

    @staticmethod
    def scalars(t: int, lr: float, beta: float, gamma_clip: float, eps: float) -> tuple[float, ...]:
        return -lr, beta, 1.0 - beta, gamma_clip, eps, 1.0 if t == 1 else 0.0

    @property
    def passes(self) -> Mapping[str, Pass]:
        return {
            "norm": Pass(norm, (), ("p", "g"), scalars=6, sums=1),
            "update": Pass(update, ("p", *SLOTS), ("g",), scalars=6, own=1),
        }

    @property
    def combines(self) -> Mapping[str, Any]:
        return {"factor": (factor, 1)}

    def place(
        self, apply: Apply, given: Mapping[str, Any], options: Mapping[str, Any], transposed: bool
    ) -> None:
        own = self.combine("factor", apply, given, self.run("norm", apply, given), given["p"].size)
        self.run("update", apply, given, own=own)


def norm(
    p: Any, g: Any, rate: Any, beta: Any, rest: Any, most: Any, eps: Any, first: Any
) -> tuple[Any, ...]:
    return (g * g,)


def factor(
    squares: Any, count: Any, rate: Any, beta: Any, rest: Any, most: Any, eps: Any, first: Any
) -> tuple[Any, ...]:
    """What makes the gradient's length 1."""
    return (1.0 / (root(squares) + eps),)


def update(
    p: Any, mean: Any, square: Any, before: Any, corrected: Any, numerator: Any, denominator: Any,
    secant: Any, secant_square: Any, delta: Any, delta_square: Any, cross: Any, memory: Any, g: Any,
    rate: Any, beta: Any, rest: Any, most: Any, eps: Any, first: Any, size: Any,
) -> tuple[Any, ...]:  # fmt: skip
    g, w = g * size, 1.0 / memory
    mean, square = fma(mean, beta, g * rest), fma(square, beta, g * g * rest)
    off = corrected - mean
    above, below = (g - corrected) * off, (g - mean) * off
    numerator = fma(fma(above, above, -numerator), w, numerator)
    denominator = fma(fma(below, below, -denominator), w, denominator)
    gamma = minimum(fill_like(g, 1.0) * most, sqrt(numerator / (denominator + eps)))
    corrected = fma(gamma, mean, g) / (gamma + 1.0)
    a = g - before
    secant = fma(a - secant, w, secant)
    secant_square = fma(fma(a, a, -secant_square), w, secant_square)
    # in the first step the gradient stands for the steps before
    delta, delta_square = fma(g, first, delta), fma(g * g, first, delta_square)
    steep = secant_square + eps
    size_of_steps = sqrt((delta_square + eps) / steep) - cross / steep
    d = maximum(fill_like(g, 0.0), size_of_steps) * corrected * rate
    kept = fma(-(delta * delta) / (delta_square + eps), memory, memory) + 1.0
    far = (g - mean) * (g - mean) - (square - mean * mean) * 4.0
    bent = (a - secant) * (a - secant) - (secant_square - secant * secant) * 4.0
    reset = fill_like(g, 2.2)
    kept = where(far > 0.0, reset, where(bent > 0.0, reset, kept))
    kept = minimum(fill_like(g, 1e8), maximum(fill_like(g, 1.5), kept))
    delta = fma(d - delta, w, delta)
    delta_square = fma(fma(d, d, -delta_square), w, delta_square)
    cross = fma(fma(a, d, -cross), w, cross)
    return (
        p + d, mean, square, g, corrected, numerator, denominator, secant, secant_square, delta,
        delta_square, cross, kept,
    )  # fmt: skip
