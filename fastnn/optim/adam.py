"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar

from fastnn.kernels import simd
from fastnn.kernels.simd import fma
from fastnn.optim.common import below_one, betas_of, decoupled
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.root import over_root


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), with PyTorch's meaning of epsilon::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p = p - lr / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + eps)

    (The paper's "epsilon hat" form adds epsilon before the bias correction; TensorFlow's did.)

    Args:
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the denominator.
        amsgrad: divide by the root of the largest v so far (Reddi, Kale & Kumar 2018), which is
            corrected for its bias with the present step's factor, as in PyTorch.
        common: see `Optimizer`; `weight_decay` is L2 (added to the gradient), for decoupled decay
            use `AdamW`.

    >>> Adam(lr=3e-4)
    Adam(lr=0.0003, betas=(0.9, 0.999), eps=1e-08)
    """

    name: ClassVar[str] = "adam"
    variants: ClassVar = {"amsgrad": {"amsgrad": True}}

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        amsgrad: bool = False,
        **common: Any,
    ):
        beta1, beta2 = betas_of(betas)
        super().__init__(lr=lr, beta1=beta1, beta2=beta2, eps=eps, amsgrad=amsgrad, **common)

    def check(self, options: Mapping[str, Any]) -> str | None:
        if bool(options["amsgrad"]) != bool(self.options["amsgrad"]):
            return "amsgrad: expected the same for all parameters"
        return below_one(options, "beta1", "beta2")

    @property
    def slots(self) -> tuple[str, ...]:
        largest = ("max_exp_avg_sq",) if self.options["amsgrad"] else ()
        return ("exp_avg", "exp_avg_sq", *largest)

    @property
    def kernel_name(self) -> str:
        return f"{self.name}_amsgrad" if self.options["amsgrad"] else self.name

    def _rule(self) -> Any:
        return amsgrad if self.options["amsgrad"] else super()._rule()

    @staticmethod
    def scalars(
        t: int, lr: float, beta1: float, beta2: float, eps: float, amsgrad: float
    ) -> tuple[float, ...]:
        rate = -lr / (1.0 - beta1**t)
        correction = 1.0 / sqrt(1.0 - beta2**t)
        return rate, correction, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps

    @staticmethod
    def rule(
        p: Any, g: Any, m: Any, v: Any, rate: Any, correction: Any, beta1: Any, rest1: Any,
        beta2: Any, rest2: Any, eps: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        m = fma(m, beta1, g * rest1)
        v = fma(g * rest2, g, v * beta2)  # g * g would overflow earlier
        return fma(over_root(m, v, correction, eps), rate, p), m, v


def amsgrad(
    p: Any, g: Any, m: Any, v: Any, largest: Any, rate: Any, correction: Any, beta1: Any,
    rest1: Any, beta2: Any, rest2: Any, eps: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Adam's rule, divided by the root of the largest v so far."""
    m = fma(m, beta1, g * rest1)
    v = fma(g * rest2, g, v * beta2)
    largest = simd.maximum(largest, v)
    return fma(over_root(m, largest, correction, eps), rate, p), m, v, largest


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): before Adam's update,
    ``p = p - lr * weight_decay * p``.

    Args:
        lr, betas, eps, amsgrad: as `Adam`.
        weight_decay: decoupled decay (the L2 term of `Adam` is not used).
        groups, common: see `Optimizer`; a group's `weight_decay` is decoupled, too.

    >>> AdamW(lr=3e-4, weight_decay=0.1).options["decoupled_weight_decay"]
    0.1
    """

    decay_option = "decoupled_weight_decay"

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ):
        super().__init__(
            lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, decoupled_weight_decay=weight_decay,
            groups=decoupled(groups), **common,
        )  # fmt: skip
