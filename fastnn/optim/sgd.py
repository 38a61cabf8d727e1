"""Stochastic gradient descent, plain, with classical and with Nesterov momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.kernels.simd import fill_like, fma, where
from fastnn.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent.

    With momentum mu and dampening d::

        b = mu * b + (1 - d) * g        (b = g at the first step)
        p = p - lr * b                  (classical: Polyak 1964)
        p = p - lr * (g + mu * b)       (nesterov=True: Sutskever et al. 2013)

    as in PyTorch; Sutskever's paper puts the learning rate inside the velocity instead.

    Args:
        lr: learning rate.
        momentum: mu in [0, 1).
        dampening: d in [0, 1]; must be 0 with Nesterov momentum.
        nesterov: use Nesterov's form.
        common: see `Optimizer` (weight decay, clipping, groups, schedule).

    >>> SGD(lr=0.1, momentum=0.9, nesterov=True)
    SGD(lr=0.1, momentum=0.9, nesterov=True)
    """

    name: ClassVar[str] = "sgd"

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        **common: Any,
    ):
        super().__init__(lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov, **common)

    def check(self, options: Mapping[str, Any]) -> str | None:
        if not 0 <= options["momentum"] < 1:
            return f"momentum: expected a number in [0, 1), got {options['momentum']}"
        if not 0 <= options["dampening"] <= 1:
            return f"dampening: expected a number in [0, 1], got {options['dampening']}"
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            return "nesterov: expected momentum > 0 and dampening = 0"
        if options["momentum"] > 0 and self.options["momentum"] == 0:
            return "momentum: set it for all parameters (0 in the groups that want none)"
        return None

    @property
    def slots(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.options["momentum"] else ()

    @property
    def kernel_name(self) -> str:
        return "sgd_momentum" if self.options["momentum"] else "sgd"

    def _rule(self) -> Any:
        return sgd_momentum if self.options["momentum"] else sgd

    @staticmethod
    def scalars(
        t: int, lr: float, momentum: float, dampening: float, nesterov: float
    ) -> tuple[float, ...]:
        fresh = 1.0 if t == 1 else 1.0 - dampening
        # p -= lr * (g + use_b * b) where use_g is 1, lr * b where it is 0
        use_g = 1.0 if nesterov else 0.0
        use_b = momentum if nesterov else 1.0
        return -lr, momentum, fresh, use_g, use_b


def sgd(p: Any, g: Any, lr: Any, momentum: Any, fresh: Any, use_g: Any, use_b: Any) -> Any:
    """p - lr * g (`lr` comes negated)."""
    return (fma(g, lr, p),)


def sgd_momentum(
    p: Any, g: Any, b: Any, lr: Any, momentum: Any, fresh: Any, use_g: Any, use_b: Any
) -> Any:
    """Classical (use_g 0, use_b 1) or Nesterov momentum (use_g 1, use_b mu)."""
    b = fma(b, momentum, g * fresh)
    ahead = fma(b, use_b, g)
    return fma(where(fill_like(g, use_g) > 0.0, ahead, b), lr, p), b  # 0 * g is no 0 for infinity
