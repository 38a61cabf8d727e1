"""Contents of constants: arrays with numbers that follow from sizes which vary, or with one number
everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastnn.graph.following import plain
from fastnn.graph.sizes import at, real


class SymbolicArray:
    """The contents of a constant, of which some follow from the sizes.

    Who looks at it as an array takes it for that of the sizes at hand, which is noted.

    Attributes:
        numbers: nested lists of them, or the one number that it is filled with.
        shape: of the array.
        array: the contents at the sizes at hand.
    """

    def __init__(self, numbers: Any, shape: tuple[Any, ...], array: np.ndarray):
        self.numbers, self.shape, self.array = numbers, shape, array

    def at(self, values: Sequence[int]) -> np.ndarray:
        """The contents at other sizes."""
        if isinstance(self.numbers, list):
            return np.array(_listed(self.numbers, values), self.array.dtype)
        shape = tuple(at(n, values) for n in self.shape)
        return everywhere(at(self.numbers, values), shape, self.array.dtype)

    def astype(self, dtype: Any) -> np.ndarray:
        return in_type(self._plain(), dtype)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        return np.array(self._plain(), *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain(), name)

    def _plain(self) -> np.ndarray:
        numbers = self.numbers if isinstance(self.numbers, list) else [self.numbers]
        for number in _flat(numbers):
            plain(number)
        return self.array


def everywhere(number: Any, shape: Sequence[int], dtype: Any = np.float64) -> np.ndarray:
    """An array with one number everywhere, that takes the memory of one."""
    return np.broadcast_to(np.array(number, dtype), tuple(shape))


def in_type(data: Any, dtype: Any) -> np.ndarray:
    """A constant's contents as another element type; one number everywhere stays one in memory."""
    if type(data) is SymbolicArray or not data.size or any(data.strides):
        found: np.ndarray = data.astype(dtype)
        return found
    return everywhere(data[(0,) * data.ndim], data.shape, dtype)


def first(data: Any) -> Any:
    """The first number of a constant's contents, as a float."""
    if type(data) is SymbolicArray and not isinstance(data.numbers, list):
        return real(data.numbers)
    return float(data.flat[0])


def known(data: Any) -> Any:
    """The number that a constant of some axes, made by `Graph.full`, is everywhere; None for other
    contents."""
    if type(data) is SymbolicArray:
        return None if isinstance(data.numbers, list) else real(data.numbers)
    if data is None or not data.ndim or not data.size or any(data.strides):
        return None
    return float(data.flat[0])


def _listed(numbers: Any, values: Sequence[int]) -> Any:
    if isinstance(numbers, list):
        return [_listed(n, values) for n in numbers]
    return at(numbers, values)


def _flat(numbers: list[Any]) -> Iterator[Any]:
    for number in numbers:
        if isinstance(number, list):
            yield from _flat(number)
        else:
            yield number
