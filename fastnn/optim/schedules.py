"""Learning-rate schedules: pure functions of the step.

A schedule gives the factor by which the base learning rate is multiplied, so the same schedule fits
any optimiser and any parameter group:

>>> schedule = LinearWarmup(500) * StepDecay(10, gamma=0.5, unit="epoch")
>>> rate = schedule(250, base_lr=0.1, steps_per_epoch=100)

Steps count from 0 and continue through all epochs. `unit` says what a schedule's own durations are
counted in: "step" (the default) or "epoch", in which case the rate changes only between epochs, as
with a PyTorch scheduler that is stepped once an epoch. An epoch is the trainer's: a pass over the
data, whatever it holds. Nothing is remembered from one step to the next, so a resumed run gets the
rates of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastnn.errors import check_whole
from fastnn.optim.cyclic import Cyclic, OneCycle
from fastnn.optim.schedule import Array, Product, Schedule, Sequential, cosine_between

__all__ = [
    "Constant",
    "CosineAnnealing",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "InverseSqrt",
    "InverseTime",
    "LinearWarmup",
    "MultiStep",
    "OneCycle",
    "Piecewise",
    "Polynomial",
    "Product",
    "Schedule",
    "Sequential",
    "StepDecay",
    "Trapezoid",
]


@dataclass(frozen=True)
class Constant(Schedule):
    """Always `value` times the base rate.

    `unit`: see `Schedule`.

    Raises OptionError for a negative number.

    >>> optim.schedules.Constant()(np.array([0, 5, 10]), 0.1).round(4)
    array([0.1, 0.1, 0.1])
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_zero(value=self.value)

    def factor(self, time: Array) -> Array:
        return np.full_like(time, self.value)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """gamma^⌊t / every⌋; PyTorch's StepLR.

    `unit`: see `Schedule`.

    Raises OptionError for an `every` that is not above 0 and a negative `gamma`.

    >>> optim.schedules.StepDecay(5, gamma=0.5)(np.array([0, 5, 10]), 0.1).round(4)
    array([0.1  , 0.05 , 0.025])
    """

    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_zero(every=self.every)
        self._at_least_zero(gamma=self.gamma)

    def factor(self, time: Array) -> Array:
        return self.gamma ** (time // self.every)


@dataclass(frozen=True)
class MultiStep(Schedule):
    """gamma^(number of milestones reached); PyTorch's MultiStepLR.

    `unit`: see `Schedule`.

    Raises OptionError for negative numbers.

    >>> optim.schedules.MultiStep([5, 8])(np.array([0, 5, 10]), 0.1).round(4)
    array([0.1  , 0.01 , 0.001])
    """

    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_zero(gamma=self.gamma)
        self._from_zero("milestones", self.milestones)

    def factor(self, time: Array) -> Array:
        reached = np.searchsorted(sorted(self.milestones), time, side="right")
        return self.gamma ** reached.astype(np.float64)


@dataclass(frozen=True)
class Piecewise(Schedule):
    """``factors[i]`` between ``boundaries[i - 1]`` and ``boundaries[i]``.

    There is one factor more than boundaries; a boundary belongs to the piece that it begins.
    Keras's PiecewiseConstantDecay takes rates, not factors, and lets a boundary end its piece.

    `unit`: see `Schedule`.

    Raises OptionError for negative numbers, boundaries that do not increase, and any number of
    factors but one more than there are boundaries.

    >>> Piecewise([2, 4], [1, 0.5, 0.1]).rates(1.0, first_step=0, n_steps=5)
    array([1. , 1. , 0.5, 0.5, 0.1])
    """

    boundaries: Sequence[int]
    factors: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._from_zero("boundaries", self.boundaries)
        self._from_zero("factors", self.factors)
        if len(self.factors) != len(self.boundaries) + 1:
            raise self._error(
                f"{len(self.boundaries)} boundaries need {len(self.boundaries) + 1} factors, "
                f"got {len(self.factors)}"
            )
        if any(b <= a for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise self._error(f"boundaries must increase, got {list(self.boundaries)}")

    def factor(self, time: Array) -> Array:
        places = np.searchsorted(self.boundaries, time, side="right")
        return np.asarray(self.factors, np.float64)[places]


@dataclass(frozen=True)
class Exponential(Schedule):
    """gamma^t; PyTorch's ExponentialLR.

    `unit`: see `Schedule`.

    Raises OptionError for a negative `gamma`.

    >>> optim.schedules.Exponential(0.9)(np.array([0, 5, 10]), 0.1).round(4)
    array([0.1   , 0.059 , 0.0349])
    """

    gamma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_zero(gamma=self.gamma)

    def factor(self, time: Array) -> Array:
        return np.asarray(self.gamma**time)


@dataclass(frozen=True)
class InverseTime(Schedule):
    """1 / (1 + decay · t): the rates of stochastic approximation.

    Robbins and Monro, "A stochastic approximation method", 1951. Keras's InverseTimeDecay with
    ``decay=decay_rate / decay_steps``; PyTorch has none.

    `unit`: see `Schedule`.

    Raises OptionError for a negative `decay`.

    >>> optim.schedules.InverseTime(0.1)(np.array([0, 5, 10]), 0.1).round(4)
    array([0.1   , 0.0667, 0.05  ])
    """

    decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_zero(decay=self.decay)

    def factor(self, time: Array) -> Array:
        return 1 / (1 + self.decay * time)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """final + (1 - final) · (1 - t / duration)^power, then `final`; PyTorch's PolynomialLR.

    PyTorch's `final` is 0. Power 1 gives a straight line.

    `unit`: see `Schedule`.

    Raises OptionError for a `duration` or `power` that is not above 0 and a negative `final`.

    >>> optim.schedules.Polynomial(10)(np.array([0, 5, 10]), 0.1).round(4)
    array([0.1 , 0.05, 0.  ])
    """

    duration: int
    power: float = 1.0
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_zero(duration=self.duration, power=self.power)
        self._at_least_zero(final=self.final)

    def factor(self, time: Array) -> Array:
        left = 1 - np.minimum(time / self.duration, 1)
        return self.final + (1 - self.final) * left**self.power


@dataclass(frozen=True)
class LinearWarmup(Schedule):
    """start + (1 - start) · t / duration, then 1; PyTorch's LinearLR.

    With ``start=0`` the very first step changes nothing. Goyal et al., "Accurate, large minibatch
    SGD: training ImageNet in 1 hour", 2017.

    `unit`: see `Schedule`.

    Raises OptionError for a `duration` that is not above 0 and a negative `start`.

    >>> optim.schedules.LinearWarmup(10)(np.array([0, 5, 10]), 0.1).round(4)
    array([0.0333, 0.0667, 0.1   ])
    """

    duration: int
    start: float = 1 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_zero(duration=self.duration)
        self._at_least_zero(start=self.start)

    def factor(self, time: Array) -> Array:
        return self.start + (1 - self.start) * np.minimum(time / self.duration, 1)


@dataclass(frozen=True)
class CosineAnnealing(Schedule):
    """final + (1 - final) · (1 + cos(π t / duration)) / 2, then `final`.

    PyTorch's CosineAnnealingLR with ``T_max=duration`` and ``eta_min=final · base_lr``, except that
    the rate stays at its end, where PyTorch's rises again. Loshchilov and Hutter, "SGDR: stochastic
    gradient descent with warm restarts", 2017.

    `unit`: see `Schedule`.

    Raises OptionError for a `duration` that is not above 0 and a negative `final`.

    >>> optim.schedules.CosineAnnealing(10)(np.array([0, 5, 10]), 0.1).round(4)
    array([0.1 , 0.05, 0.  ])
    """

    duration: int
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_zero(duration=self.duration)
        self._at_least_zero(final=self.final)

    def factor(self, time: Array) -> Array:
        return cosine_between(1.0, self.final, np.minimum(time / self.duration, 1))


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Cosine annealing that restarts: periods of `first`, first · growth, first · growth², ….

    PyTorch's CosineAnnealingWarmRestarts (T_0, T_mult, eta_min = final · base_lr). Loshchilov and
    Hutter, 2017.

    `unit`: see `Schedule`.

    Raises OptionError for a `first` that is not above 0, a negative `final`, and a `growth` below
    1.

    >>> optim.schedules.CosineRestarts(10)(np.array([0, 5, 9, 10]), 0.1).round(4)
    array([0.1   , 0.05  , 0.0024, 0.1   ])
    """

    first: int
    growth: int = 1
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_zero(first=self.first)
        self._at_least_zero(final=self.final)
        check_whole("CosineRestarts", 1, growth=self.growth)

    def factor(self, time: Array) -> Array:
        if self.growth == 1:
            return cosine_between(1.0, self.final, time % self.first / self.first)
        ends = [float(self.first)]
        length = float(self.first)
        while ends[-1] <= time.max(initial=0):
            length *= self.growth
            ends.append(ends[-1] + length)
        starts = np.array([0.0, *ends])
        period = np.searchsorted(ends, time, side="right")
        begun = starts[period]
        return cosine_between(1.0, self.final, (time - begun) / (starts[period + 1] - begun))


@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """min((t + 1) / warmup, √(warmup / (t + 1))): linear up, down with the inverse root.

    Its peak is 1. The original counts from step 1 and writes d_model^-½ · min(step^-½,
    step · warmup^-1.5), which is this one with ``base_lr = (d_model · warmup) ** -0.5``. Vaswani et
    al., "Attention is all you need", 2017 (also called Noam). PyTorch has none.

    `unit`: see `Schedule`.

    Raises OptionError for a `warmup` that is not above 0.

    >>> optim.schedules.InverseSqrt(5)(np.array([0, 4, 19]), 0.1).round(4)
    array([0.02, 0.1 , 0.05])
    """

    warmup: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_zero(warmup=self.warmup)

    def factor(self, time: Array) -> Array:
        step = time + 1
        return np.minimum(step / self.warmup, np.sqrt(self.warmup / step))


@dataclass(frozen=True)
class Trapezoid(Schedule):
    """A straight line up, (t + 1) / warmup, then 1, then a straight line down to `final`.

    The descent takes the last `cooldown` of `duration` steps. Also called warm-up, stable, decay:
    Hägele et al., "Scaling laws and compute-optimal training beyond fixed training durations",
    2024.

    `unit`: see `Schedule`.

    Raises OptionError for a `duration` that is not above 0, negative numbers, and a `warmup` and
    `cooldown` that do not fit into `duration`.

    >>> Trapezoid(6, warmup=2, cooldown=2).rates(1.0, first_step=0, n_steps=7)
    array([0.5, 1. , 1. , 1. , 1. , 0.5, 0. ])
    """

    duration: int
    warmup: int = 0
    cooldown: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_zero(duration=self.duration)
        self._at_least_zero(warmup=self.warmup, cooldown=self.cooldown, final=self.final)
        if self.warmup + self.cooldown > self.duration:
            raise self._error(
                f"warmup and cooldown must fit into duration {self.duration}, got {self.warmup} "
                f"and {self.cooldown}"
            )

    def factor(self, time: Array) -> Array:
        up = np.minimum((time + 1) / max(self.warmup, 1), 1)
        left = np.clip((self.duration - time) / max(self.cooldown, 1), 0, 1)
        return up * (self.final + (1 - self.final) * left) if self.cooldown else up
