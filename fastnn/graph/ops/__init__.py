"""The table of ops; importing it fills `fastnn.graph.op.OPS` and declares the kernels."""

from fastnn.graph.ops import (  # noqa: F401
    activation,
    arithmetic,
    linear,
    loss,
    metric,
    norm,
    random,
    recurrent,
    shape,
    turned,
)
