"""What memory holds while loops run: the proof, by induction, that no step reads what none wrote.

A loop's body is followed twice. Its first step reads what was there before the loop, or what it has
written itself. The second stands for every later one: it reads what its own step or the one before
has written at the place that moves on alike (a carried state), or what was there before the loop at
the places of all steps and was not taken over since. After the loop the places of all steps count
as written.

Of a loop that ends where its sequences do (`Repeat.running`) any step may be the first to be made
in reverse, and what it writes is there only for those who go by the same ends (`Until`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fastnn.kernels.declare import Array
from fastnn.plan.coverage import (
    GAPS,
    WHOLE,
    Coverage,
    Moving,
    Share,
    Span,
    State,
    Until,
    merged,
    note,
)
from fastnn.plan.strides import Strides, hull

#: a piece of memory: the name of a segment, or which value's own
Piece = str | int
#: a place that a loop's steps write to: piece of memory, from, to (in all steps), whose it is then
#: (None: nobody's), and how it moves
Taken = tuple[Piece, int, int, int | None, Strides]


class _Parts(NamedTuple):
    """Parts of a place, in the first step of all loops around: how these and it move."""

    piece: Piece
    begin: int
    end: int
    owner: int
    gaps: bool
    shares: list[Share]
    by: tuple[int, ...]
    strides: Strides


class _Loop:
    """A loop that is being followed."""

    def __init__(self, length: int, running: Hashable, reverse: bool):
        self.length, self.step = length, 0
        self.running = running
        #: whether any step may be the first to be made
        self.anywhere = reverse and running is not None
        #: what its steps have written, apart for places that move differently
        self.covers: dict[tuple[Piece, Strides], Coverage] = {}
        self.taken: dict[Taken, None] = {}
        self.once: dict[tuple[Piece, Strides], list[Span]] = {}  # what one step writes
        #: parts that are others in each step, and how places and parts move
        self.parts: list[_Parts] = []

    def end_step(self) -> None:
        if self.step == 0:
            self.once = {key: list(cover.spans) for key, cover in self.covers.items()}


class History:
    """What pieces of memory hold, at a point of a program with loops.

    Places are given as they are in the first step of all loops around, with their strides.
    """

    def __init__(self) -> None:
        self.covers: dict[Piece, Coverage] = {}
        self.loops: list[_Loop] = []

    def follow(
        self, length: int, body: Callable[[], None], running: Hashable = None,
        reverse: bool = False,
    ) -> None:  # fmt: skip
        """A loop of so many steps, `body` being one.

        Args:
            running: the piece of memory that says which steps are made; None: all are.
            reverse: whether steps are left out at the beginning, not at the end.
        """
        loop = _Loop(length, running, reverse)
        self.loops.append(loop)
        body()
        loop.end_step()
        if length > 1:
            loop.step = 1
            body()
        self.loops.pop()
        self._after(loop)

    def drop(self, piece: Piece) -> None:
        """Forget a piece of memory: what comes finds nothing in it."""
        self.covers.pop(piece, None)
        for loop in self.loops:
            for key in [key for key in loop.covers if key[0] == piece]:
                del loop.covers[key]
            for taken in [taken for taken in loop.taken if taken[0] == piece]:
                del loop.taken[taken]

    def cover(self, piece: Piece) -> Coverage:
        """What is written of a piece of memory outside of loops."""
        return self.covers.setdefault(piece, Coverage())

    def missing(
        self, piece: Piece, begin: int, end: int, owner: int, gaps: bool, strides: Strides = (),
        running: Sequence[Hashable] = (),
    ) -> int | None:  # fmt: skip
        """The first position that does not hold the owner's data, in some step, or None."""
        ended = {*running, *(loop.running for loop in self.loops)} - {None}
        return self._missing(len(self.loops), piece, begin, end, owner, gaps, strides, ended)

    def _missing(
        self, depth: int, piece: Piece, begin: int, end: int, owner: int, gaps: bool,
        strides: Strides, ended: set[Hashable],
    ) -> int | None:  # fmt: skip
        if depth == 0:
            return self.cover(piece).missing(begin, end, owner, gaps, ended)
        loop, strides, stride = self.loops[depth - 1], strides[:depth], strides[depth - 1]
        cover, at = loop.covers.get((piece, strides)), stride * loop.step
        if cover is not None and cover.missing(begin + at, end + at, owner, gaps, ended) is None:
            return None
        outer = strides[:-1]
        if loop.step == 0 and not loop.anywhere:
            if self._taken(depth, piece, begin, end, owner, outer):
                return begin
            return self._missing(depth - 1, piece, begin, end, owner, gaps, outer, ended)
        first = loop.step
        low, high = hull(
            begin + stride * first, end + stride * first, (stride,), (loop.length - first,)
        )
        if self._taken(depth, piece, low, high, owner, outer):
            return begin
        byte = self._missing(depth - 1, piece, low, high, owner, gaps, outer, ended)
        if byte is not None and abs(stride) > end - begin:  # of what lies between nothing is read
            for t in range(first, loop.length):
                by = stride * t
                found = self._missing(
                    depth - 1, piece, begin + by, end + by, owner, gaps, outer, ended
                )
                if found is not None:
                    return found
            return None
        return byte

    def _lengths(self, depth: int) -> list[int]:
        return [loop.length for loop in self.loops[:depth]]

    def _taken(
        self, depth: int, piece: Piece, begin: int, end: int, owner: int, outer: Strides
    ) -> bool:
        """Whether a step may have taken over something of a place that another owns."""
        low, high = hull(begin, end, outer, self._lengths(depth - 1))
        return any(
            p == piece and b < high and low < e and mine != owner
            for p, b, e, mine, _ in self.loops[depth - 1].taken
        )

    def note(
        self, piece: Piece, parameter: Array, begin: int, end: int, owner: int,
        share: Share | Moving | None, strides: Strides = (),
    ) -> None:  # fmt: skip
        """Enter what a call does to a place.

        Parts that are others in each step of a loop make up a whole at its end.
        """
        if isinstance(share, Moving) and parameter.mode == "part":
            if begin < end:
                loop = self.loops[-1]
                low, high = hull(begin, end, strides, self._lengths(len(self.loops)))
                self._take(loop, (piece, low, high, owner, strides))
                parts = _Parts(
                    piece, begin, end, owner, parameter.gaps, [share.first], share.by, strides
                )
                loop.parts += [parts] if loop.step == 0 else []
            return
        share = None if isinstance(share, Moving) else share
        if not self.loops:
            note(self.cover(piece), parameter, begin, end, owner, share)
        elif parameter.writes and begin < end:
            loop = self.loops[-1]
            cover, at = (
                loop.covers.setdefault((piece, strides), Coverage()),
                strides[-1] * loop.step,
            )
            note(cover, parameter, begin + at, end + at, owner, share)
            low, high = hull(begin, end, strides, self._lengths(len(self.loops)))
            mine = None if parameter.mode == "scratch" else owner
            self._take(loop, (piece, low, high, mine, strides))

    def _take(self, loop: _Loop, taken: Taken) -> None:
        piece, low, high, owner, strides = taken
        for (other, moving), cover in loop.covers.items():
            if other == piece and moving != strides:
                cover.forget_others(low, high, owner)
        if loop.step == 0:
            loop.taken[taken] = None

    def _after(self, loop: _Loop) -> None:
        """Enter what a loop as a whole has done."""
        around = self.loops[-1] if self.loops else None
        for piece, low, high, owner, strides in loop.taken:
            if around is None:
                self.cover(piece).forget_others(low, high, owner)
            else:
                for (other, _), cover in around.covers.items():
                    if other == piece:
                        cover.forget_others(low, high, owner)
                self._take(around, (piece, low, high, owner, strides[:-1]))
        for parts in loop.parts:
            self._join(loop, parts, around)
        for (piece, strides), spans in loop.once.items():
            outer = strides[:-1]
            if around is None:
                cover, at = self.cover(piece), 0
            else:
                cover = around.covers.setdefault((piece, outer), Coverage())
                at = outer[-1] * around.step
            for begin, end, owner, state in spans:
                for b, e in _everywhere(begin, end, strides[-1], loop.length, state):
                    for low, high in _undisputed(b, e, piece, owner, strides, loop.taken):
                        if loop.running is None:
                            _put(cover, low + at, high + at, owner, state)
                        elif (
                            not isinstance(state, tuple)
                            and self.missing(piece, low, high, owner, state == GAPS, outer)
                            is not None
                        ):  # else it is there, whichever steps are made
                            cover.write_until(
                                low + at, high + at, owner, Until(loop.running, state)
                            )

    def _join(self, loop: _Loop, parts: _Parts, around: _Loop | None) -> None:
        """Enter parts that all steps of a loop have written, each others."""
        piece, begin, end, owner, gaps, shares, by, strides = parts
        apart = _undisputed(begin, end, piece, owner, strides, loop.taken) != [(begin, end)]
        if loop.running is not None or strides[-1] or apart:
            return  # nobody knows which of them are there
        every = merged(
            (first + t * by[-1], last + t * by[-1], of)
            for first, last, of in shares
            for t in range(loop.length)
        )
        outer = strides[:-1]
        if around is not None and any(by[:-1]):
            rest = _Parts(piece, begin, end, owner, gaps, every, by[:-1], outer)
            around.parts += [rest] if around.step == 0 else []
            return
        cover, at = self.cover(piece), 0
        if around is not None:
            cover = around.covers.setdefault((piece, outer), Coverage())
            at = outer[-1] * around.step
        for share in every:
            cover.write_share(begin + at, end + at, owner, share, gaps)


