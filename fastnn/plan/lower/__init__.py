"""From nodes to calls of kernels: the place that knows both ops and devices."""

from fastnn.plan.lower.lowering import Lowering

__all__ = ["Lowering"]
