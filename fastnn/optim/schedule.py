"""What learning-rate schedules are, and schedules made of others; the kinds are in `schedules`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import OptionError, check_numbers

Array: TypeAlias = NDArray[np.float64]
UNITS = ("step", "epoch")


@dataclass(frozen=True)
class Schedule:
    """What all schedules share; a new one overrides `factor`.

    A schedule is called with steps (from 0) and gives the learning rate of each: its factor times
    the base rate.

    Args:
        unit: what its times are counted in, "step" or "epoch".

    Raises OptionError for an unknown `unit`, a negative step, and fewer than one step per epoch.

    >>> class Halved(optim.schedules.Schedule):
    ...     def factor(self, time):
    ...         return 0.5 ** (time // 10)
    >>> Halved()(np.array([0, 10, 20]), 0.1)
    array([0.1  , 0.05 , 0.025])
    """

    _: KW_ONLY
    unit: str = "step"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise self._error(f"unit must be 'step' or 'epoch', got {self.unit!r}")

    @property
    def counts_epochs(self) -> bool:
        """Whether the rate depends on the epoch, and so on how many steps one has."""
        return self.unit == "epoch"

    @property
    def units(self) -> frozenset[str]:
        """The units that it counts in: one, or several in a product."""
        return frozenset({self.unit})

    def factor(self, time: Array) -> Array:
        """The multiplier of the base learning rate at each `time` (float64, in `unit`)."""
        raise NotImplementedError(f"{type(self).__name__} has to define factor(time)")

    @overload
    def __call__(self, step: int, base_lr: float = ..., *, steps_per_epoch: int = ...) -> float: ...

    @overload
    def __call__(
        self, step: NDArray[np.integer], base_lr: float = ..., *, steps_per_epoch: int = ...
    ) -> Array: ...

    def __call__(
        self,
        step: int | NDArray[np.integer],
        base_lr: float = 1.0,
        *,
        steps_per_epoch: int = 1,
    ) -> float | Array:
        """The learning rate at a global step, or at each of an array of steps."""
        rates = base_lr * self._at(np.atleast_1d(step), steps_per_epoch)
        return float(rates[0]) if np.ndim(step) == 0 else rates

    def rates(
        self,
        base_lr: float,
        first_step: int,
        n_steps: int,
        steps_per_epoch: int = 1,
        *,
        epoch: int | None = None,
    ) -> Array:
        """Learning rates of the global steps ``first_step`` to ``first_step + n_steps - 1``:
        factors of `base_lr`.

        With `epoch`, all of them belong to this epoch (from 0), however many steps the earlier ones
        had; without it, to epoch ``step // steps_per_epoch``.

        Raises OptionError for a negative step, and for fewer than one step per epoch.

        >>> from fastnn.optim.schedules import StepDecay
        >>> StepDecay(2, gamma=0.5).rates(1.0, first_step=0, n_steps=5)
        array([1.  , 1.  , 0.5 , 0.5 , 0.25])
        """
        steps = np.arange(first_step, first_step + n_steps)
        return base_lr * self._at(steps, steps_per_epoch, epoch)

    def __mul__(self, other: Schedule) -> Product:
        """Both factors multiplied; the two may count in different units."""
        return Product((self, other))

    def _at(
        self, steps: NDArray[np.integer], steps_per_epoch: int, epoch: int | None = None
    ) -> Array:
        if steps.size and int(steps.min()) < 0:
            raise OptionError(f"steps count from 0, got {int(steps.min())}")
        if steps_per_epoch < 1:
            raise OptionError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
        time = steps
        if self.unit == "epoch":
            time = steps // steps_per_epoch if epoch is None else np.full_like(steps, epoch)
        return self.factor(time.astype(np.float64))

    def _error(self, message: str) -> OptionError:
        return OptionError(f"{type(self).__name__}: {message}")

    def _from_zero(self, name: str, values: Any) -> None:
        """Refuse an option that is no sequence of numbers from 0 on."""
        if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
            raise self._error(f"expected {name} to be a list of numbers, got {values!r}")
        for value in values:
            check_numbers(f"{type(self).__name__}: {name}", value=value)
            if value < 0:
                raise self._error(f"{name} must be at least 0, got {list(values)}")

    def _schedules(self, schedules: Any) -> None:
        if not isinstance(schedules, (list, tuple)) or any(
            not isinstance(schedule, Schedule) for schedule in schedules
        ):
            raise self._error(f"expected a list of schedules, got {schedules!r}")

    def _above_zero(self, **options: float) -> None:
        check_numbers(type(self).__name__, **options)
        for name, value in options.items():
            if not value > 0:
                raise self._error(f"{name} must be above 0, got {value}")

    def _at_least_zero(self, **options: float) -> None:
        check_numbers(type(self).__name__, **options)
        for name, value in options.items():
            if not value >= 0:
                raise self._error(f"{name} must be at least 0, got {value}")


@dataclass(frozen=True)
class Sequential(Schedule):
    """One schedule after the other; PyTorch's SequentialLR.

    ``schedules[i]`` begins, with its own time 0, at ``milestones[i - 1]``. All count in the same
    unit; for different units multiply schedules instead.

    Raises OptionError for anything but schedules of one unit, for milestones that do not increase,
    and for any number of them but one fewer than there are schedules.

    >>> from fastnn.optim.schedules import CosineAnnealing, LinearWarmup
    >>> Sequential([LinearWarmup(2, start=0), CosineAnnealing(2)], [2])(2)
    1.0
    """

    schedules: Sequence[Schedule]
    milestones: Sequence[int]
    unit: str = field(default="", kw_only=True)  # that of its schedules

    def __post_init__(self) -> None:
        self._schedules(self.schedules)
        self._from_zero("milestones", self.milestones)
        if not self.schedules or len(self.milestones) != len(self.schedules) - 1:
            raise self._error(
                f"{len(self.schedules)} schedules need one milestone fewer, "
                f"got {len(self.milestones)}"
            )
        units = {unit for schedule in self.schedules for unit in schedule.units}
        if len(units) > 1 or self.unit not in ("", *units):
            raise self._error(
                "all schedules have to count in one unit; multiply schedules (a * b) to mix "
                "steps and epochs"
            )
        object.__setattr__(self, "unit", units.pop())
        if list(self.milestones) != sorted(self.milestones):
            raise self._error(f"milestones must increase, got {list(self.milestones)}")

    def factor(self, time: Array) -> Array:
        factors = self.schedules[0].factor(time)
        for begin, schedule in zip(self.milestones, self.schedules[1:], strict=True):
            later = schedule.factor(np.maximum(time - begin, 0))
            factors = np.where(time >= begin, later, factors)
        return factors


@dataclass(frozen=True)
class Product(Schedule):
    """The factors of several schedules multiplied, each counting in its own unit (``a * b``).

    Raises OptionError for anything but schedules; so does `factor` where they count in two units.

    >>> rate = optim.schedules.LinearWarmup(5) * optim.schedules.Exponential(0.9)
    >>> rate(np.array([0, 5, 10]), 0.1).round(4)
    array([0.0333, 0.059 , 0.0349])
    """

    schedules: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._schedules(self.schedules)
        if len(self.units) == 1:
            object.__setattr__(self, "unit", min(self.units))

    @property
    def units(self) -> frozenset[str]:
        return frozenset().union(*(schedule.units for schedule in self.schedules))

    @property
    def counts_epochs(self) -> bool:
        """Whether one of them counts epochs."""
        return any(schedule.counts_epochs for schedule in self.schedules)

    def factor(self, time: Array) -> Array:
        """The product of the factors, of schedules that count in one unit."""
        if len(self.units) > 1:
            raise self._error("its schedules count in steps and epochs; call it with a step")
        return np.prod([schedule.factor(time) for schedule in self.schedules], axis=0)

    def _at(
        self, steps: NDArray[np.integer], steps_per_epoch: int, epoch: int | None = None
    ) -> Array:
        return np.prod([s._at(steps, steps_per_epoch, epoch) for s in self.schedules], axis=0)


def cosine_between(start: float, end: float, share: Array) -> Array:
    return end + (start - end) * (1 + np.cos(math.pi * share)) / 2


def line_between(start: float, end: float, share: Array) -> Array:
    return start + (end - start) * share
