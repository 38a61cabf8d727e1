"""What keeps a training step's numbers finite: effects (`ops/declare.py`) that look at numbers,
copy what may be put back, and scale a loss. See `engine/guard.py` and `engine/scaling.py`."""

from __future__ import annotations

from fastnn.graph.value import Value
from fastnn.ops.declare import effect


@effect()
def check_finite(value: Value) -> None:
    """Stop where a number is NaN or infinite."""


@effect()
def check_size(x: Value, guard: Value, limit: float) -> None:
    """A number beyond the limit makes the step doubtful."""


@effect()
def check_columns(x: Value, guard: Value, limit: float) -> None:
    """`check_size` of what was computed by columns."""


@effect()
def safeguard(
    x: Value, saved: Value, slot1: Value | None, saved1: Value | None, slot2: Value | None,
    saved2: Value | None, slot3: Value | None, saved3: Value | None, schedule: Value, guard: Value,
    always: int,
) -> None:  # fmt: skip
    """Copy parameters and slots where the step is doubtful."""


@effect(final=True)
def keep(x: Value, saved: Value) -> None:
    """Copy buffers at the end of a good step."""


@effect(final=True)
def latch(guard: Value) -> None:
    """Stop where an update has written NaN or infinity."""


@effect()
def loss_scale(scale: Value, inverse: Value, guard: Value) -> None:
    """The factor that a loss's gradient has in this step, and one over it."""


@effect()
def unscale(x: Value, inverse: Value, y: Value, guard: Value) -> None:
    """Gradients without the factor; those that have overflowed make the step one to skip."""


@effect()
def skip_overflow(guard: Value, hyper: Value) -> None:
    """Let an update, by its numbers, change nothing where gradients have overflowed."""


@effect(final=True)
def adapt_scale(guard: Value) -> None:
    """The factor of the next step follows from how this one went."""
