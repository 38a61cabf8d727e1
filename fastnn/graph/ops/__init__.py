"""The table of ops; importing it fills `fastnn.graph.op.OPS` and declares the kernels."""

from fastnn.graph.ops import (  # noqa: F401
    activation,
    along,
    arithmetic,
    linear,
    loss,
    matmul,
    metric,
    norm,
    random,
    recurrent,
    shape,
    strided,
)
