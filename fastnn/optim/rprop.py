"""Resilient backpropagation: a step size for every weight, which only signs of gradients change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.errors import OptionError
from fastnn.kernels.declare import helper
from fastnn.kernels.simd import fill_like, fma, maximum, minimum, where
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.sign import sign


@helper
def resized(agree: Any, size: Any, down: Any, up: Any, smallest: Any, largest: Any) -> Any:
    """Sizes after a look at the signs' product: larger where it is 1, smaller where it is -1."""
    larger = where(agree > 0.0, size * up, size)
    return maximum(minimum(where(agree < 0.0, size * down, larger), largest), smallest)


class Resilient(Optimizer):
    """Options that the two rules share."""

    def __init__(
        self,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        **common: Any,
    ):
        for option, given in (("etas", etas), ("step_sizes", step_sizes)):
            if not isinstance(given, (tuple, list)) or len(given) != 2:
                raise OptionError(f"optimizer {option}: expected two numbers, got {given!r}")
        super().__init__(
            lr=lr, down=etas[0], up=etas[1], smallest=step_sizes[0], largest=step_sizes[1],
            **common,
        )  # fmt: skip

    def check(self, options: Mapping[str, Any]) -> str | None:
        if not 0 < options["down"] < 1 < options["up"]:
            return f"etas: expected 0 < down < 1 < up, got ({options['down']}, {options['up']})"
        if not 0 < options["smallest"] <= options["largest"]:
            return (
                "step_sizes: expected 0 < smallest <= largest, got "
                f"({options['smallest']}, {options['largest']})"
            )
        return None

    def initial(self, slot: str) -> float:
        return 1.0 if slot == "step_size" else 0.0  # in units of the learning rate

    @staticmethod
    def scalars(
        t: int, lr: float, down: float, up: float, smallest: float, largest: float
    ) -> tuple[float, ...]:
        if lr == 0.0:  # no step, and sizes stay as they are
            return 0.0, 1.0, 1.0, 0.0, 1e30
        return lr, down, up, min(smallest / lr, 1e30), min(largest / lr, 1e30)


class Rprop(Resilient):
    """Rprop (Riedmiller & Braun 1993, "A direct adaptive method for faster backpropagation
    learning: the RPROP algorithm"), with its weight-backtracking, for full batches::

        where g * g_before > 0:  size = min(size * up, largest),   d = -sign(g) * size
        where g * g_before < 0:  size = max(size * down, smallest), d = -d,  g = 0
        where g * g_before = 0:                                     d = -sign(g) * size
        p = p + d

    (eqs. 4 to 6; `g = 0` makes the next step one of the third kind). PyTorch's Rprop is `IRprop`.

    Args:
        lr: size of the first step. A schedule, or a group's rate, scales sizes (except their
            limits).
        etas: `down` and `up`, factors of a size: 0 < down < 1 < up.
        step_sizes: smallest and largest size.
        common: see `Optimizer`.

    The signs of small batches' gradients are noise: give it the whole data set as one batch.

    >>> Rprop()
    Rprop(lr=0.01, etas=(0.5, 1.2), step_sizes=(1e-06, 50.0))
    """

    name: ClassVar[str] = "rprop"
    slots = ("prev", "step_size", "delta")

    @staticmethod
    def rule(
        p: Any, g: Any, before: Any, size: Any, d: Any, rate: Any, down: Any, up: Any,
        smallest: Any, largest: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        nothing = fill_like(g, 0.0)
        agree = sign(g) * sign(before)
        size = resized(agree, size, down, up, smallest, largest)
        d = where(agree < 0.0, -d, sign(g) * size * -rate)
        return p + d, where(agree < 0.0, nothing, g), size, d


class IRprop(Resilient):
    """iRprop- (Igel & Hüsken 2000, "Improving the Rprop learning algorithm", algorithm 4), which is
    PyTorch's Rprop, for full batches::

        where g * g_before > 0:  size = min(size * up, largest)
        where g * g_before < 0:  size = max(size * down, smallest),  g = 0
        p = p - sign(g) * size

    Args:
        lr, etas, step_sizes, common: as `Rprop`.

    >>> IRprop(lr=0.1)
    IRprop(lr=0.1, etas=(0.5, 1.2), step_sizes=(1e-06, 50.0))
    """

    name: ClassVar[str] = "irprop"
    slots = ("prev", "step_size")

    @staticmethod
    def rule(
        p: Any, g: Any, before: Any, size: Any, rate: Any, down: Any, up: Any, smallest: Any,
        largest: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        agree = sign(g) * sign(before)
        size = resized(agree, size, down, up, smallest, largest)
        g = where(agree < 0.0, fill_like(g, 0.0), g)
        return fma(sign(g) * size, -rate, p), g, size
