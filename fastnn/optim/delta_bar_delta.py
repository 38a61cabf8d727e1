"""Delta-bar-delta: a gain for every weight, which grows while its gradients keep their sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.errors import OptionError
from fastnn.kernels.simd import fma, maximum, minimum, where
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.sign import sign


class DeltaBarDelta(Optimizer):
    """Delta-bar-delta (Jacobs 1988, "Increased rates of convergence through learning rate
    adaptation", eqs. 7 and 8)::

        gain = gain + up    where g and d have the same sign
        gain = gain * down  where their signs differ
        gain = min(max(gain, smallest), largest)
        p = p - lr * gain * g
        d = theta * d + (1 - theta) * g

    Gains begin with 1. The defaults are those of Hinton's course ("Neural networks for machine
    learning", lecture 6d): signs of successive gradients (theta = 0), gains within [0.1, 10].

    Args:
        lr: learning rate.
        up: added to a gain.
        down: factor of a gain, in (0, 1].
        gains: smallest and largest gain.
        theta: decay rate of the average of earlier gradients, in [0, 1).
        common: see `Optimizer`.

    It is meant for full batches, or for mini-batches large enough that the signs are not just
    noise.

    Raises OptionError unless `gains` is a pair of numbers, and as `Optimizer`.

    >>> DeltaBarDelta(lr=0.1)
    DeltaBarDelta(lr=0.1, up=0.05, down=0.95, gains=(0.1, 10.0))
    """

    name: ClassVar[str] = "delta_bar_delta"
    slots = ("gain", "gradient_average")  # "average" is that of parameters

    def __init__(
        self,
        lr: float = 1e-2,
        up: float = 0.05,
        down: float = 0.95,
        gains: tuple[float, float] = (0.1, 10.0),
        theta: float = 0.0,
        **common: Any,
    ):
        if not isinstance(gains, (tuple, list)) or len(gains) != 2:
            raise OptionError(f"optimizer gains: expected two numbers, got {gains!r}")
        super().__init__(
            lr=lr, up=up, down=down, smallest=gains[0], largest=gains[1], theta=theta, **common
        )

    def check(self, options: Mapping[str, Any]) -> str | None:
        if not 0 < options["down"] <= 1:
            return f"down: expected a number in (0, 1], got {options['down']}"
        if not 0 <= options["theta"] < 1:
            return f"theta: expected a number in [0, 1), got {options['theta']}"
        if not 0 < options["smallest"] <= 1 <= options["largest"]:
            return (
                "gains: expected 0 < smallest <= 1 <= largest, got "
                f"({options['smallest']}, {options['largest']})"
            )
        return None

    def initial(self, slot: str) -> float:
        return 1.0 if slot == "gain" else 0.0

    @staticmethod
    def scalars(
        t: int, lr: float, up: float, down: float, smallest: float, largest: float, theta: float
    ) -> tuple[float, ...]:
        return -lr, up, down, smallest, largest, theta, 1.0 - theta

    @staticmethod
    def rule(
        p: Any, g: Any, gain: Any, d: Any, rate: Any, up: Any, down: Any, smallest: Any,
        largest: Any, theta: Any, rest: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        agree = sign(g) * sign(d)
        larger = where(agree > 0.0, gain + up, gain)
        gain = maximum(minimum(where(agree < 0.0, gain * down, larger), largest), smallest)
        return fma(gain * g, rate, p), gain, fma(d, theta, g * rest)
