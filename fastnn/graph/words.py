"""Constants whose contents follow from sizes that vary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastnn.graph.following import plain
from fastnn.graph.sizes import at, real


class Words:
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
        return np.full(shape, at(self.numbers, values), self.array.dtype)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        return np.array(self._plain(), *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain(), name)

    def _plain(self) -> np.ndarray:
        numbers = self.numbers if isinstance(self.numbers, list) else [self.numbers]
        for number in _flat(numbers):
            plain(number)
        return self.array


def first(data: Any) -> Any:
    """The first number of a constant's contents, as a float."""
    if type(data) is Words and not isinstance(data.numbers, list):
        return real(data.numbers)
    return float(data.reshape(-1)[0])


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
