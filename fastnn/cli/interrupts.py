"""Ctrl-C for the commands: several at once are one, and none cuts off what is written."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from typing import Any

#: seconds within which further Ctrl-C count as one
TOGETHER = 1.0
_patient = 0


@contextlib.contextmanager
def patiently() -> Iterator[None]:
    """Ctrl-C does nothing while something is written that it must not cut off."""
    global _patient
    _patient += 1
    try:
        yield
    finally:
        _patient -= 1


@contextlib.contextmanager
def one_interrupt() -> Iterator[None]:
    """Several Ctrl-C shortly after each other are one, and none cuts off what is written.

    (A key that is held, or a shell and a terminal that both send it.)
    """
    last = -math.inf

    def interrupt(number: int, frame: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if not _patient and now - last > TOGETHER:
            last = now
            raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGINT, interrupt)
    except ValueError:  # not in the main thread: it gets no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
