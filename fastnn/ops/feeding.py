"""What moves between a step's values and memory outside of it: data, results, buffers, copies.

All but `own_copy` are effects (`ops/declare.py`).
"""

from __future__ import annotations

from fastnn.graph.op import unbatched
from fastnn.graph.value import Value
from fastnn.ops.declare import effect, like, op


@effect(forward="affine")
def write(x: Value, y: Value, scale: float = 1.0, shift: float = 0.0) -> None:
    """y = scale * x + shift, into y's memory."""


@effect(forward="gather_rows")
def gather(source: Value, order: Value, y: Value) -> None:
    """The batch's rows of a data set, by the data order: y is (N, C), floats or integers."""


@effect(forward="scatter_rows")
def scatter(x: Value, y: Value) -> None:
    """A batch's rows into the results, from the control block's cursor on."""


@op(placement=unbatched)
def own_copy(x: Value) -> Value:
    """x in work memory, floats or integers."""
    return like(x)


@effect()
def mixing_share(share: Value, alpha: float, stream: int) -> None:
    """The larger share of two samples that are mixed, at random."""


@effect(final=True)
def advance(control: Value, batch: int) -> None:
    """The step counts, last of all."""
