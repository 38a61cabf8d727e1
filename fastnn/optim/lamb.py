"""LAMB: Adam's steps, scaled layer by layer to the size of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar

from fastnn.kernels.declare import helper
from fastnn.kernels.simd import fma
from fastnn.kernels.update.shared import Pass
from fastnn.optim.common import below_one, betas_of, decoupled
from fastnn.optim.optimizer import Apply
from fastnn.optim.passes import Passes
from fastnn.optim.root import over_root

SLOTS = ("exp_avg", "exp_avg_sq")


class LAMB(Passes):
    """LAMB (You et al. 2020, "Large batch optimization for deep learning: training BERT in 76
    minutes", algorithm 2), for very large batches; for each parameter::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        r = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps) + weight_decay * p
        p = p - lr * |p| / |r| * r

    with Euclidean norms; where one of them is 0 their ratio counts as 1.

    Args:
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the denominator.
        weight_decay: added to r, so it is part of the norm.
        groups, common: see `Optimizer`.

    >>> LAMB(groups={"*.bias": {"lr": 0.1}})
    LAMB(lr=0.001, betas=(0.9, 0.999), eps=1e-06, groups={'*.bias': {'lr': 0.1}})
    """

    name: ClassVar[str] = "lamb"
    slots = SLOTS

    decay_option = "ratio_decay"

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ):
        beta1, beta2 = betas_of(betas)
        super().__init__(
            lr=lr, beta1=beta1, beta2=beta2, eps=eps, ratio_decay=weight_decay,
            groups=decoupled(groups, "ratio_decay"), **common,
        )  # fmt: skip

    def check(self, options: Mapping[str, Any]) -> str | None:
        return below_one(options, "beta1", "beta2")

    @staticmethod
    def scalars(
        t: int, lr: float, beta1: float, beta2: float, eps: float, ratio_decay: float
    ) -> tuple[float, ...]:
        mean, square = 1.0 / (1.0 - beta1**t), 1.0 / sqrt(1.0 - beta2**t)
        return -lr, mean, square, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, ratio_decay

    @property
    def passes(self) -> Mapping[str, Pass]:
        return {
            "moments": Pass(moments, SLOTS, ("p", "g"), ("u",), scalars=9, sums=2),
            "update": Pass(update, ("p",), ("u",), scalars=9, own=1),
        }

    @property
    def combines(self) -> Mapping[str, Any]:
        return {"ratio": (ratio, 2)}

    def place(
        self, apply: Apply, given: Mapping[str, Any], options: Mapping[str, Any], transposed: bool
    ) -> None:
        p = given["p"]
        # r is kept, because the division and the root take longer than to write and read it
        u = p.graph.value(p.shape, name="u")
        norms = self.run("moments", apply, given, u=u)
        own = self.combine("ratio", apply, given, norms, p.size)
        self.run("update", apply, given, u=u, own=own)


@helper
def direction(p: Any, m: Any, v: Any, mean: Any, square: Any, eps: Any, decay: Any) -> Any:
    """r."""
    return fma(p, decay, over_root(m * mean, v, square, eps))


def moments(
    m: Any, v: Any, p: Any, g: Any, rate: Any, mean: Any, square: Any, beta1: Any, rest1: Any,
    beta2: Any, rest2: Any, eps: Any, decay: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The moments, r, and squares of p and r."""
    m = fma(m, beta1, g * rest1)
    v = fma(g * rest2, g, v * beta2)
    r = direction(p, m, v, mean, square, eps, decay)
    return m, v, r, p * p, r * r


def ratio(
    weights: Any, steps: Any, count: Any, rate: Any, mean: Any, square: Any, beta1: Any,
    rest1: Any, beta2: Any, rest2: Any, eps: Any, decay: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The rate times |p| / |r|."""
    if weights > 0.0 and steps > 0.0:
        return (rate * min(sqrt(weights) / sqrt(steps), 1e30),)
    return (rate * 1.0,)


def update(
    p: Any, u: Any, rate: Any, mean: Any, square: Any, beta1: Any, rest1: Any, beta2: Any,
    rest2: Any, eps: Any, decay: Any, scaled: Any,
) -> tuple[Any, ...]:  # fmt: skip
    return (fma(u, scaled, p),)
