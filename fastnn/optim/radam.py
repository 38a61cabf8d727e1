"""RAdam: Adam whose adaptive rate is left out or held back while its variance is large."""

from __future__ import annotations

from math import sqrt
from typing import Any, ClassVar

from fastnn.kernels.simd import fma
from fastnn.optim.moments import Moments
from fastnn.optim.root import over_root


class RAdam(Moments):
    """Rectified Adam (Liu et al. 2020, "On the variance of the adaptive learning rate and beyond",
    algorithm 2)::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        rho(inf) = 2 / (1 - beta2) - 1
        rho(t) = rho(inf) - 2 * t * beta2**t / (1 - beta2**t)
        r = sqrt((rho(t) - 4) (rho(t) - 2) rho(inf) / ((rho(inf) - 4) (rho(inf) - 2) rho(t)))
        p = p - lr * m / (1 - beta1**t) * r * sqrt(1 - beta2**t) / (sqrt(v) + eps)   (rho(t) > 5)
        p = p - lr * m / (1 - beta1**t)                                              (otherwise)

    as in PyTorch; the paper's border is 4, its published code's is 5.

    Args:
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the root.
        more: see `Optimizer`.

    >>> RAdam()
    RAdam(lr=0.001, betas=(0.9, 0.999), eps=1e-08)
    """

    name: ClassVar[str] = "radam"
    slots = ("exp_avg", "exp_avg_sq")

    @staticmethod
    def scalars(t: int, lr: float, beta1: float, beta2: float, eps: float) -> tuple[float, ...]:
        rate, left = -lr / (1.0 - beta1**t), 1.0 - beta2**t
        last = 2.0 / (1.0 - beta2) - 1.0
        rho = last - 2.0 * t * beta2**t / left
        adaptive, plain = 0.0, rate
        if rho > 5.0:
            known = (rho - 4.0) * (rho - 2.0) * last / ((last - 4.0) * (last - 2.0) * rho)
            adaptive, plain = rate * sqrt(known) * sqrt(left), 0.0
        return adaptive, plain, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps

    @staticmethod
    def rule(
        p: Any, g: Any, m: Any, v: Any, adaptive: Any, plain: Any, beta1: Any, rest1: Any,
        beta2: Any, rest2: Any, eps: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        m = fma(m, beta1, g * rest1)
        v = fma(g * rest2, g, v * beta2)
        return fma(over_root(m, v, 1.0, eps), adaptive, fma(m, plain, p)), m, v
