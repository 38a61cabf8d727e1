"""What Adam's relatives share: the options of two moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastnn.optim.common import below_one, betas_of
from fastnn.optim.optimizer import Optimizer


class Moments(Optimizer):
    """Base of optimisers with two moments.

    Args:
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added where the rule divides.
        more: options of its own, and those of `Optimizer`.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **more: Any,
    ):
        beta1, beta2 = betas_of(betas)
        super().__init__(lr=lr, beta1=beta1, beta2=beta2, eps=eps, **more)

    def check(self, options: Mapping[str, Any]) -> str | None:
        return below_one(options, "beta1", "beta2")
