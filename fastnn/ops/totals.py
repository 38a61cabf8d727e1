"""Running totals, each a sum and a count in float64: effects (`ops/declare.py`)."""

from __future__ import annotations

from fastnn.graph.value import Value
from fastnn.ops.declare import effect


@effect()
def accumulate(value: Value, total: Value, count: int) -> None:
    """Add a mean of `count` numbers."""


@effect()
def accumulate_by(value: Value, count: Value, total: Value) -> None:
    """Add a mean, of as many numbers as a value says."""


@effect()
def accumulate_rows(x: Value, total: Value) -> None:
    """Add numbers, each of which counts 1."""


@effect()
def accumulate_weighted(x: Value, weight: Value, total: Value) -> None:
    """Add numbers, times what each counts."""


@effect()
def accumulate_pair(x: Value, y: Value, total: Value) -> None:
    """Add numbers to the sum, and others to the count."""


@effect()
def add_scaled(x: Value, count: Value | None, y: Value, factor: float) -> None:
    """y += x times a number and a value of one element (None: 1)."""
