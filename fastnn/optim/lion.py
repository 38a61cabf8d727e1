"""Lion: steps of one size, by the sign of a momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.kernels.simd import fma
from fastnn.optim.common import below_one, betas_of, decoupled
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.sign import sign


class Lion(Optimizer):
    """Lion, "evolved sign momentum" (Chen et al. 2023, "Symbolic discovery of optimization
    algorithms", algorithm 2)::

        c = beta1 * m + (1 - beta1) * g
        p = p - lr * (sign(c) + weight_decay * p)
        m = beta2 * m + (1 - beta2) * g

    Its rate should be 3 to 10 times smaller than Adam's, and the weight decay as many times larger
    (section 5 of the paper).

    Args:
        lr: learning rate.
        betas: decay rates of the average whose sign is taken and of the momentum, each in [0, 1).
        weight_decay: decoupled, as in `AdamW`.
        groups, common: see `Optimizer`.

    >>> Lion()
    Lion(lr=0.0001, betas=(0.9, 0.99))
    """

    name: ClassVar[str] = "lion"
    slots = ("exp_avg",)

    decay_option = "decoupled_weight_decay"

    def __init__(
        self,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ):
        beta1, beta2 = betas_of(betas)
        super().__init__(
            lr=lr, beta1=beta1, beta2=beta2, decoupled_weight_decay=weight_decay,
            groups=decoupled(groups), **common,
        )  # fmt: skip

    def check(self, options: Mapping[str, Any]) -> str | None:
        return below_one(options, "beta1", "beta2")

    @staticmethod
    def scalars(t: int, lr: float, beta1: float, beta2: float) -> tuple[float, ...]:
        return -lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2

    @staticmethod
    def rule(
        p: Any, g: Any, m: Any, rate: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any
    ) -> tuple[Any, ...]:
        step = sign(fma(m, beta1, g * rest1))
        return fma(step, rate, p), fma(m, beta2, g * rest2)
