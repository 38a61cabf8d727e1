"""Spans of memory that move from step to step of loops: where do two of them meet?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastnn.graph.sizes import gcd


class Span(NamedTuple):
    """From `begin` to `end` in the first step of all loops around, the outermost first.

    `strides` says how far it moves in each of them, `lengths` how many steps they have.
    """

    begin: int
    end: int
    strides: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()

    def hull(self) -> tuple[int, int]:
        """From where to where it moves."""
        begin, end = self.begin, self.end
        if not self.strides:
            return begin, end
        for stride, length in zip(self.strides, self.lengths, strict=True):
            far = stride * (length - 1)
            begin, end = begin + min(far, 0), end + max(far, 0)
        return begin, end

    def within(self, depth: int) -> Span:
        """As it is in one step of the `depth` outermost loops."""
        return Span(self.begin, self.end, self.strides[depth:], self.lengths[depth:])


def apart(a: Span, b: Span, shared: int = 0) -> bool:
    """Whether two spans never meet; of the `shared` outermost loops they are in the same step."""
    a, b = _seen(a, b, shared)
    (low, high), (begin, end) = a.hull(), b.hull()
    if high <= begin or end <= low:
        return True
    if not (a.strides or b.strides):
        return False
    grid = gcd(*a.strides, *b.strides)
    offset = (b.begin - a.begin) % grid if grid else 0
    return bool(grid) and a.end - a.begin <= offset and offset + b.end - b.begin <= grid


def alike(a: Span, b: Span, shared: int = 0) -> bool:
    """Whether the two, wherever they meet, are the very same span."""
    a, b = _seen(a, b, shared)
    if not (a.strides or b.strides):
        return (a.begin, a.end) == (b.begin, b.end)
    size, grid = a.end - a.begin, gcd(*a.strides, *b.strides)
    if not grid:
        return (a.begin, a.end) == (b.begin, b.end)
    return size == b.end - b.begin and size <= grid and (b.begin - a.begin) % grid == 0


def _seen(a: Span, b: Span, shared: int) -> Sequence[Span]:
    """Without the shared loops, where the two move alike in them."""
    if shared and a.strides[:shared] == b.strides[:shared]:
        return a.within(shared), b.within(shared)
    return a, b
