"""Windows over a signal, as vectors."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from fastnn.errors import ShapeError, check_whole, where
from fastnn.ops.declare import Operand
from fastnn.ops.indexing import pad
from fastnn.ops.joining import concatenate
from fastnn.ops.lengths import checked_lengths, windows_of, within
from fastnn.ops.operands import float_value
from fastnn.ops.shape import reshape
from fastnn.public import publish


def frames(x: Operand, length: int, step: int, lengths: Any = None) -> Any:
    """Overlapping pieces of signals: at 16,000 samples a second, ``frames(x, 400, 160)`` are pieces
    of 25 ms every 10 ms.

    Args:
        x: samples, shape (N, T).
        length: samples of a piece.
        step: samples from the beginning of a piece to that of the next.
        lengths: number of valid samples of each signal, integers of shape (N,): what is past the
            end counts as 0, whatever is there, and so do pieces that reach over it.

    Returns:
        Shape (N, pieces, length), where pieces = 1 + (T - length) / step, rounded down; with
        `lengths` also how many of them are valid.

    Raises:
        OptionError: numbers below 1.
        ShapeError: an input of another shape, or shorter than a piece.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Frames(4, 2).predict(np.arange(9.0)[None])
    array([[[0., 1., 2., 3.],
            [2., 3., 4., 5.],
            [4., 5., 6., 7.]]], dtype=float32)
    """
    check_whole("frames", 1, length=length, step=step)
    x = float_value(x, "frames")
    label = f"{where(x.graph.scope)}frames"
    if x.ndim != 2:
        raise ShapeError(
            f"{label}: expected signals of shape (batch, samples), got {x.shape}; take one channel"
        )
    if x.shape[1] < length:
        raise ShapeError(
            f"{label}: expected at least one piece of {length} samples, got signals of "
            f"{x.shape[1]}; pad them, or use shorter pieces"
        )
    if lengths is not None:
        lengths = checked_lengths(x.graph, lengths, x.shape[0], x.shape[1], "frames")
        x = reshape(within(reshape(x, *x.shape, 1), lengths), x.shape)
    count = 1 + (x.shape[1] - length) // step
    # a piece is some rows of `step` samples, one after another
    rows = -(-length // step)
    needed = (count - 1 + rows) * step
    if needed > x.shape[1]:
        x = pad(x, [(0, 0), (0, needed - x.shape[1])])
    elif needed < x.shape[1]:
        x = x[:, :needed]
    lines = reshape(x, x.shape[0], -1, step)
    parts = [lines[:, k : k + count] for k in range(rows)]
    parts[-1] = parts[-1][:, :, : length - (rows - 1) * step]
    y = parts[0] if rows == 1 else concatenate(x.graph, parts)
    if lengths is None:
        return y
    ends = windows_of(lengths, length, step, 0)
    return within(y, ends), ends


publish(globals(), FunctionType)
