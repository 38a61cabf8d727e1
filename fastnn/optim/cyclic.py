"""Learning-rate schedules that rise and fall: triangles again and again, and one cycle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnn.optim.schedule import Array, Schedule, cosine_between, line_between


@dataclass(frozen=True)
class Cyclic(Schedule):
    """From `low` to 1 in `up` steps, back in `down`, again and again; PyTorch's CyclicLR with
    ``max_lr=lr`` and ``base_lr=low · lr`` (the momentum is left as it is).

    `down` defaults to `up`. `mode`: "triangular"; "triangular2", each cycle half as high as the one
    before; "exp_range", heights fall by `gamma` a step. Smith, "Cyclical learning rates for
    training neural networks", 2017.

    `unit`: see `Schedule`.

    Raises OptionError for `up`, `down` or `gamma` that are not above 0, a `low` outside [0, 1], and
    an unknown `mode`.

    >>> optim.schedules.Cyclic(5)(np.array([0, 5, 10]), 0.1).round(4)
    array([0.01, 0.1 , 0.01])
    """

    up: int
    down: int | None = None
    low: float = 0.1
    mode: str = "triangular"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_zero(up=self.up, gamma=self.gamma)
        if self.down is not None:
            self._above_zero(down=self.down)
        self._at_least_zero(low=self.low)
        if self.mode not in ("triangular", "triangular2", "exp_range"):
            raise self._error(
                f"mode must be 'triangular', 'triangular2' or 'exp_range', got {self.mode!r}"
            )
        if self.low > 1:
            raise self._error(f"low must be at most 1, got {self.low}")

    def factor(self, time: Array) -> Array:
        down = self.up if self.down is None else self.down
        cycle, at = np.divmod(time, self.up + down)
        height = np.where(at <= self.up, at / self.up, (self.up + down - at) / down)
        if self.mode == "triangular2":
            height = height * 0.5**cycle
        elif self.mode == "exp_range":
            height = height * self.gamma**time
        return self.low + (1 - self.low) * height


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From 1 / div_factor up to 1, then down to 1 / (div_factor · final_div_factor).

    `duration` is the whole run, `pct_start` the share of it that rises; `anneal` is "cos" or
    "linear". PyTorch's OneCycleLR with two phases and ``max_lr=base_lr``; the momentum is left as
    it is. Smith and Topin, "Super-convergence: very fast training of neural networks using large
    learning rates", 2018.

    `unit`: see `Schedule`.

    Raises OptionError for factors or a `duration` that are not above 0, a `pct_start` that leaves
    no step to rise or to fall, and an unknown `anneal`.

    >>> optim.schedules.OneCycle(10)(np.array([0, 3, 9]), 0.1).round(4)
    array([0.004, 0.095, 0.   ])
    """

    duration: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    anneal: str = "cos"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_zero(div_factor=self.div_factor, final_div_factor=self.final_div_factor)
        self._above_zero(duration=self.duration, pct_start=self.pct_start)
        if not 0 < self.pct_start < 1:
            raise self._error(f"pct_start must lie between 0 and 1, got {self.pct_start}")
        if not 1 < self.pct_start * self.duration < self.duration:
            raise self._error(
                f"duration {self.duration} leaves no step to rise with pct_start={self.pct_start}; "
                "make one of them larger"
            )
        if self.anneal not in ("cos", "linear"):
            raise self._error(f"anneal must be 'cos' or 'linear', got {self.anneal!r}")

    def factor(self, time: Array) -> Array:
        blend = cosine_between if self.anneal == "cos" else line_between
        start = 1 / self.div_factor
        top, last = self.pct_start * self.duration - 1, self.duration - 1
        up = blend(start, 1.0, np.minimum(time / top, 1))
        down = blend(1.0, start / self.final_div_factor, np.clip((time - top) / (last - top), 0, 1))
        return np.where(time <= top, up, down)
