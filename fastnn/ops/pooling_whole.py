"""Pooling of all places, or into a given number of windows."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import divide, maximum
from fastnn.ops.arithmetic import where as chosen
from fastnn.ops.comparison import greater
from fastnn.ops.declare import Operand, floats, op
from fastnn.ops.layout import extents_of, from_last, shares, to_last
from fastnn.ops.lengths import checked_lengths, valid_steps, within
from fastnn.ops.operands import float_value, graph_of
from fastnn.ops.shape import reshape
from fastnn.ops.windows import _avg_pool, _max_pool
from fastnn.public import publish


@op(linear=("x",), constant=("lengths",))
def _avg_pool_lengths(x: Value, lengths: Value, windows: int) -> Value:
    """x (N, T, C): the averages of windows that share out each sequence's steps, (N, windows, C);
    0 where there are none."""
    return floats(x.shape[0], windows, x.shape[2])


def _adaptive(
    name: str, rank: int, x: Any, output_size: Any, channels: str, lengths: Any = None
) -> Value:
    graph = graph_of(x)
    label = f"{where(graph.scope)}{name}"
    x = to_last(float_value(x, name), rank, channels, label)
    out = shares(label, output_size, rank, extents_of(x, label))
    if lengths is not None:
        lengths = checked_lengths(graph, lengths, x.shape[0], x.shape[1], name)
        return from_last(_avg_pool_lengths(x, lengths, out[0]), channels)
    high, wide = (1,) * (2 - rank) + out
    image = x if rank == 2 else reshape(x, x.shape[0], 1, *x.shape[1:])
    y = _avg_pool(image, adaptive=1, height=high, width=wide)
    return from_last(y if rank == 2 else reshape(y, y.shape[0], *y.shape[2:]), channels)


def adaptive_avg_pool1d(
    x: Operand, output_size: int, channels: str = "first", lengths: Any = None
) -> Value:
    """The averages of `output_size` windows that share out the sequence, as in PyTorch: window p
    has the steps from ``floor(p*T / size)`` to ``ceil((p + 1)*T / size)``. `channels` as of
    `global_avg_pool`; with `lengths`, integers of shape (N,), windows share out the valid steps of
    each sequence, and are 0 where there are none.

    Raises OptionError for an `output_size` that is none, ShapeError for other inputs or lengths.

    >>> testing.apply(lambda x: ops.adaptive_avg_pool1d(x, 2), [[[1.0, 2.0, 3.0, 6.0]]])
    array([[[1.5, 4.5]]])
    """
    return _adaptive("adaptive_avg_pool1d", 1, x, output_size, channels, lengths)


def adaptive_avg_pool2d(x: Operand, output_size: Any, channels: str = "first") -> Value:
    """The averages of windows that share out the image; `output_size`: how many for both axes, or
    for each (None: as many as there are places). The rest as for `adaptive_avg_pool1d`.

    Raises OptionError for an `output_size` that is none, ShapeError for other inputs.

    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> testing.apply(lambda x: ops.adaptive_avg_pool2d(x, (1, 2)), x)
    array([[[[6.5, 8.5]]]])
    """
    return _adaptive("adaptive_avg_pool2d", 2, x, output_size, channels)


def global_avg_pool(x: Operand, channels: str = "first", lengths: Any = None) -> Value:
    """The average of each channel over all places: (N, C).

    Args:
        x: shape (N, C, T) or (N, C, H, W), or with ``channels="last"`` (N, T, C) or (N, H, W, C).
        channels: where the channels are.
        lengths: number of valid steps of each sequence, integers of shape (N,): the average of
            these alone; 0 where there are none.

    Raises ShapeError for lengths that do not fit the sequences, and for lengths of images.

    >>> testing.apply(ops.global_avg_pool, [[[1.0, 2.0, 6.0]]])
    array([[3.]])
    """
    x = float_value(x, "global_avg_pool")
    rank = x.ndim - 2
    label = f"{where(x.graph.scope)}global_avg_pool"
    x = to_last(x, rank if rank in (1, 2) else 2, channels, label)
    extents_of(x, label)
    if lengths is None:
        image = x if rank == 2 else reshape(x, x.shape[0], 1, *x.shape[1:])
        return reshape(_avg_pool(image, adaptive=1), x.shape[0], x.shape[-1])
    _over_time(label, rank)
    lengths = checked_lengths(x.graph, lengths, x.shape[0], x.shape[1], "global_avg_pool")
    x = within(x, lengths)
    image = reshape(x, x.shape[0], 1, *x.shape[1:])
    total = _avg_pool(image, adaptive=1, divisor=1)
    count = maximum(_counted(lengths, x.shape[1]), 1.0)
    return divide(reshape(total, x.shape[0], x.shape[-1]), count)


def global_max_pool(x: Operand, channels: str = "first", lengths: Any = None) -> Value:
    """The largest element of each channel over all places: (N, C). Arguments as of
    `global_avg_pool`; 0 where a sequence has no valid step.

    Raises ShapeError for lengths that do not fit the sequences, and for lengths of images.

    >>> testing.apply(ops.global_max_pool, [[[1.0, 2.0, 6.0]]])
    array([[6.]])
    """
    x = float_value(x, "global_max_pool")
    rank = x.ndim - 2
    label = f"{where(x.graph.scope)}global_max_pool"
    x = to_last(x, rank if rank in (1, 2) else 2, channels, label)
    extents_of(x, label)
    if lengths is not None:
        _over_time(label, rank)
        lengths = checked_lengths(x.graph, lengths, x.shape[0], x.shape[1], "global_max_pool")
        x = within(x, lengths, -np.inf)
    image = x if rank == 2 else reshape(x, x.shape[0], 1, *x.shape[1:])
    _, high, wide, _ = image.shape
    y = reshape(_max_pool(image, kernel_h=high, kernel_w=wide), x.shape[0], x.shape[-1])
    return y if lengths is None else chosen(greater(_counted(lengths, x.shape[1]), 0.0), y, 0.0)


def _counted(lengths: Value, steps: int) -> Value:
    """The lengths as floats, (N, 1)."""
    mask = valid_steps(lengths, steps)
    image = reshape(mask, mask.shape[0], 1, mask.shape[1], 1)
    return reshape(_avg_pool(image, adaptive=1, divisor=1), mask.shape[0], 1)


def _over_time(label: str, rank: int) -> None:
    if rank != 1:
        raise ShapeError(
            f"{label}: expected a sequence of 3 dimensions with lengths, got an image; leave out "
            "lengths"
        )


publish(globals(), FunctionType)
