"""Who may use a model's memory: one thread trains it, or several read it.

An access is held by a call that is going on: it names the thread and the call's frame, and ends
with the call, even where a Ctrl-C or a fork kept it from saying so. So there is no lock that could
be left held.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from fastnn.errors import BusyError

#: held while a program is traced, planned and bound, which happens once
building = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child must not find it held by a thread that it has not
    os.register_at_fork(
        before=building.acquire, after_in_parent=building.release, after_in_child=building.release
    )

#: code of functions whose frames lose their callers when they yield, maybe while somebody follows
#: the calls of another thread, who has to begin again
SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
#: how often at most
LOOKS = 1000
#: seconds between two looks of a thread that waits for its turn
PAUSE = 0.0002

P = ParamSpec("P")
R = TypeVar("R")
#: owner of turns that are taken again and again
AGAIN = object()
#: where nobody's turns are
_NOWHERE: dict[Access, None] = {}


class Access:
    """One call's use of a model.

    Attributes:
        what: what the call does, for messages.
        long: whether others should not wait for its end.
        owner: a turn of the same owner must not be taken within it.
        between: of a run that is sent ahead: waits for what has been sent, so that the call's
            thread can look at the memory between two steps.
    """

    __slots__ = ("_among", "between", "frame", "long", "owner", "thread", "what")

    def __init__(self, what: str, frame: FrameType, long: bool = False, owner: Any = None):
        self.what, self.long, self.owner = what, long, owner
        self.frame: FrameType | None = frame
        self.thread = get_ident()
        self.between: Callable[[], Any] | None = None
        self._among = _NOWHERE

    def held(self) -> bool:
        """Whether the call is going on."""
        for _ in range(LOOKS):
            last, frame = None, sys._current_frames().get(self.thread)
            while frame is not None:
                if frame is self.frame:
                    return True
                last, frame = frame, frame.f_back
            if last is None or not last.f_code.co_flags & SUSPENDS:
                break  # that was the thread's outermost call
        return False

    def begin(self, among: dict[Access, None]) -> None:
        self._among = among
        among[self] = None

    def end(self) -> None:
        self._among.pop(self, None)
        self.frame = self.between = None  # which hold this turn


class AccessControl:
    """Who has access to a piece of memory. (A change is one operation of a dict, hence atomic.)"""

    def __init__(self) -> None:
        self._training: dict[Access, None] = {}
        self._reading: dict[Access, None] = {}
        #: runs of threads that work on the memory, each with what ends it
        self._runs: dict[Access, Callable[[], None]] = {}

    def __reduce__(self) -> Any:
        return AccessControl, ()  # a copy is nobody's

    def train(self, turn: Access, wait: bool = False) -> Access:
        """The turn to change what lies in the memory. Waits for readers of other threads to end.

        Args:
            turn: the caller's; it ends it.
            wait: whether to wait for another thread that has its turn, too.

        Raises:
            BusyError: another thread is training.
        """
        turn.begin(self._training)
        if self._runs:
            self.synchronize()
        if len(self._training) == 1 and not self._reading:
            return turn
        try:
            while (other := self._before(turn)) is not None:
                if not wait:
                    raise BusyError(
                        f"{turn.what}: another thread is training this model ({other.what}); wait "
                        "for it, or train a copy of the model (copy.deepcopy)"
                    )
                time.sleep(PAUSE)
            for reader in list(self._reading):
                while reader.thread != turn.thread and reader in self._reading and reader.held():
                    time.sleep(PAUSE)
                if reader.owner is not AGAIN and not reader.held():
                    reader.end()  # its call could not: an exception came in that moment
        except BaseException:
            turn.end()
            raise
        return turn

    def _before(self, turn: Access) -> Access | None:
        """Another thread's turn that comes first."""
        for other in list(self._training):
            if other is turn:
                return None
            if not other.held():
                other.end()
            elif other.thread != turn.thread:
                return other
            elif other.owner is turn.owner is not None:
                raise BusyError(f"{turn.what}: called within {other.what} of the same object")
            else:
                return None  # this thread has it already: a callback
        return None

    def running(self, call: Access, synchronize: Callable[[], None]) -> None:
        """A call begins a run of other threads, which ends before the call; or else, if exceptions
        one upon another cut the call off, when somebody calls `synchronize`."""
        self._runs[call] = synchronize

    def ended(self, call: Access) -> None:
        self._runs.pop(call, None)
        call.end()

    def synchronize(self) -> None:
        """End the runs that calls have left behind, each at the end of its step, and wait for the
        steps that this thread has sent ahead."""
        for call, synchronize in list(self._runs.items()):
            if not call.held():
                if call in self._runs:  # else it has ended meanwhile, and another may be going on
                    synchronize()
                    self.ended(call)
            elif call.between is not None and call.thread == get_ident():
                call.between()

    def read(self, turn: Access) -> Access:
        """The turn to read. Waits for a step of another thread.

        Raises:
            BusyError: another thread is in the middle of a long training.
        """
        if self._runs:
            self.synchronize()
        while True:
            turn.begin(self._reading)
            if not self._training:
                return turn
            other = self._changing(turn)
            if other is None:
                return turn
            self._reading.pop(turn, None)
            refuse_long(turn.what, other)
            time.sleep(PAUSE)

    def read_again(self, turn: Access) -> None:
        """`read` by a turn (of owner `AGAIN`) that has ended: it takes less time than a new one."""
        turn.thread, turn.frame, turn._among = get_ident(), sys._getframe(1), self._reading
        self._reading[turn] = None
        if self._training or self._runs:
            self.read(turn)

    def look(self, what: str) -> None:
        """Wait for a step of another thread, before a single array is read.

        Raises:
            BusyError: another thread is in the middle of a long training.
        """
        if self._runs:
            self.synchronize()
        if self._training:
            turn = Access(what, sys._getframe())
            try:
                while (other := self._changing(turn)) is not None:
                    refuse_long(what, other)
                    time.sleep(PAUSE)
            finally:
                turn.end()

    def _changing(self, turn: Access) -> Access | None:
        """Another thread's turn to train that one to read has to wait for; not where this thread is
        reading already, which that one waits for."""
        mine = [r for r in list(self._reading) if r is not turn and r.thread == turn.thread]
        return None if any(r.held() for r in mine) else self._before(turn)


