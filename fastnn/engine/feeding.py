"""Steps on batches that the host gives, one after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastnn.engine.access import Access, access_to
from fastnn.engine.session import Session
from fastnn.kernels import control_block
from fastnn.runtime.interface import Bound

#: seconds between two calls of `poll`
EVERY = 0.05


class Feeding:
    """Runs a step on each batch, in order; made by the call that feeds, which `close`s it.

    Where the device has memory of its own, and no step calls the host, they are sent ahead: `step`
    returns when the batch has been copied, and a stop shows some batches later. Who looks at the
    model's memory through parameters or the session meanwhile, on the thread that feeds, waits for
    the steps that were sent and sees what they left.

    Args:
        session: whose memory and programs these are.
        poll: called now and then, on the caller's thread.

    Attributes:
        ahead: whether steps are sent ahead.
    """

    def __init__(self, session: Session, poll: Callable[[], None] = lambda: None):
        session.store.check()
        session.store.check_set()
        session.synchronize()
        session.control[
            [control_block.RUN_STEP, control_block.STOP_REQUEST, control_block.STOP]
        ] = 0
        self.session, self.poll = session, poll
        self._polled = time.monotonic()
        self._call = call = Access("a run", sys._getframe(1))
        self._stream = stream = session.runtime.stream(call.held) if session.ahead else None
        self.ahead = stream is not None
        if stream is not None:
            call.between = stream.synchronize
            access_to(session.store).running(call, session.synchronize)

    def step(self, bound: Bound, names: Sequence[str], arrays: Sequence[Any]) -> int:
        """Run a program on these inputs; the reason why a step has stopped the run, or 0."""
        if self._stream is None:
            for name, array in zip(names, arrays, strict=True):
                bound.write(name, array)
            return self.session.run([(bound, 1)], self.poll)
        good = self._stream.send(bound, names, arrays, self.poll)
        if time.monotonic() - self._polled > EVERY:
            self.poll()
            self._polled = time.monotonic()
        return 0 if good else self._reason

    def synchronize(self) -> int:
        """Wait until all steps are done; the reason why one has stopped the run, or 0."""
        if self._stream is not None:
            self._stream.synchronize(self.poll)
        return self._reason

    def failed(self, last: Bound) -> Bound:
        """The program of the step that stopped the run, with that step's inputs in its memory;
        `last` is that of the last one."""
        found = None if self._stream is None else self._stream.failed
        return last if found is None else found

    def close(self) -> None:
        """End, when all steps are done."""
        if self._stream is not None:
            self.session.synchronize()
            access_to(self.session.store).ended(self._call)
        self._call.end()  # which has the frame of the call, and that this object

    @property
    def _reason(self) -> int:
        return int(self.session.control[control_block.STOP])
