"""vSGD: rates from the variance of gradients and the curvature, by differences of gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.errors import OptionError, check_whole
from fastnn.kernels.declare import helper
from fastnn.kernels.simd import absolute, fill_like, fma, where
from fastnn.kernels.update.shared import Pass
from fastnn.optim.optimizer import Apply
from fastnn.optim.passes import Passes

SLOTS = ("mean", "square", "curvature", "curvature_square", "memory")


class Shifted(Passes):
    """Base of optimisers that look at the gradient of the same batch at a second point, p + shift.

    A subclass has `shift`, the name of the slot that the point is away by (in the first step it is
    the gradient); the second gradient is "second" among what `place` is given.
    """

    shift: ClassVar[str]

    def _refuse(self, options: Mapping[str, Any]) -> str | None:
        """Options that would change one of the two gradients alone."""
        for name, plain in (("clip_value", None), ("clip_norm", None), ("gradient_noise", 0.0)):
            if options[name] != plain:
                return f"{name}: expected {plain} with {type(self).__name__}, got {options[name]}"
        if options["weight_decay"]:
            return (
                f"weight_decay: expected 0 with {type(self).__name__}, got "
                f"{options['weight_decay']}; use nn.L2Penalty or decoupled_weight_decay"
            )
        if options["maximize"]:
            return f"maximize: expected False with {type(self).__name__}"
        return None

    def _refuse_whole(self) -> None:
        name = type(self).__name__
        if self.accumulate > 1:
            raise OptionError(
                f"optimizer accumulate: expected 1 with {name}, got {self.accumulate}"
            )
        if self.clip_global_norm is not None:
            raise OptionError(
                f"optimizer clip_global_norm: expected None with {name}, got "
                f"{self.clip_global_norm}"
            )

    @property
    def bounded(self) -> bool:
        return False  # nobody looks at the second gradients


class VSGD(Shifted):
    """vSGD with a rate for each element (Schaul, Zhang & LeCun 2013, "No more pesky learning
    rates", algorithm 1, "vSGD-l")::

        h = |g(p + mean) - g(p)| / (|mean| + eps) + eps
        mean      = (1 - 1/memory) * mean      + 1/memory * g
        square    = (1 - 1/memory) * square    + 1/memory * g**2
        curvature = (1 - 1/memory) * curvature + 1/memory * h
        memory = (1 - mean**2 / square) * memory + 1              (eq. 9)
        p = p - lr * mean**2 / (curvature * square) * g            (eq. 8)

    The paper computes the curvature h by a backward pass of second derivatives; here it is the
    difference between two gradients of the same batch, as in `VSGDfd`. A mini-batch counts as one
    sample. In the first `initial` steps the means are plain ones and nothing is updated; then
    `square` and `curvature` are multiplied by `slow_start` (section 4.2).

    Args:
        lr: factor of the rates.
        initial: steps at the beginning that gather statistics without updating.
        slow_start: factor by which the first means are enlarged, >= 1.
        eps: added to the denominators; 1 / eps is the largest rate. (The papers have none. With a
            smaller value, units whose loss is flat for a while take huge steps.)
        common: see `Optimizer`; weight decay in the gradient, clipping, noise and accumulation are
            refused, because they would change only one of the two gradients.

    Each step costs two forward and two backward passes.

    Raises OptionError for `initial` below 1, `accumulate`, and clipping by the global norm, and as
    `Optimizer`.

    >>> VSGD()
    VSGD(lr=1.0, initial=10, slow_start=2.0, eps=0.001)
    """

    name: ClassVar[str] = "vsgd"
    slots = SLOTS
    shift = "mean"

    def __init__(
        self, lr: float = 1.0, initial: int = 10, slow_start: float = 2.0, eps: float = 1e-3,
        **common: Any,
    ):  # fmt: skip
        check_whole(type(self).__name__, 1, initial=initial)
        super().__init__(lr=lr, initial=initial, slow_start=slow_start, eps=eps, **common)
        self._refuse_whole()

    def check(self, options: Mapping[str, Any]) -> str | None:
        if options["slow_start"] < 1:
            return f"slow_start: expected a number >= 1, got {options['slow_start']}"
        if not options["eps"] > 0:
            return f"eps: expected a number above 0, got {options['eps']}"
        return self._refuse(options)

    @property
    def unlimited(self) -> tuple[str, ...]:
        return ("initial",)

    def initial(self, slot: str) -> float:
        return 1.0 if slot == "memory" else 0.0

    @staticmethod
    def scalars(
        t: int, lr: float, initial: float, slow_start: float, eps: float
    ) -> tuple[float, ...]:
        looks = 1.0 if t <= initial else 0.0
        first = 1.0 if t == 1 else 0.0
        last = slow_start if t == initial else 1.0
        return -lr, looks, 1.0 / t, first, last, eps

    @property
    def passes(self) -> Mapping[str, Pass]:
        rule = type(self).step
        return {"update": Pass(rule, ("p", *SLOTS), ("g", "second"), scalars=6)}

    @property
    def combines(self) -> Mapping[str, Any]:
        return {}

    def place(
        self, apply: Apply, given: Mapping[str, Any], options: Mapping[str, Any], transposed: bool
    ) -> None:
        self.run("update", apply, given)

    @staticmethod
    def step(
        p: Any, mean: Any, square: Any, curvature: Any, curvature_square: Any, memory: Any, g: Any,
        second: Any, rate: Any, looks: Any, share: Any, first: Any, last: Any, eps: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        """New values of the parameter and the slots. While statistics are gathered only, `looks` is
        1, else 0, and `share` is 1 by the number of steps; `first` is 1 in the first step, else 0,
        and `last` the factor `slow_start` in the last of those steps, else 1."""
        mean, square, curvature, curvature_square, memory, variance = statistics(
            mean, square, curvature, curvature_square, memory, g, second, looks, share, first,
            last, eps,
        )  # fmt: skip
        p = fma(variance / curvature * g, rate * (1.0 - looks), p)
        return p, mean, square, curvature, curvature_square, memory


class VSGDfd(VSGD):
    """vSGD-fd (Schaul & LeCun 2013, "Adaptive learning rates and parallelization for stochastic,
    sparse, non-smooth gradients", algorithm 1)::

        h = |g(p + mean) - g(p)| / (|mean| + eps) + eps
        where |g - mean| > 2 sqrt(square - mean**2) or
              |h - curvature| > 2 sqrt(curvature_square - curvature**2):
            memory = memory + 1
        mean, square, curvature, curvature_square: running means of g, g**2, h, h**2, with 1/memory
        memory = (1 - mean**2 / square) * memory + 1
        p = p - lr * curvature / curvature_square * mean**2 / square * g

    A mini-batch counts as one sample (n = 1 in the paper), so the variance is that of its gradient.
    Means, memory, rate and the difference along the mean gradient are those of the authors' code,
    too, which calls outliers what is farther than one deviation.

    Args:
        lr, initial, slow_start, eps, common: as `VSGD`; `curvature_square` is multiplied by
            ``slow_start**2``.

    >>> VSGDfd(initial=20)
    VSGDfd(lr=1.0, initial=20, slow_start=2.0, eps=0.001)
    """

    name: ClassVar[str] = "vsgd_fd"

    @staticmethod
    def step(
        p: Any, mean: Any, square: Any, curvature: Any, curvature_square: Any, memory: Any, g: Any,
        second: Any, rate: Any, looks: Any, share: Any, first: Any, last: Any, eps: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        """New values of the parameter and the slots."""
        h = difference(mean, g, second, first, eps)
        away, aside = g - mean, h - curvature
        far = away * away - (square - mean * mean) * 4.0
        bent = aside * aside - (curvature_square - curvature * curvature) * 4.0
        one = fill_like(p, 1.0) * (1.0 - looks)
        more = where(far > 0.0, one, where(bent > 0.0, one, one * 0.0))
        mean, square, curvature, curvature_square, memory, variance = statistics(
            mean, square, curvature, curvature_square, memory + more, g, second, looks, share,
            first, last, eps,
        )  # fmt: skip
        p = fma(curvature / curvature_square * variance * g, rate * (1.0 - looks), p)
        return p, mean, square, curvature, curvature_square, memory


@helper
def difference(mean: Any, g: Any, second: Any, first: Any, eps: Any) -> Any:
    """The curvature by the gradients at two points."""
    shift = absolute(fma(g, first, mean))  # the mean is 0 in the first step
    return absolute(second - g) / (shift + eps) + eps


@helper
def statistics(
    mean: Any, square: Any, curvature: Any, curvature_square: Any, memory: Any, g: Any,
    second: Any, looks: Any, share: Any, first: Any, last: Any, eps: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The new running means, the new memory, and the part of the rate that is of the variance."""
    h = difference(mean, g, second, first, eps)
    # in the beginning plain means, of as many steps as there have been
    weight = fma(1.0 / memory, 1.0 - looks, looks * share)
    mean = fma(g - mean, weight, mean)
    square = fma(fma(g, g, -square), weight, square) * last
    curvature = fma(h - curvature, weight, curvature) * last
    curvature_square = fma(fma(h, h, -curvature_square), weight, curvature_square) * last * last
    variance = mean * mean / (square + eps * eps)
    memory = fma(fma(-variance, memory, memory) + 1.0, 1.0 - looks, (memory + 1.0 - first) * looks)
    return mean, square, curvature, curvature_square, memory, variance
