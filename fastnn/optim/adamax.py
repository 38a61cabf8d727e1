"""AdaMax: Adam with the largest gradient in place of the root of a mean of squares."""

from __future__ import annotations

from typing import Any, ClassVar

from fastnn.kernels.simd import absolute, fma, maximum
from fastnn.optim.moments import Moments


class Adamax(Moments):
    """AdaMax (Kingma & Ba 2015, algorithm 2)::

        m = beta1 * m + (1 - beta1) * g
        u = max(beta2 * u, |g| + eps)
        p = p - lr / (1 - beta1**t) * m / u

    The paper has no epsilon and divides 0 by 0 where gradients were always 0; this is PyTorch's
    form. (Keras adds epsilon to u in the division.)

    Args:
        lr: learning rate.
        betas: decay rates of m and of u, each in [0, 1).
        eps: added to the gradient's size.
        common: see `Optimizer`.

    >>> Adamax()
    Adamax(lr=0.002, betas=(0.9, 0.999), eps=1e-08)
    """

    name: ClassVar[str] = "adamax"
    slots = ("exp_avg", "exp_inf")

    def __init__(
        self,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **common: Any,
    ):
        super().__init__(lr, betas, eps, **common)

    @staticmethod
    def scalars(t: int, lr: float, beta1: float, beta2: float, eps: float) -> tuple[float, ...]:
        return -lr / (1.0 - beta1**t), beta1, 1.0 - beta1, beta2, eps

    @staticmethod
    def rule(
        p: Any, g: Any, m: Any, u: Any, rate: Any, beta1: Any, rest1: Any, beta2: Any, eps: Any
    ) -> tuple[Any, ...]:
        m = fma(m, beta1, g * rest1)
        u = maximum(u * beta2, absolute(g) + eps)
        return fma(m / u, rate, p), m, u
