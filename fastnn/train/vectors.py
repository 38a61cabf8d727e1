"""Vectors that have a number for each number of a model's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastnn import optim
from fastnn.errors import DataError
from fastnn.graph.leaf import as_seen

#: columns of a matrix that are copied at a time
COLUMNS = 64


class VectorMemory(optim.Optimizer):
    """Memory for a vector and its product, beside the parameters."""

    name = "vectors"
    scalars = staticmethod(lambda t, lr: ())

    def __init__(self) -> None:
        super().__init__(lr=0.0)

    @property
    def slots(self) -> tuple[str, ...]:
        return "vector", "product"


class Place(NamedTuple):
    """A parameter in a flat vector, where it begins at `begin`, and in flat memory."""

    name: str
    begin: int
    size: int
    shape: tuple[int, ...]
    offset: int
    stored: tuple[int, ...]
    transposed: bool

    def part(self, vector: np.ndarray) -> np.ndarray:
        """Of a flat vector."""
        return vector[self.begin : self.begin + self.size].reshape(self.shape)

    def seen(self, memory: np.ndarray) -> np.ndarray:
        """Of flat memory, as users see it."""
        view = memory[self.offset : self.offset + self.size].reshape(self.stored)
        return as_seen(view) if self.transposed else view


def copy_blocks(source: np.ndarray, target: np.ndarray) -> None:
    """target = source: some columns of a matrix at a time, so that one of them that is transposed
    stays in the cache."""
    if source.ndim != 2 or source.flags.c_contiguous == target.flags.c_contiguous:
        target[...] = source
        return
    for begin in range(0, source.shape[1], COLUMNS):
        target[:, begin : begin + COLUMNS] = source[:, begin : begin + COLUMNS]


def parts_of(v: Any, places: Sequence[Place]) -> list[np.ndarray]:
    """A vector's part for each parameter.

    Raises DataError: `v` is neither a dict with an array for each, nor flat and as long as all.
    """
    names = [place.name for place in places]
    if isinstance(v, Mapping):
        if set(v) != set(names):
            odd = sorted(set(v) ^ set(names))[0]
            raise DataError(
                f"the vector: expected an array for each of {names}, got {list(v)}; "
                f"the difference begins with {odd!r}"
            )
        found = [np.asarray(v[name]) for name in names]
        for place, part in zip(places, found, strict=True):
            if part.shape != place.shape:
                raise DataError(
                    f"the vector: expected shape {place.shape} for {place.name!r}, got {part.shape}"
                )
        return found
    flat, size = np.asarray(v), places[-1].begin + places[-1].size
    if flat.shape != (size,):
        raise DataError(
            f"the vector: expected a dict of arrays by name, or one of shape ({size},), got "
            f"shape {flat.shape}"
        )
    return [place.part(flat) for place in places]
