"""Which memory holds data: the book-keeping behind every proof that nothing unwritten is read.

Positions are bytes of a segment for a planned program (`fastnn/plan/verify.py`), elements of a
value's memory for a step of a loop. `fastnn/plan/history.py` follows a program's loops with it.
"""

from __future__ import annotations

import bisect
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastnn.kernels.declare import Array, CudaKernel, Kernel

#: a part that a call writes: from, to (exclusive), of how many
Share = tuple[int, int, int]


class Moving(NamedTuple):
    """A part that is another one in each step of the loops around a call: in the first step of all
    of them, and by how much it moves on in each, the outermost first."""

    first: Share
    by: tuple[int, ...]


#: what a span holds: all of it, all but gaps that nobody may look at, or some shares of it
WHOLE, GAPS = "whole", "gaps"


@dataclass(frozen=True)
class Until:
    """What a loop has written in the steps that it made: up to where `running`, a piece of memory,
    says that sequences have ended.

    Attributes:
        running: whose memory.
        state: of the steps that were made.
    """

    running: Hashable
    state: State


State = str | Until | tuple[Share, ...]
Span = tuple[int, int, int, State]  # begin, end, owner, state


class Coverage:
    """What has been written of one piece of memory, and by which owner: spans that don't overlap.

    An owner is a number: of several buffers that use memory in turn, only what the reader's own
    has written counts.
    """

    def __init__(self) -> None:
        self.begins: list[int] = []
        self.spans: list[Span] = []  # sorted

    def missing(
        self, begin: int, end: int, owner: int, gaps: bool = False,
        running: Container[Hashable] = (),
    ) -> int | None:  # fmt: skip
        """The first position that does not hold the owner's data, or None.

        Args:
            gaps: whether the reader knows to leave out gaps that the writer left.
            running: what says which steps loops have made, as far as the reader goes by it.
        """
        k = max(bisect.bisect_right(self.begins, begin) - 1, 0)
        while begin < end and k < len(self.spans):
            first, last, mine, state = self.spans[k]
            if last > begin:
                if first > begin or mine != owner:
                    return begin
                while isinstance(state, Until) and state.running in running:
                    state = state.state
                if not (state == WHOLE or (gaps and state == GAPS)):
                    return begin
                begin = last
            k += 1
        return begin if begin < end else None

    def write(self, begin: int, end: int, owner: int, gaps: bool = False) -> None:
        self._put(begin, end, owner, GAPS if gaps else WHOLE)

    def write_until(self, begin: int, end: int, owner: int, state: Until) -> None:
        """A loop has written the span in the steps that it made."""
        self._put(begin, end, owner, state)

    def write_share(
        self, begin: int, end: int, owner: int, share: Share | None, gaps: bool = False
    ) -> None:
        """A part of the span is written: by and by, shares may make up the whole.

        None: nobody knows which part; then the span never counts as written by such calls.
        """
        if begin >= end or self.missing(begin, end, owner, gaps=True) is None:
            return  # it is all there already
        shares: tuple[Share, ...] = () if share is None else (share,)
        k = bisect.bisect_left(self.begins, begin)
        if share is not None and k < len(self.spans) and self.spans[k][:3] == (begin, end, owner):
            before = self.spans[k][3]
            shares = (*before, *shares) if isinstance(before, tuple) else shares
        full = GAPS if gaps else WHOLE
        self._put(begin, end, owner, full if _complete(shares) else shares)

    def forget(self, begin: int, end: int) -> None:
        """Nothing may be read here any more."""
        self._put(begin, end, 0, None)

    def forget_others(self, begin: int, end: int, owner: int | None) -> None:
        """Only what the owner (None: nobody) has written may be read here any more."""
        k = max(bisect.bisect_right(self.begins, begin) - 1, 0)
        others = []
        while k < len(self.spans) and self.spans[k][0] < end:
            first, last, mine, _ = self.spans[k]
            if mine != owner and last > begin:
                others.append((max(first, begin), min(last, end)))
            k += 1
        for span in others:
            self.forget(*span)

    def _put(self, begin: int, end: int, owner: int, state: State | None) -> None:
        if begin >= end:
            return
        first = max(bisect.bisect_right(self.begins, begin) - 1, 0)
        last = first
        kept: list[Span] = []
        while last < len(self.spans) and self.spans[last][0] < end:
            b, e, other, content = self.spans[last]
            cut: State = () if isinstance(content, tuple) else content
            if e <= begin:
                kept.append((b, e, other, content))
            else:
                kept += [(b, begin, other, cut)] if b < begin else []
                kept += [(end, e, other, cut)] if e > end else []
            last += 1
        if state is not None:
            kept.append((begin, end, owner, state))
        kept.sort(key=lambda span: span[0])
        self.spans[first:last] = kept
        self.begins[first:last] = [span[0] for span in kept]


def _complete(shares: Sequence[Share]) -> bool:
    """Whether shares of one number of equal pieces leave none out."""
    position = 0
    for first, last, of in sorted(shares):
        if of != shares[0][2] or first > position:
            return False
        position = max(position, last)
    return bool(shares) and position >= shares[0][2]


def share_of(
    kernel: Kernel | CudaKernel, sizes: Mapping[str, Any],
    moving: Mapping[str, Sequence[int]],
) -> Share | Moving | None:  # fmt: skip
    """Which part of its "part" arrays a call writes, as far as the kernel says.

    Args:
        sizes: by dimension letter, and the numbers among the operands, in the first step of loops.
        moving: of these by how much they move on in each of the loops, where they do.
    """
    if kernel.share is None:
        return None
    first = kernel.share(dict(sizes))
    if first is None or not moving:
        return first
    by = []
    for steps in zip(*moving.values(), strict=True):
        others = {name: sizes[name] + step for name, step in zip(moving, steps, strict=True)}
        begin, end, of = kernel.share({**sizes, **others})
        by.append(begin - first[0])
        if (end - first[1], of) != (by[-1], first[2]):
            return None
    return Moving(first, tuple(by))


def merged(shares: Iterable[Share]) -> list[Share]:
    """The same parts, neighbours as one."""
    found: list[Share] = []
    for first, last, of in sorted(shares):
        if found and found[-1][2] == of and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1]), of
        else:
            found.append((first, last, of))
    return found


def note(
    cover: Coverage, parameter: Array, begin: int, end: int, owner: int, share: Share | None
) -> None:
    """Enter what a call does to the memory of one of its operands."""
    if parameter.mode == "scratch":
        cover.forget(begin, end)
    elif parameter.mode == "part":
        cover.write_share(begin, end, owner, share, parameter.gaps)
    elif parameter.writes:
        cover.write(begin, end, owner, parameter.gaps and parameter.mode != "inout")
