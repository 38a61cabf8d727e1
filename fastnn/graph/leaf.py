"""What a graph knows of parameters: arrays outside of it, at places in segments of memory."""

from __future__ import annotations

from abc import ABC, abstractmethod


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
