"""Up-sampling: more places along each axis, by copies or by linear interpolation."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.value import Value
from fastnn.ops.declare import Operand, floats, op
from fastnn.ops.indexing import take
from fastnn.ops.layout import check_scales, each, extents_of, from_last, to_last
from fastnn.ops.lengths import checked_lengths, places_of
from fastnn.ops.linear import linear
from fastnn.ops.operands import as_value, float_value
from fastnn.ops.shape import expand, reshape, transpose
from fastnn.public import publish


def upsample(
    x: Operand, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, channels: str = "first", lengths: Any = None,
) -> Any:  # fmt: skip
    """Enlarge sequences or images, as PyTorch's `interpolate`.

    Args:
        x: shape (N, C, T) or (N, C, H, W), or with ``channels="last"`` (N, T, C) or (N, H, W, C).
        size: places of the result, one number or one for each axis; or
        scale_factor: how often the input's, rounded down.
        mode: "nearest", or "linear" (between the two neighbours of each axis, which for images is
            also called "bilinear").
        align_corners: for "linear": whether the first and last places of input and output are the
            same; otherwise (None too) their outer edges are.
        channels: where the channels are, "first" or "last".
        lengths: of sequences, number of valid steps of each, integers of shape (N,): each is
            enlarged by itself (to `size` places, or `scale_factor` times its length, rounded down),
            and past its end outputs are 0.

    Returns:
        Shape (N, C, places), (N, C, rows, columns) or with the channels last; with `lengths` also
        how many places are valid.

    Raises:
        ShapeError, OptionError: sizes or options that do not fit; lengths of images.

    >>> testing.apply(lambda x: ops.upsample(x, scale_factor=2), [[[1.0, 2.0]]])
    array([[[1., 1., 2., 2.]]])
    """
    x = float_value(x, "upsample")
    rank, label = x.ndim - 2, f"{where(x.graph.scope)}upsample"
    x = to_last(x, rank if rank in (1, 2) else 2, channels, label)
    extents = extents_of(x, label)
    if mode not in ("nearest", "linear", "bilinear") or (mode == "bilinear" and rank == 1):
        raise OptionError(
            f"{label}: expected mode 'nearest' or 'linear' ('bilinear' for images), got {mode!r}"
        )
    if (size is None) == (scale_factor is None):
        raise OptionError(f"{label}: expected either size or scale_factor; give one of the two")
    scales: tuple[float, ...] | None = None
    given: tuple[float, ...] = ()
    if size is not None:
        out = each(label, "size", size, rank)
    else:
        given = check_scales(label, scale_factor, rank)
        scales = tuple(1.0 / s for s in given)
        out = tuple(int(n * s) for n, s in zip(extents, given, strict=True))
        each(label, "the size after scaling", out, rank)
    if lengths is not None:
        if rank != 1:
            raise ShapeError(
                f"{label}: expected a sequence of 3 dimensions with lengths, got an image; leave "
                "out lengths"
            )
        lengths = checked_lengths(x.graph, lengths, x.shape[0], x.shape[1], "upsample")
        scale = 0.0 if scales is None else given[0]
        y = _stretch(x, lengths, out[0], scale, 0 if mode == "nearest" else 1 + bool(align_corners))
        return from_last(y, channels), places_of(lengths, scale, 0 if scale else out[0])
    for axis, places in enumerate(out, 1):
        step = x.shape[axis] / places if scales is None else scales[axis - 1]
        if mode == "nearest":
            x = _nearest(x, axis, places, step)
        else:
            x = _interpolated(x, axis, _weights(x.shape[axis], places, step, bool(align_corners)))
    return from_last(x, channels)


@op(linear=("x",), constant=("lengths",))
def _stretch(x: Value, lengths: Value, places: int, scale: float, mode: int) -> Value:
    """x (N, T, C): each sequence `scale` times as long, or if that is 0, of `places`; (N, places,
    C). `mode`: 0 nearest, 1 linear, 2 linear with the ends aligned."""
    return floats(x.shape[0], places, x.shape[2])


def _nearest(x: Value, axis: int, places: int, step: float) -> Value:
    """Copies of places of an axis: which ones, is found as PyTorch finds it, in float32, and images
    of one or two times the size have each place so many times, whatever the factor says."""
    count, shape = x.shape[axis], x.shape
    at = np.arange(places)
    if x.ndim == 4 and places in (count, 2 * count):
        sources = at * count // places
    else:
        found = np.floor(at.astype(np.float32) * np.float32(step)).astype(np.int64)
        sources = np.minimum(found, count - 1)
    if places % count == 0 and np.array_equal(sources, at * count // places):
        times = places // count
        wide = reshape(x, *shape[: axis + 1], 1, *shape[axis + 1 :])
        wide = expand(wide, *shape[: axis + 1], times, *shape[axis + 1 :])
        return reshape(wide, *shape[:axis], places, *shape[axis + 1 :])
    return take(x, sources, axis)


def _weights(count: int, places: int, step: float, align: bool) -> np.ndarray:
    """The matrix (count, places) that interpolates along an axis."""
    if align:
        at = np.arange(places) * ((count - 1) / (places - 1) if places > 1 else 0.0)
    else:
        at = np.maximum((np.arange(places) + 0.5) * step - 0.5, 0.0)
    low = np.minimum(np.floor(at).astype(np.int64), count - 1)
    high = np.minimum(low + 1, count - 1)
    found = np.zeros((count, places))
    share = np.where(low < count - 1, at - low, 0.0)
    np.add.at(found, (low, np.arange(places)), 1.0 - share)
    np.add.at(found, (high, np.arange(places)), share)
    return found


def _interpolated(x: Value, axis: int, weights: np.ndarray) -> Value:
    order = (*(d for d in range(x.ndim) if d != axis), axis)
    y = linear(transpose(x, order), as_value(x.graph, weights))
    back = list(range(x.ndim - 1))
    back.insert(axis, x.ndim - 1)
    return transpose(y, back)


publish(globals(), FunctionType)
