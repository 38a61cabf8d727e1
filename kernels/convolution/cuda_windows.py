"""How a block copies slices of windows of images to shared memory: the factor of a product that is
never laid out in global memory.

Element (r, t) of such a factor is a number of an image. Where it lies is the sum of what its row r
and its term t contribute, and so are its line and its place in the line, by which it is known
whether it is inside of the image at all; outside it is 0. What rows contribute is computed once for
a block and lies in tables in shared memory (`Places`). A term has three digits, such as a window's
row, column and channel; each contributes a multiple of itself (`Steps`). A thread computes the
digits of its first term by division and then goes from term to term by adding the digits of the
distance, with carries.

The functions are those of `matmul/cuda_slices.py`, whose text says what they get.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..cuda.device import cuda
from ..cuda.tile import computed_here, copy1, copy4
from ..declare import helper
from ..matmul.cuda_slices import Shape, first_place, turns_of

#: a line that is outside of every image, however far a window reaches
OUTSIDE = -(1 << 30)


class Places(NamedTuple):
    """By the rows of a block's tile: where they begin in the image, in which line and place."""

    at: Any
    line: Any
    place: Any


class Digits(NamedTuple):
    """A term t is ``(first*middles + middle)*lasts + last``."""

    middles: int
    lasts: int


class Steps(NamedTuple):
    """By how much a term's digits move: on in the array, in lines, and in places of a line. (The
    last digit does not change the line, nor the first one the place, but in none of the products
    all three change the same.)"""

    first: int
    middle: int
    last: int
    lines_of_first: int
    lines_of_middle: int
    places_of_middle: int
    places_of_last: int


class Windows(NamedTuple):
    """A factor of windows of an image in `array` with lines 0 to `height` and places 0 to `width`.

    `fours`: four neighbouring rows of the factor are neighbours in memory, from multiples of 16
    bytes on, and either all inside or all outside (for slices by depth).
    """

    array: Any
    places: Places
    height: int
    width: int
    digits: Digits
    steps: Steps
    fours: bool


class Weights(NamedTuple):
    """A factor of numbers that are all there: element (t, j) lies at ``j*ld`` and what the digits
    of t contribute, from `at` on."""

    array: Any
    at: int
    ld: int
    digits: Digits
    steps: Steps


@helper
def short(number):
    """A number below 2^31 in 32 bits: half the instructions of the 64 that indices have."""
    return np.int32(number)


@helper
def digits_of(term, digits):
    """The first, middle and last digit of a term."""
    rest = term // digits.lasts
    first = rest // digits.middles
    return (
        short(first), short(rest - first * digits.middles), short(term - rest * digits.lasts),
    )  # fmt: skip


@helper
def further(term, step, digits):
    """The digits `term` + `step`."""
    last = short(term[2] + step[2])
    more = last >= digits.lasts
    last = short(last - digits.lasts) if more else last
    middle = short(term[1] + step[1] + (1 if more else 0))
    more = middle >= digits.middles
    middle = short(middle - digits.middles) if more else middle
    return short(term[0] + step[0] + (1 if more else 0)), middle, last


@helper
def moved(term, steps):
    """Where a term lies in the array."""
    return term[0] * steps.first + term[1] * steps.middle + term[2] * steps.last


def windows(by_depth: bool) -> Callable[[int, Shape], tuple[Callable[..., Any], ...]]:
    """What makes the two functions for `Windows`: their rows lie side by side in memory
    (`by_depth`), or their terms."""

    def window_slices(width: int, shape: Shape) -> tuple[Callable[..., Any], ...]:
        depth, row = shape.depth, width + shape.pad
        _, quad_depth, rows, row_depth = turns_of(width, shape)
        first_of = first_place(width, shape)
        stride = quad_depth if by_depth else row_depth  # terms from one of a thread's to the next

        @helper
        def begin(factor, first, limit, start):
            """The thread's first term, and what lies between two of its terms."""
            d, _ = first_of(cuda.threadIdx.x, by_depth)
            return digits_of(start + d, factor.digits), digits_of(stride, factor.digits)

        @helper
        def copy(memory, at, factor, state, first, limit, t, end):
            x, (places, lines, columns), height, wide, digits, steps, fours = factor
            term, step = state
            d0, i0 = first_of(computed_here(cuda.threadIdx.x), by_depth)
            to = at + d0 * row + i0
            for d in range(0, depth, stride):
                source = moved(term, steps)
                line = short(term[0] * steps.lines_of_first + term[1] * steps.lines_of_middle)
                column = short(term[1] * steps.places_of_middle + term[2] * steps.places_of_last)
                line = line if t + d0 + d < end else short(OUTSIDE)
                if by_depth and fours:
                    h, v = short(lines[i0] + line), short(columns[i0] + column)
                    inside = (h >= 0) & (h < height) & (v >= 0) & (v < wide)
                    copy4(memory, to + d * row, x, places[i0] + source, 4 if inside else 0)
                elif by_depth:
                    for i in range(4):
                        h, v = short(lines[i0 + i] + line), short(columns[i0 + i] + column)
                        inside = (h >= 0) & (h < height) & (v >= 0) & (v < wide)
                        copy1(memory, to + d * row + i, x, places[i0 + i] + source, inside)
                else:
                    for i in range(0, width, rows):
                        h, v = short(lines[i0 + i] + line), short(columns[i0 + i] + column)
                        inside = (h >= 0) & (h < height) & (v >= 0) & (v < wide)
                        copy1(memory, to + d * row + i, x, places[i0 + i] + source, inside)
                term = further(term, step, digits)
            return term, step

        return begin, copy

    return window_slices


def weight_slices(width: int, shape: Shape) -> tuple[Callable[..., Any], ...]:
    """The two functions for `Weights`, whose terms lie side by side in memory."""
    depth, row = shape.depth, width + shape.pad
    _, _, rows, stride = turns_of(width, shape)
    first_of = first_place(width, shape)

    @helper
    def begin(factor, first, limit, start):
        d, _ = first_of(cuda.threadIdx.x, False)
        return digits_of(start + d, factor.digits), digits_of(stride, factor.digits)

    @helper
    def copy(memory, at, factor, state, first, limit, t, end):
        x, begins, ld, digits, steps = factor
        term, step = state
        d0, i0 = first_of(computed_here(cuda.threadIdx.x), False)
        to = at + d0 * row + i0
        for d in range(0, depth, stride):
            source = begins + moved(term, steps) + (first + i0) * ld
            there = t + d0 + d < end
            for i in range(0, width, rows):
                exists = there & (first + i0 + i < limit)
                copy1(memory, to + d * row + i, x, source + i * ld, exists)
            term = further(term, step, digits)
        return term, step

    return begin, copy
