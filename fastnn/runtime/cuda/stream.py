"""Steps on batches that come from the host one by one, sent ahead of the device.

The caller's thread takes a batch from wherever it comes, writes it into a page-locked buffer of a
ring and goes on to the next. A thread that stands as long as the stream does copies the buffer to
the device, on a stream of the device's own so that the copy runs beside the steps before; then it
launches the step. It is woken when half a ring has been written, as batches that come quickly cost
less together, or when one has been long in coming. Every few steps the control block is read back:
a buffer is written again when its step is known to have come to a good end, so that the inputs of a
step which has not are there to be looked at.

Who looks at what lies on the device between two steps has to call `synchronize` first: it returns
when all that was sent is done. The next step then brings to the device what the host has changed.
"""

from __future__ import annotations

import _thread
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.kernels import control_block
from fastnn.runtime.cuda.bound import CudaProgram
from fastnn.runtime.cuda.place import Launch, Piece
from fastnn.runtime.cuda.ring import Slot, ring

if TYPE_CHECKING:
    from fastnn.runtime.cuda.execute import CudaRuntime

#: seconds between two looks of a thread that waits, and of one that has nothing to do
EVERY, IDLE = 0.05, 0.01
#: seconds after which a batch counts as slow: its step is launched at once
SLOW = 0.001
#: a batch's buffer (None: its inputs are there already), and its program
Item = tuple[Slot | None, CudaProgram]


