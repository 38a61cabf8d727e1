"""From nodes to calls of kernels: the place that knows both ops and devices."""

from fastnn.plan.lower import convolution, loop, products, recurrent, rows, strided  # noqa: F401  (the rules)
from fastnn.plan.lower.lowering import Lowering

__all__ = ["Lowering"]
