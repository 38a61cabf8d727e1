"""A value's shape as a kernel sees it: with as many dimensions as its parameter has."""

from __future__ import annotations

from collections.abc import Sequence


def fold(shape: Sequence[int], rank: int) -> tuple[int, ...]:
    """A shape at a lower or higher rank: leading dimensions merge; a vector is a column of rows."""
    shape = tuple(shape)
    if rank == 1:
        size = 1
        for extent in shape:
            size *= extent
        return (size,)
    if len(shape) < 2:
        return (*(shape or (1,)), *(1,) * (rank - max(len(shape), 1)))
    if len(shape) < rank:
        return (1,) * (rank - len(shape)) + shape
    lead = 1
    for extent in shape[: len(shape) - rank + 1]:
        lead *= extent
    return (lead, *shape[len(shape) - rank + 1 :])
