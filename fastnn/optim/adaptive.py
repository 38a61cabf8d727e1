"""Optimisers that scale each element by its gradient's history: AdaGrad, RMSprop, AdaDelta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.kernels.simd import absolute, fma
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.root import over_root, twice_root


class Adagrad(Optimizer):
    """AdaGrad (Duchi, Hazan & Singer 2011)::

        s = s + g**2
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Args:
        lr: learning rate.
        lr_decay: decay of the learning rate over steps.
        initial_accumulator_value: what s begins with.
        eps: added outside the square root, as in PyTorch.
        common: see `Optimizer`.

    >>> Adagrad(lr=0.01)
    Adagrad(lr=0.01, eps=1e-10)
    """

    name: ClassVar[str] = "adagrad"

    def __init__(
        self,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        **common: Any,
    ):
        super().__init__(
            lr=lr, lr_decay=lr_decay, initial_accumulator_value=initial_accumulator_value,
            eps=eps, **common,
        )  # fmt: skip

    @property
    def slots(self) -> tuple[str, ...]:
        return ("sum",)

    def initial(self, slot: str) -> float:
        return float(self.options["initial_accumulator_value"])

    @staticmethod
    def scalars(
        t: int, lr: float, lr_decay: float, initial: float, eps: float
    ) -> tuple[float, ...]:
        return -lr / (1.0 + (t - 1) * lr_decay), eps

    @staticmethod
    def rule(p: Any, g: Any, s: Any, rate: Any, eps: Any) -> tuple[Any, ...]:
        s = fma(g, g, s)
        return fma(over_root(g, s, 1.0, eps), rate, p), s


class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton 2012), centered form after Graves 2013, as in PyTorch::

        s = alpha * s + (1 - alpha) * g**2
        a = alpha * a + (1 - alpha) * g                       (centered)
        d = sqrt(s) + eps         or  sqrt(s - a**2) + eps    (centered)
        b = momentum * b + g / d
        p = p - lr * b

    Args:
        lr: learning rate.
        alpha: decay rate of the averages, in [0, 1).
        eps: added outside the square root, as in PyTorch (TensorFlow adds it inside).
        momentum: of the scaled gradient.
        centered: normalise by the estimated variance.
        common: see `Optimizer`.

    >>> RMSprop(lr=1e-3)
    RMSprop(lr=0.001, alpha=0.99, eps=1e-08)
    """

    name: ClassVar[str] = "rmsprop"

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        **common: Any,
    ):
        super().__init__(
            lr=lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered, **common
        )

    def check(self, options: Mapping[str, Any]) -> str | None:
        if not 0 <= options["alpha"] < 1:
            return f"alpha: expected a number in [0, 1), got {options['alpha']}"
        if not 0 <= options["momentum"] < 1:
            return f"momentum: expected a number in [0, 1), got {options['momentum']}"
        if options["momentum"] > 0 and self.options["momentum"] == 0:
            return "momentum: set it for all parameters (0 in the groups that want none)"
        if bool(options["centered"]) != bool(self.options["centered"]):
            return "centered: expected the same for all parameters"
        return None

    @property
    def slots(self) -> tuple[str, ...]:
        average = ("grad_avg",) if self.options["centered"] else ()
        buffer = ("momentum_buffer",) if self.options["momentum"] else ()
        return ("square_avg", *average, *buffer)

    @property
    def kernel_name(self) -> str:
        return "_".join(("rmsprop", *self.slots[1:]))

    def _rule(self) -> Any:
        if self.options["centered"]:
            return rmsprop_centered_momentum if self.options["momentum"] else rmsprop_centered
        return rmsprop_momentum if self.options["momentum"] else rmsprop

    @staticmethod
    def scalars(
        t: int, lr: float, alpha: float, eps: float, momentum: float, centered: float
    ) -> tuple[float, ...]:
        return -lr, alpha, 1.0 - alpha, eps, momentum


def rmsprop(p: Any, g: Any, s: Any, rate: Any, alpha: Any, rest: Any, eps: Any, mu: Any) -> Any:
    s = fma(g * rest, g, s * alpha)
    return fma(over_root(g, s, 1.0, eps), rate, p), s


def rmsprop_momentum(
    p: Any, g: Any, s: Any, b: Any, rate: Any, alpha: Any, rest: Any, eps: Any, mu: Any
) -> Any:
    s = fma(g * rest, g, s * alpha)
    b = fma(b, mu, over_root(g, s, 1.0, eps))
    return fma(b, rate, p), s, b


def rmsprop_centered(
    p: Any, g: Any, s: Any, a: Any, rate: Any, alpha: Any, rest: Any, eps: Any, mu: Any
) -> Any:
    s = fma(g * rest, g, s * alpha)
    a = fma(a, alpha, g * rest)
    variance = fma(-a, a, s)  # as an estimate it may be below 0
    return fma(over_root(g, variance, 1.0, eps), rate, p), s, a


def rmsprop_centered_momentum(
    p: Any, g: Any, s: Any, a: Any, b: Any, rate: Any, alpha: Any, rest: Any, eps: Any, mu: Any
) -> Any:
    s = fma(g * rest, g, s * alpha)
    a = fma(a, alpha, g * rest)
    variance = fma(-a, a, s)  # as an estimate it may be below 0
    b = fma(b, mu, over_root(g, variance, 1.0, eps))
    return fma(b, rate, p), s, a, b


class Adadelta(Optimizer):
    """AdaDelta (Zeiler 2012)::

        s = rho * s + (1 - rho) * g**2
        d = sqrt(u + eps) / sqrt(s + eps) * g
        u = rho * u + (1 - rho) * d**2
        p = p - lr * d

    Args:
        lr: factor of the update (1.0 is the paper's rule).
        rho: decay rate of the averages, in [0, 1).
        eps: inside both square roots, as in the paper and PyTorch.
        common: see `Optimizer`.

    >>> Adadelta()
    Adadelta(lr=1.0, rho=0.9, eps=1e-06)
    """

    name: ClassVar[str] = "adadelta"

    def __init__(self, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, **common: Any):
        super().__init__(lr=lr, rho=rho, eps=eps, **common)

    def check(self, options: Mapping[str, Any]) -> str | None:
        if not 0 <= options["rho"] < 1:
            return f"rho: expected a number in [0, 1), got {options['rho']}"
        return None

    @property
    def slots(self) -> tuple[str, ...]:
        return ("square_avg", "acc_delta")

    @staticmethod
    def scalars(t: int, lr: float, rho: float, eps: float) -> tuple[float, ...]:
        return -lr, rho, 1.0 - rho, eps

    @staticmethod
    def rule(
        p: Any, g: Any, s: Any, u: Any, rate: Any, rho: Any, rest: Any, eps: Any
    ) -> tuple[Any, ...]:
        s = fma(g * rest, g, s * rho)
        d = absolute(twice_root(u + eps)) / twice_root(s + eps) * g
        u = fma(d * rest, d, u * rho)
        return fma(d, rate, p), s, u
