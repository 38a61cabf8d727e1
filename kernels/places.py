"""Where operands of helpers lie: an array, taken as flat, with the place and the steps in it.

Helpers are inlined, and a named tuple costs nothing once it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where numbers lie: in `array`, from `at` on."""

    array: Any
    at: int


class Rows(NamedTuple):
    """Where the rows of a matrix lie: the first in `array` from `at` on, the others `stride`
    numbers after each other."""

    array: Any
    at: int
    stride: int


class Matrix(NamedTuple):
    """Where a matrix lies that may be transposed: element [i, t] is number `at + i*row + t*step` of
    `array`."""

    array: Any
    at: int
    row: int
    step: int
