"""What a graph knows of parameters: arrays outside of it, at places in segments of memory."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


def seen_axes(rank: int) -> tuple[int, ...]:
    """The axes of memory in the order that users see, of what is kept transposed: (*kernel, in,
    out) in memory is (out, in, *kernel), and of a matrix (in, out) is (out, in)."""
    return (rank - 1, rank - 2, *range(rank - 2))


def stored_axes(rank: int) -> tuple[int, ...]:
    """The reverse of `seen_axes`."""
    return (*range(2, rank), 1, 0)


def as_seen(stored: np.ndarray) -> np.ndarray:
    """A view of what lies transposed in memory, in the shape that users see."""
    return stored.transpose(seen_axes(stored.ndim))


def as_stored(seen: np.ndarray) -> np.ndarray:
    """The reverse of `as_seen`."""
    return seen.transpose(stored_axes(seen.ndim))


def strides_of(stored: tuple[int, ...], item: int) -> tuple[int, ...]:
    """Distances in bytes along the axes that users see, of what lies transposed."""
    found = [item]
    for extent in reversed(stored[1:]):
        found.insert(0, found[0] * extent)
    return tuple(found[d] for d in seen_axes(len(stored)))


class Leaf(ABC):
    """Base of parameters and buffers, which lie in memory that outlives every graph.

    Attributes:
        offset: where it begins in its segment, in elements; None: nowhere yet.
    """

    __slots__ = ()
    offset: int | None

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape users see."""

    @property
    @abstractmethod
    def transposed(self) -> bool:
        """Whether it is kept transposed in memory."""

    @property
    @abstractmethod
    def storage_shape(self) -> tuple[int, ...]:
        """The shape in memory."""

    @property
    @abstractmethod
    def segment(self) -> str:
        """Name of the segment that it lies in."""
