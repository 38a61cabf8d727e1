"""Averaged stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.errors import check_whole
from fastnn.kernels.simd import fma
from fastnn.optim.averages import NEVER
from fastnn.optim.optimizer import Optimizer


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (Polyak & Juditsky 1992; rates of Bottou's programs, as
    in PyTorch)::

        eta = lr / (1 + lambd * lr * (t - 1))**alpha
        p = (1 - lambd * eta) * p - eta * g
        average = average + (p - average) / max(1, t - 1 - t0)

    `Trainer.fit` validates the average; ``with trainer.averaged():`` puts it in place of the
    parameters to evaluate, predict and save.

    Args:
        lr: learning rate.
        lambd: decay of the parameters and of the rate.
        alpha: power of the rate's decay; 0 for a constant one (AWD-LSTM).
        t0: the step after which averaging begins. None means when a callback says so
            (`callbacks.AverageTrigger`, the non-monotonic trigger of Merity et al. 2018).
        common: see `Optimizer`.

    Raises OptionError for a `t0` that is neither None nor a whole number from 0 on, and as
    `Optimizer`.

    >>> ASGD(lr=0.1, t0=1000)
    ASGD(lr=0.1, lambd=0.0001, alpha=0.75, t0=1000)
    """

    name: ClassVar[str] = "asgd"
    slots = ("average",)
    copied = ("average",)
    trigger = "t0"

    def __init__(
        self,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: int | None = 1_000_000,
        **common: Any,
    ):
        if t0 is not None:
            check_whole("ASGD", 0, t0=t0)
        super().__init__(lr=lr, lambd=lambd, alpha=alpha, t0=NEVER if t0 is None else t0, **common)

    def averages(self, p: Any, slots: Mapping[str, Any]) -> Any:
        return slots["average"]

    def own_values(self, options: Mapping[str, Any]) -> tuple[float, ...]:
        lambd, alpha, t0 = super().own_values(options)
        return lambd, alpha, t0 if self.begun is None else float(self.begun - 1)

    @property
    def unlimited(self) -> tuple[str, ...]:
        return ("t0",)

    @staticmethod
    def scalars(t: int, lr: float, lambd: float, alpha: float, t0: float) -> tuple[float, ...]:
        eta = lr / (1.0 + lambd * lr * (t - 1)) ** alpha
        count = max(1.0, t - 1.0 - t0)
        return -eta, 1.0 - lambd * eta, 1.0 / count, (count - 1.0) / count

    @staticmethod
    def rule(
        p: Any, g: Any, average: Any, rate: Any, keep: Any, weight: Any, rest: Any
    ) -> tuple[Any, ...]:
        p = fma(g, rate, p * keep)
        return p, fma(p, weight, average * rest)