class Stream:
    """See the module's text.

    Args:
        runtime: the session's.
        held: whether the call that feeds is still going on; the thread ends with it.

    Attributes:
        failed: the program of the step that stopped training, if one has.
        ended: whether the thread has ended.
    """

    def __init__(self, runtime: CudaRuntime, held: Callable[[], bool]):
        self.runtime, self.gpu = runtime, runtime.gpu
        self.held = held
        self.caller = _thread.get_ident()
        self._items: deque[Item] = deque()  # handed over, not launched
        self._sent = self._launched = self._done = self._want = 0
        self._begin = int(self.runtime.control[control_block.STEP])
        self._marks: deque[tuple[Launch, Any, int]] = deque()  # on their way, by steps launched
        self._looks = itertools.cycle(runtime.device_control.looks)
        self._woken = 0.0  # when the thread was last told of new steps
        self._flight: deque[Item] = deque()  # launched, not known to be done
        self._there: dict[CudaProgram, Piece] = {}  # whose memory is on the device: their inputs
        self._used: dict[CudaProgram, None] = {}
        self._closing = self._stopped = self.ended = False
        self.failed: CudaProgram | None = None
        self.error: BaseException | None = None
        self._wake, self._news = _thread.allocate_lock(), _thread.allocate_lock()
        self._wake.acquire()
        self._news.acquire()
        _thread.start_new_thread(self._work, ())

    # ---------------------------------------------------------------- the caller's thread

    def send(
        self, bound: CudaProgram, names: Sequence[str], arrays: Sequence[Any],
        poll: Callable[[], None],
    ) -> bool:  # fmt: skip
        """Have a step made on these inputs; whether all is well so far."""
        for array in arrays:
            if type(array) is not np.ndarray and hasattr(array, "copy_to"):
                return self._send_from_device(bound, names, arrays, poll)
        slots = self._slots(bound, poll)
        count = len(slots)
        full = self._sent - self._done >= count
        if (full or self._stopped or self.ended) and not self._reach(self._sent - count + 1, poll):
            return False
        slot = slots[self._sent % count]
        slot.fill(bound.program, names, arrays)
        self._items.append((slot, bound))
        self._sent += 1
        now = time.monotonic()
        if self._sent % max(1, count // 2) == 0 or now - self._woken > SLOW:
            wake(self._wake)
            self._woken = now
        return True

    def _send_from_device(
        self, bound: CudaProgram, names: Sequence[str], arrays: Sequence[Any],
        poll: Callable[[], None],
    ) -> bool:  # fmt: skip
        """The same for arrays whose owner may change them as soon as this returns."""
        if self.synchronize(poll):
            for name, array in zip(names, arrays, strict=True):
                bound.write(name, array)
            self._items.append((None, bound))
            self._sent += 1
        return self.synchronize(poll)

    def synchronize(self, poll: Callable[[], None] = lambda: None) -> bool:
        """Wait until all that was sent is done; whether it came to a good end."""
        good = self._reach(self._sent, poll)
        self._there.clear()
        return good

    def close(self) -> None:
        """Wait until all that was sent is done, through any number of interrupts, and end."""
        self._closing = True
        while not self.ended:
            with contextlib.suppress(KeyboardInterrupt):
                wake(self._wake)
                self._news.acquire(timeout=EVERY)

    def _reach(self, count: int, poll: Callable[[], None]) -> bool:
        """Wait until so many steps are done; whether all is well so far."""
        while self._done < count and not (self._stopped or self.ended):
            self._want = count
            wake(self._wake)
            if not self._news.acquire(timeout=EVERY):
                poll()
        if self.error is not None:
            raise self.error
        return not self._stopped

    def _slots(self, bound: CudaProgram, poll: Callable[[], None]) -> list[Slot]:
        runtime, size = self.runtime, bound.program.sizes["input"]
        if not runtime.slots or runtime.slots[0].host.nbytes < size:
            self.synchronize(poll)
            runtime.slots = []
            runtime.slots = ring(self.gpu, size)
        return runtime.slots

    # ---------------------------------------------------------------- the thread that stands

    def _work(self) -> None:
        try:
            self.gpu.use()
            self._steps()
            self.gpu.sync()
        except Exception as error:
            self.error = self.gpu.failure(error)
        finally:
            self._items.clear()
            self.ended = True
            wake(self._news)

    def _steps(self) -> None:
        while not self._stopped:
            if self._items:
                self._launch(self._items.popleft())
            elif self._flight and (self._closing or self._want > self._done):
                self._confirm()
            elif self._closing:
                return
            elif not self._wake.acquire(timeout=IDLE) and not (self._items or self.held()):
                self._closing = True

    def _launch(self, item: Item) -> None:
        slot, bound = item
        inputs = self._there.get(bound)
        if inputs is None:
            # its copy of the buffers must not be made in the middle of a step that fails
            while self._flight and not self._stopped:
                self._confirm()
            if self._stopped:
                return
            self.runtime.acquire([bound])
            self._there[bound] = inputs = bound.segments["input"].on(self.gpu, writes=True)
            self._used[bound] = None
        if slot is not None:
            slot.forward(inputs)
        bound.launch()
        self._flight.append(item)
        self._launched += 1
        if self._launched % max(1, len(self.runtime.slots) // 2) == 0:
            self._mark()

    def _mark(self) -> None:
        """Have the control block sent after the steps so far."""
        answer, ask, wait = next(self._looks)
        ask()
        self._marks.append((wait, answer, self._launched))

    def _confirm(self) -> None:
        """Wait for the steps before the first mark."""
        if not self._marks:
            self._mark()
        wait, answer, count = self._marks.popleft()
        wait()
        self.runtime.device_control.take(answer)
        if self.runtime.control[control_block.STOP]:
            self._stop()
            return
        for _ in range(count - self._done):
            self._flight.popleft()
        self._done = count
        wake(self._news)

    def _stop(self) -> None:
        """A step has stopped training: those after it have done nothing. The memory is put back as
        it was before, with the inputs of that step."""
        self.gpu.sync()
        failed = int(self.runtime.control[control_block.STEP]) - self._begin - self._done
        slot, bound = self._flight[min(max(failed, 0), len(self._flight) - 1)]
        for used in self._used:
            used.put_back()
        if slot is not None:
            self.gpu.upload(slot.host[: slot.size], bound.segments["input"].place(self.gpu))
        self.failed = bound
        self.runtime.undoes(bound)
        self._stopped = True


def wake(lock: Any) -> None:
    """Let the thread that waits for a lock go on; one that comes later goes on at once."""
    if lock.locked():
        with contextlib.suppress(RuntimeError):  # somebody else was first
            lock.release()
