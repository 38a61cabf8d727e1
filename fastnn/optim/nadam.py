"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from math import exp, sqrt
from typing import Any, ClassVar

from fastnn.kernels.declare import helper
from fastnn.kernels.simd import fma
from fastnn.optim.moments import Moments
from fastnn.optim.root import over_root


class NAdam(Moments):
    """NAdam (Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2), with the
    schedule of its momentum (eq. 9 and below), as in PyTorch::

        mu(t) = beta1 * (1 - 0.96**(t * momentum_decay) / 2)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        n = mu(t+1) * m / (1 - mu(1) * ... * mu(t+1)) + (1 - mu(t)) * g / (1 - mu(1) * ... * mu(t))
        p = p - lr * n / (sqrt(v / (1 - beta2**t)) + eps)

    Args:
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the denominator.
        momentum_decay: how fast mu rises to beta1; with 0 it stays at half of it.
        common: see `Optimizer`.

    >>> NAdam()
    NAdam(lr=0.002, betas=(0.9, 0.999), eps=1e-08, momentum_decay=0.004)
    """

    name: ClassVar[str] = "nadam"
    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum_decay: float = 4e-3,
        **common: Any,
    ):
        super().__init__(lr, betas, eps, momentum_decay=momentum_decay, **common)

    @staticmethod
    def scalars(
        t: int, lr: float, beta1: float, beta2: float, eps: float, momentum_decay: float
    ) -> tuple[float, ...]:
        base = 0.96**momentum_decay
        mu, following = beta1 * (1.0 - 0.5 * base**t), beta1 * (1.0 - 0.5 * base ** (t + 1))
        product = beta1**t * momenta(t, base)
        of_g = -lr * (1.0 - mu) / (1.0 - product)
        of_m = -lr * following / (1.0 - product * following)
        correction = 1.0 / sqrt(1.0 - beta2**t)
        return of_g, of_m, correction, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps

    @staticmethod
    def rule(
        p: Any, g: Any, m: Any, v: Any, of_g: Any, of_m: Any, correction: Any, beta1: Any,
        rest1: Any, beta2: Any, rest2: Any, eps: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        m = fma(m, beta1, g * rest1)
        v = fma(g * rest2, g, v * beta2)
        return p + over_root(fma(m, of_m, g * of_g), v, correction, eps), m, v


@helper
def momenta(t: int, base: float) -> float:
    """The product of 1 - base**k / 2 for k = 1 ... t, so that nothing is remembered from step to
    step.

    Its logarithm, by the series of each factor's, is a sum over j of geometric series of base**j,
    divided by -j 2**j.
    """
    logarithm, power, half = 0.0, base, 0.5
    for j in range(1, 54):
        terms = float(t) if power == 1.0 else power * (1.0 - power**t) / (1.0 - power)
        logarithm -= half / j * terms
        power *= base
        half *= 0.5
    return exp(logarithm)
