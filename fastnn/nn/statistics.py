"""Statistics of data that come in pieces, in float64: what layers that normalise are adapted to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, ShapeError, is_whole

#: elements that are looked at at a time
BLOCK = 1 << 20


class Moments:
    """Number, mean and sum of squared distances from the mean of each column, or, with `products`,
    the matrix of the sums of products of such distances.

    Pieces are merged by the formulas of Chan, Golub & LeVeque (1979), so that nothing large is
    subtracted from something large.
    """

    def __init__(self, products: bool = False):
        self.products, self.count = products, 0
        self.mean: Any = 0.0
        self.spread: Any = 0.0

    def add(self, rows: np.ndarray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            count, mean = len(rows), rows.mean(axis=0)
            apart = rows - mean
            total = self.count + count
            step = mean - self.mean
            if self.products:
                own, between = apart.T @ apart, np.multiply.outer(step, step)
            else:
                own, between = np.einsum("ij,ij->j", apart, apart), step * step
            self.spread = self.spread + own + between * (self.count * count / total)
            self.mean = self.mean + step * (count / total)
        if not np.isfinite(self.spread).all():
            raise DataError(
                f"adapt: expected numbers whose squares fit into float64, got "
                f"{np.abs(rows).max():.3g}; scale them"
            )
        self.count = total

    @property
    def constant(self) -> np.ndarray:
        """Which columns have no variance but what rounding leaves of a constant one."""
        spread = np.diag(self.spread) if self.products else self.spread
        limit = np.abs(self.count * np.finfo(float).eps * self.mean)
        found: np.ndarray = np.sqrt(spread / self.count) <= limit
        return found


class Extremes:
    """Number, least and largest of each column."""

    def __init__(self) -> None:
        self.count = 0
        self.low: Any = np.inf
        self.high: Any = -np.inf

    def add(self, rows: np.ndarray) -> None:
        self.low = np.minimum(self.low, rows.min(axis=0))
        self.high = np.maximum(self.high, rows.max(axis=0))
        self.count += len(rows)


class Everything:
    """All rows: quantiles have no smaller summary that is exact."""

    def __init__(self) -> None:
        self.count = 0
        self.pieces: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        self.pieces.append(rows.copy())
        self.count += len(rows)

    def quantiles(self, shares: tuple[float, ...]) -> np.ndarray:
        """Of each column, by linear interpolation."""
        found: np.ndarray = np.quantile(np.concatenate(self.pieces), shares, axis=0)
        return found


def pieces(data: Any, lengths: Any, mask: Any, shape: tuple[int, ...], name: str) -> Iterator[Any]:
    """The rows of data that count, a block at a time, as float64 of shape (rows, features).

    Args:
        data: an array of shape (..., *shape), or an iterable of such, or of pairs of such with
            their lengths.
        lengths: of sequences, shape (samples,), or None.
        mask: of what counts, of the shape before `shape`, or None.
        shape: of what one row is.
        name: of the layer, for messages.
    """
    if hasattr(data, "__array__") or not isinstance(data, Iterable) or isinstance(data, str):
        yield from _blocks(data, lengths, mask, shape, name)
        return
    if lengths is not None or mask is not None:
        raise DataError(
            f"{name}.adapt: expected lengths and mask with one array alone, got an iterable; "
            "let it give pairs (array, lengths)"
        )
    for chunk in data:
        own = chunk if isinstance(chunk, tuple) else (chunk, None)
        if len(own) != 2:
            raise DataError(
                f"{name}.adapt: expected arrays or pairs (array, lengths), got a tuple of "
                f"{len(own)}"
            )
        yield from _blocks(own[0], own[1], None, shape, name)


def _blocks(
    data: Any, lengths: Any, mask: Any, shape: tuple[int, ...], name: str
) -> Iterator[np.ndarray]:
    array = numbers(data, f"{name}.adapt: x")
    if array.ndim <= len(shape) or array.shape[-len(shape) :] != shape:
        sizes = ", ".join(map(str, shape))
        raise ShapeError(
            f"{name}.adapt: expected data of shape (samples, ..., {sizes}), got {array.shape}; "
            "features come last (chunks come in a list or another iterable)"
        )
    lead = array.shape[: -len(shape)]
    counts = _counted(lead, lengths, mask, name)
    width = int(np.prod(shape))
    rows = array.reshape(-1, width)
    step = max(1, BLOCK // width)
    for begin in range(0, len(rows), step):
        block = rows[begin : begin + step]
        if counts is not None:
            block = block[counts[begin : begin + step]]
        if not len(block):
            continue
        block = block.astype(np.float64)
        if not np.isfinite(block).all():
            row, column = np.argwhere(~np.isfinite(block))[0]
            raise DataError(
                f"{name}.adapt: expected finite numbers, got {block[row, column]} in feature "
                f"{column}; leave such samples out, or fill them in"
            )
        yield block


def _counted(lead: tuple[int, ...], lengths: Any, mask: Any, name: str) -> np.ndarray | None:
    """Which rows count: those within the lengths, or those of a mask; None: all."""
    if lengths is not None and mask is not None:
        raise DataError(f"{name}.adapt: expected lengths or a mask, got both; leave one out")
    if mask is not None:
        found = np.asarray(mask)
        if found.shape != lead or found.dtype.kind not in "bui":
            raise ShapeError(
                f"{name}.adapt: expected a mask of booleans of shape {lead}, got {found.dtype} of "
                f"shape {found.shape}"
            )
        return found.astype(bool).reshape(-1)
    if lengths is None:
        return None
    ends = np.asarray(lengths)
    if len(lead) != 2 or ends.shape != lead[:1] or ends.dtype.kind not in "ui":
        raise ShapeError(
            f"{name}.adapt: expected lengths, whole numbers of shape {lead[:1]}, with data of "
            f"shape (samples, steps, features), got {ends.dtype} of shape {ends.shape}"
        )
    if ends.size and (ends.min() < 0 or ends.max() > lead[1]):
        raise DataError(
            f"{name}.adapt: expected lengths within 0..{lead[1]}, got {ends.min()}..{ends.max()}"
        )
    within: np.ndarray = np.arange(lead[1]) < ends[:, None]
    return within.reshape(-1)


def sizes(name: str, features: Any) -> tuple[int, ...]:
    """The shape of what one row is, from a number or a tuple of numbers."""
    found = tuple(features) if isinstance(features, (tuple, list)) else (features,)
    if not found or not all(is_whole(n, 1) for n in found):
        raise ShapeError(
            f"{name}: expected the number of features, or the sizes of the last axes, all >= 1, "
            f"got {features!r}"
        )
    return tuple(int(n) for n in found)
