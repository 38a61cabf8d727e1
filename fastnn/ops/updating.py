"""What a training step does to gradients and parameters beside the update itself: effects
(`ops/declare.py`). The updates are made of the optimisers' rules (`engine/update.py`)."""

from __future__ import annotations

from fastnn.graph.value import Value
from fastnn.ops.declare import effect


@effect()
def accumulate_gradient(total: Value, g: Value, guard: Value | None, every: int) -> None:
    """The mean of the gradients of `every` steps, as far as it has come."""


@effect()
def squared_norm(x: Value, y: Value) -> None:
    """The sum of squares of each row."""


@effect()
def norm_sum(partial: Value, before: Value, after: Value) -> None:
    """after = before + the sum of `partial`."""


@effect()
def clip_scale(total: Value, scale: Value, limit: float) -> None:
    """The factor that brings a squared norm down to the limit's."""


@effect()
def add_noise(
    g: Value, noise: Value, y: Value, scale: Value | None, eta: float, every: int
) -> None:
    """The gradient times its factor, with noise that becomes less (Neelakantan et al. 2015)."""


@effect()
def shift_parameter(p: Value, shift: Value, g: Value, y: Value) -> None:
    """The second point that a gradient is taken at."""


@effect()
def shrink(p: Value, hyper: Value, schedule: Value, group: int, l1: float) -> None:
    """The proximal step of the l1 norm: small numbers become 0."""


@effect()
def limit_rows(p: Value, squares: Value, hyper: Value, limit: float) -> None:
    """Rows that are longer than the limit become as long as it."""


@effect()
def column_factors(p: Value, factors: Value, limit: float) -> None:
    """What columns that are longer than the limit are multiplied by."""


@effect()
def limit_columns(p: Value, factors: Value, hyper: Value) -> None:
    """Columns times their factors."""