def _everywhere(
    begin: int, end: int, stride: int, length: int, state: State
) -> Iterator[tuple[int, int]]:
    """The places that a span has in a loop's steps, as few spans."""
    if stride == 0 or length == 1:
        yield begin, end
    elif not isinstance(state, tuple):  # parts of a place that moves never make up a whole
        if abs(stride) <= end - begin:
            yield hull(begin, end, (stride,), (length,))
        else:
            for t in range(length):
                yield begin + stride * t, end + stride * t


def _undisputed(
    begin: int, end: int, piece: Piece, owner: int, strides: Strides, taken: Mapping[Taken, None]
) -> list[tuple[int, int]]:
    """The parts of a span that nothing moving in another way takes for another owner."""
    parts = [(begin, end)]
    for other, low, high, theirs, moving in taken:
        if other == piece and theirs != owner and moving != strides and low < end and begin < high:
            cut = [((b, min(e, low)), (max(b, high), e)) for b, e in parts]
            parts = [(b, e) for two in cut for b, e in two if b < e]
    return parts


def _put(cover: Coverage, begin: int, end: int, owner: int, state: State) -> None:
    if state in (WHOLE, GAPS):
        cover.write(begin, end, owner, state == GAPS)
    elif isinstance(state, Until):
        cover.write_until(begin, end, owner, state)
    for share in state if isinstance(state, tuple) else ():
        cover.write_share(begin, end, owner, share, gaps=True)


def masks_followed(parameter: Array, pieces: Iterable[Hashable]) -> Sequence[Hashable]:
    """The memory of a call that may hold the mask of a loop, by which an operand knows which steps
    were made: an operand whose gaps are filled goes by any other operand of its call."""
    return list(pieces) if parameter.mode == "inout" and parameter.gaps else ()
