"""Spans that move in loops, against all of their places; the proof about loops against a run."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fastnn.kernels.declare import Array
from fastnn.plan.history import History
from fastnn.plan.instruction import Access
from fastnn.plan.schedule import _Touched
from fastnn.plan.spans import Span, alike, apart

SETTINGS = settings(max_examples=400, deadline=None, derandomize=True)
LENGTHS = (3, 4)


def spans(depth: int) -> Any:
    strides = st.tuples(*[st.sampled_from([-12, -6, -4, -3, -1, 0, 0, 2, 3, 4, 6, 12])] * depth)
    return st.builds(
        lambda begin, size, moving: Span(begin, begin + size, moving, LENGTHS[:depth]),
        st.integers(40, 60), st.integers(1, 6), strides,
    )  # fmt: skip


def places(span: Span) -> list[tuple[tuple[int, ...], range]]:
    """In each combination of steps, where it is."""
    found = []
    for first in range(LENGTHS[0]):
        for second in range(LENGTHS[1]) if len(span.strides) > 1 else (0,):
            steps = (first, second)[: len(span.strides)]
            by = sum(s * t for s, t in zip(span.strides, steps, strict=True))
            found.append((steps, range(span.begin + by, span.end + by)))
    return found


@SETTINGS
@given(depth=st.integers(1, 2), shared=st.integers(0, 2), data=st.data())
def test_apart_and_alike(depth: int, shared: int, data: Any) -> None:
    a, b = data.draw(spans(depth)), data.draw(spans(depth))
    shared = min(shared, depth)
    met = [
        (x, y)
        for s, x in places(a)
        for t, y in places(b)
        if s[:shared] == t[:shared] and set(x) & set(y)
    ]
    if apart(a, b, shared):
        assert not met
    if alike(a, b, shared):
        assert all(x == y for x, y in met)


def test_whoever_touched_spans_that_overlap_is_waited_for() -> None:
    touched = _Touched()

    def access(begin: int, end: int, writes: bool) -> Access:
        span = Span(begin, end)
        return Access(None, not writes, writes, "whole", span, 0, span, begin, end)  # type: ignore

    def before(begin: int, end: int, writes: bool = False) -> set[int]:
        return set(touched.before(access(begin, end, writes)))

    for user, (begin, end) in enumerate([(0, 10), (5, 15), (20, 30)]):
        touched.note(access(begin, end, True), user)
    assert [before(12, 14), before(6, 8), before(0, 2)] == [{1}, {0, 1}, {0}]
    assert [before(15, 20), before(14, 21)] == [set(), {1, 2}]
    touched.note(access(8, 25, False), 3)
    assert [before(24, 26), before(24, 26, True)] == [{2}, {2, 3}]


def test_what_is_apart_or_alike() -> None:
    slices, halves = Span(0, 4, (4,), (5,)), Span(4, 6, (4,), (5,))
    assert alike(slices, Span(4, 8, (4,), (5,)))  # a state's slice, and the next
    assert alike(slices, Span(8, 12, (0,), (1,)))  # and one slice of them all
    assert not apart(slices, Span(8, 12, (0,), (1,)))
    assert apart(slices, Span(4, 8, (4,), (5,)), 1)  # in the same step
    assert not alike(slices, Span(0, 20, (0,), (5,)))
    assert not alike(slices, halves)
    assert apart(Span(0, 2, (4,), (5,)), Span(2, 4, (4,), (5,)))  # halves of slices
    assert not alike(
        Span(0, 4, (2,), (5,)), Span(0, 4, (2,), (5,))
    )  # one step's lies on the next's


SIZE = 40
#: what a call does, where, whose memory it is, and how the place moves
Touch = tuple[str, int, int, int, tuple[int, ...]]


def touches(depth: int) -> Any:
    strides = [st.sampled_from([0, 0, 4, 4, 2, -4])] * depth
    return st.tuples(
        st.sampled_from(["in", "in", "out", "out", "out", "scratch"]),
        st.integers(6, 10).map(lambda k: 2 * k),
        st.just(4), st.sampled_from([1, 1, 1, 2]), st.tuples(*strides),
    )  # fmt: skip


class Faults(History):
    """Finds the reads of what is not there; `exact` runs every step, otherwise by the proof."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def touch(self, touch: Touch) -> None:
        mode, begin, size, owner, strides = touch
        if mode == "in":
            byte = self.missing("memory", begin, begin + size, owner, False, strides)
            self.found += byte is not None
        else:
            parameter = Array(mode, "rows", "f", ("N", "C"))
            self.note("memory", parameter, begin, begin + size, owner, None, strides)


