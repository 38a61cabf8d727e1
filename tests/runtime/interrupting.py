"""Ctrl-C at chosen and at random moments."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import fastnn

PACKAGE = str(Path(fastnn.__file__).parent)
Arm = Callable[[float, float], None]


def moments(function: Callable[[], Any], event: str = "opcode") -> int:
    """How many places there are at which `interrupt_at` could interrupt a function."""
    return _traced(function, [], event)


def interrupt_at(function: Callable[[], Any], number: int, event: str = "opcode") -> bool:
    """Call a function with a KeyboardInterrupt before its n-th instruction in fastnn (or its n-th
    line in fastnn's training and runtime); returns whether it came through."""
    try:
        _traced(function, [number], event)
    except KeyboardInterrupt:
        return True
    return False


def _traced(function: Callable[[], Any], numbers: list[int], event: str) -> int:
    count, pending = 0, sorted(numbers)
    # (planning is long, and makes objects that are new)
    folders = (PACKAGE,) if event == "opcode" else (PACKAGE + "/train", PACKAGE + "/runtime")

    def local(frame: FrameType, what: str, argument: Any) -> Any:
        nonlocal count
        if what == event:
            count += 1
            if pending and count > pending[0]:
                pending.pop(0)
                raise KeyboardInterrupt
        return local

    def trace(frame: FrameType, what: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(folders):
            return None
        frame.f_trace_opcodes = event == "opcode"
        return local

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


@contextmanager
def alarms() -> Iterator[Arm]:
    """KeyboardInterrupt from a timer, wherever fastnn is then; outside of it nothing is raised.

    Gives `arm(after, repeat)`, in seconds; zeros disarm it.
    """

    every = 0.0

    def ring(number: int, frame: FrameType | None) -> None:
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        # only now is the next one set off: a handler slower than the timer would interrupt itself
        signal.setitimer(signal.ITIMER_REAL, every)
        if frame is not None:
            raise KeyboardInterrupt

    def arm(after: float, repeat: float = 0.0) -> None:
        nonlocal every
        every = repeat
        signal.setitimer(signal.ITIMER_REAL, after)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield arm
    finally:
        arm(0.0)
        signal.signal(signal.SIGALRM, before)
