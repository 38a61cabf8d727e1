"""Schedule-free AdamW: averaging in place of a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar

from fastnn.errors import OptionError, check_whole
from fastnn.kernels.simd import fma
from fastnn.optim.common import below_one, betas_of, decoupled
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.root import over_root


class ScheduleFreeAdamW(Optimizer):
    """Schedule-free AdamW (Defazio et al. 2024, "The road less scheduled", algorithm 1)::

        y = (1 - beta1) * z + beta1 * x                the parameters while training
        v = beta2 * v + (1 - beta2) * g**2             g is the gradient at y
        rate = lr * min(1, t / warmup)
        d = g / (sqrt(v / (1 - beta2**t)) + eps) + weight_decay * y
        z = z - rate * d
        x = (1 - c) * x + c * z,  c = rate**2 / (sum of rate**2 so far)

    (Algorithm 1 puts the bias correction into the rate; this is the published code's form.) x, the
    average, is what a net trained with a schedule would be: validation during `Trainer.fit` is that
    of x, and ``with trainer.averaged():`` puts it in the parameters' place to evaluate, predict and
    save.

    Args:
        lr: learning rate; larger ones than Adam's may be right (1 to 10 times). A schedule is
            refused.
        betas: beta1 in (0, 1) interpolates, beta2 in [0, 1) is Adam's.
        eps: added to the denominator.
        weight_decay: of y, beside the gradient.
        warmup: steps in which the rate rises.
        groups, common: see `Optimizer`.

    Raises OptionError for a schedule and for a `warmup` below 0, and as `Optimizer`.

    >>> ScheduleFreeAdamW()
    ScheduleFreeAdamW(lr=0.0025, betas=(0.9, 0.999), eps=1e-08)
    """

    name: ClassVar[str] = "schedule_free_adamw"
    slots = ("z", "exp_avg_sq")
    copied = ("z",)
    decay_option = "y_decay"

    def __init__(
        self,
        lr: float = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup: int = 0,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ):
        beta1, beta2 = betas_of(betas)
        check_whole("ScheduleFreeAdamW", 0, warmup=warmup)
        super().__init__(
            lr=lr, beta1=beta1, beta2=beta2, eps=eps, y_decay=weight_decay, warmup=warmup,
            groups=decoupled(groups, "y_decay"), **common,
        )  # fmt: skip
        if self.schedule is not None:
            raise OptionError(
                "ScheduleFreeAdamW schedule: expected none, as its average takes a schedule's "
                "place; give lr as a number, and warmup"
            )

    def check(self, options: Mapping[str, Any]) -> str | None:
        if options["max_norm"] is not None or options["proximal_l1"]:
            return (
                "max_norm and proximal_l1: expected None and 0 with ScheduleFreeAdamW, whose "
                "parameters are made of two sequences; take optim.AdamW"
            )
        if not 0 < options["beta1"] < 1:
            return f"betas: expected the first in (0, 1), got {options['beta1']}"
        return below_one(options, "beta2")

    def averages(self, p: Any, slots: Mapping[str, Any]) -> Any:
        beta1 = self.options["beta1"]
        return p + (1 - 1 / beta1) * (slots["z"] - p)

    @property
    def unlimited(self) -> tuple[str, ...]:
        return ("warmup",)

    @staticmethod
    def scalars(
        t: int, lr: float, beta1: float, beta2: float, eps: float, y_decay: float, warmup: float
    ) -> tuple[float, ...]:
        share, total = 1.0, t + 0.0
        if warmup > 0.0:
            share = min(1.0, t / warmup)
            rising = min(t + 0.0, warmup)
            total = rising * (rising + 1.0) * (2.0 * rising + 1.0) / (6.0 * warmup * warmup)
            total += max(0.0, t - warmup)
        rate, c = lr * share, share * share / total
        correction = 1.0 / sqrt(1.0 - beta2**t)
        return (
            -rate,
            rate * (beta1 * (1.0 - c) - 1.0),
            c,
            correction,
            beta2,
            1.0 - beta2,
            eps,
            y_decay,
        )

    @staticmethod
    def rule(
        p: Any, g: Any, z: Any, v: Any, of_z: Any, of_y: Any, c: Any, correction: Any, beta2: Any,
        rest2: Any, eps: Any, decay: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        v = fma(g * rest2, g, v * beta2)
        d = fma(p, decay, over_root(g, v, correction, eps))
        # y of the new x and z, without x: (1 - c) y + c z + rate (beta1 (1 - c) - 1) d
        y = fma(d, of_y, fma(z - p, c, p))
        return y, fma(d, of_z, z), v