def access_to(holder: Any) -> AccessControl:
    """Who has access to an object (a parameter store, a trainer), which keeps it."""
    found: AccessControl | None = holder.__dict__.get("_access")
    return holder.__dict__.setdefault("_access", AccessControl()) if found is None else found


def refuse_long(what: str, other: Access) -> None:
    if other.long:
        raise BusyError(
            f"{what}: another thread is training this model ({other.what}), its parameters change "
            "meanwhile; wait for it, or use a copy of the model"
        )


def synchronize(holder: Any) -> None:
    """End the runs that are left behind on an object's memory, before somebody looks at it."""
    found: AccessControl | None = holder.__dict__.get("_access")
    if found is not None and found._runs:
        found.synchronize()


def look(holder: Any, what: str) -> None:
    """Before a single array of an object's memory is read; see `AccessControl.look`."""
    found: AccessControl | None = holder.__dict__.get("_access")
    if found is not None and (found._runs or found._training):
        found.look(what)


def training(what: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a method of an object with a `store` a long training of it."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            this: Any = args[0]
            turn = access_to(this.store).train(Access(what, sys._getframe(), True, this))
            try:
                return method(*args, **kwargs)
            finally:
                turn.end()

        return call

    return decorate


def reading(what: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a method of an object with a `store` a reading of it; calls of several threads of the
    same object queue."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            this: Any = args[0]
            turn = access_to(this.store).read(Access(what, sys._getframe()))
            place = access_to(this).train(Access(what, sys._getframe()), wait=True)
            try:
                return method(*args, **kwargs)
            finally:
                place.end()
                turn.end()

        return call

    return decorate
