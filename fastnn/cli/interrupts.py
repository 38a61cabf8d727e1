"""Ctrl-C and SIGTERM for the commands: several are one, and none cuts off what is written."""

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
_terminated = _owed = False


def terminated() -> bool:
    """Whether SIGTERM has come since the command began."""
    return _terminated


@contextlib.contextmanager
def patiently() -> Iterator[None]:
    """Ctrl-C does nothing while something is written that it must not cut off; SIGTERM, which
    nobody sends again, waits for its end."""
    global _patient, _owed
    _patient += 1
    try:
        yield
    finally:
        _patient -= 1
    if _owed and not _patient:
        _owed = False
        raise KeyboardInterrupt


@contextlib.contextmanager
def one_interrupt() -> Iterator[None]:
    """Several Ctrl-C shortly after each other are one, and none cuts off what is written.

    (A key that is held, or a shell and a terminal that both send it.) SIGTERM, by which batch
    systems and containers end a process, comes as a Ctrl-C, and `terminated` says so.
    """
    global _terminated, _owed
    last = -math.inf

    def interrupt(number: int, frame: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if not _patient and now - last > TOGETHER:
            last = now
            raise KeyboardInterrupt

    def terminate(number: int, frame: Any) -> None:
        global _terminated, _owed
        _terminated, _owed = True, _patient > 0
        signal.raise_signal(signal.SIGINT)  # to whoever lets Ctrl-C wait

    try:
        before = signal.signal(signal.SIGINT, interrupt)
    except ValueError:  # not in the main thread: it gets no signals
        yield
        return
    _terminated = _owed = False
    asked = signal.getsignal(signal.SIGTERM)
    if asked is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, asked)