def run(
    before: list[Touch], body: list[Touch], inner: list[Touch], after: list[Touch], length: int
) -> int:
    """Reads of what nobody has written, all steps made one by one."""
    memory: dict[int, int] = {}
    found = 0

    def do(touch: Touch, steps: tuple[int, ...]) -> None:
        nonlocal found
        mode, begin, size, owner, strides = touch
        begin += sum(s * t for s, t in zip(strides, steps, strict=True))
        for place in range(begin, begin + size):
            if mode == "in":
                found += memory.get(place) != owner
            else:
                memory[place] = owner if mode == "out" else 0

    for touch in before:
        do(touch, ())
    for t in range(length):
        for touch in body:
            do(touch, (t,))
        for u in range(3):
            for touch in inner:
                do(touch, (t, u))
    for touch in after:
        do(touch, ())
    return found


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(
    before=st.lists(touches(0), max_size=3),
    body=st.lists(touches(1), max_size=4),
    inner=st.lists(touches(2), max_size=3),
    after=st.lists(touches(0), max_size=2),
    length=st.integers(1, 5),
)
def test_what_is_proved_holds_in_every_step(
    before: list[Touch], body: list[Touch], inner: list[Touch], after: list[Touch], length: int
) -> None:
    whole: list[Touch] = [("out", 0, SIZE, owner, ()) for owner in (1,)]
    before = whole + before
    history = Faults()
    for touch in before:
        history.touch(touch)

    def inside() -> None:
        for touch in inner:
            history.touch(touch)

    def step() -> None:
        for touch in body:
            history.touch(touch)
        history.follow(3, inside)

    history.follow(length, step)
    for touch in after:
        history.touch(touch)
    if not history.found:
        assert run(before, body, inner, after, length) == 0


def test_what_is_proved() -> None:
    """The ways in which loops use memory are all accepted."""
    n = 4

    def faults(*items: Any, length: int = 50) -> int:
        history = Faults()
        for item in items:
            if isinstance(item, list):
                history.follow(length, lambda: [history.touch(t) for t in item] and None)  # noqa: B023
            else:
                history.touch(item)
        return history.found

    sequence: Touch = ("in", 0, n, 1, (n,))
    state: Touch = ("in", 1000, n, 2, (n,))
    new: Touch = ("out", 1000 + n, n, 2, (n,))
    first: Touch = ("out", 1000, n, 2, ())
    whole: Touch = ("out", 0, 50 * n, 1, ())
    everything: Touch = ("in", 1000, 51 * n, 2, ())
    assert faults(whole, first, [sequence, state, new], everything) == 0
    assert faults(whole, [sequence, state, new]) > 0  # no first state
    assert faults(("out", 0, 49 * n, 1, ()), first, [sequence, state, new]) > 0  # a step short
    assert faults(whole, first, [sequence, state, new], ("in", 1000, 52 * n, 2, ())) > 0
    assert faults(whole, first, [state, ("out", 1000 + n, n, 2, (2 * n,))]) > 0
    running: Touch = ("out", 3000, n, 3, (0,))
    assert faults(("out", 3000, n, 3, ()), [("in", 3000, n, 3, (0,)), running]) == 0
    assert faults([("in", 3000, n, 3, (0,)), running]) > 0
    taken: Touch = ("scratch", 3000, n, 4, (0,))
    assert faults(("out", 3000, n, 3, ()), [("in", 3000, n, 3, (0,)), taken]) > 0
    halves: list[Touch] = [("out", 0, 2, 1, (4,)), ("out", 2, 2, 1, (4,))]
    assert faults(halves, ("in", 0, 200, 1, ())) == 0
    assert faults(halves[:1], ("in", 0, 200, 1, ())) > 0
    assert faults(halves[:1], [("in", 0, 2, 1, (4,))]) == 0
    backward: list[Touch] = [("in", 196, 4, 1, (-4,)), ("out", 3000, 4, 2, (0,))]
    assert faults(whole, backward, ("in", 3000, 4, 2, ())) == 0
