"""From nodes to calls of kernels: the place that knows both ops and devices."""

from fastnn.plan.lower import (  # noqa: F401  (the rules)
    attention,
    convolution,
    ctc,
    loop,
    products,
    recurrent,
    rows,
    strided,
    transducer,
)
from fastnn.plan.lower.lowering import Lowering

__all__ = ["Lowering"]
