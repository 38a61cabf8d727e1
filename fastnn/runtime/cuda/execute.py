"""Runs programs on a CUDA device; the same interface as the CPU's (`fastnn/runtime/interface.py`).

A step is a program's phases, one launch each, in order. From its second run on, the launches of a
program are replayed as one CUDA graph. Many steps are sent ahead; what changes from step to step
(control block, schedule, data order, totals) lies in the device's memory, so nothing crosses the
bus between them. Now and then the control block is read back, to show progress and to see stops.

A stop (`control[STOP]`, say a loss that is not finite) is latched by a kernel, and launches that
follow, those of steps sent ahead included, must not change what training keeps. So when a stop is
latched `prepare` marks the step's hyper-parameters, and `update` returns at once; `advance` does
not count the step; and buffers are put back to a copy that `keep` makes after each good step.
"""

from __future__ import annotations

import _thread
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from fastnn.errors import OptionError
from fastnn.kernels import control_block
from fastnn.plan.program import Program
from fastnn.runtime import _cuda
from fastnn.runtime.cuda import machine
from fastnn.runtime.cuda.bound import CudaProgram
from fastnn.runtime.cuda.exchange import Exchange, Partners
from fastnn.runtime.cuda.gpu import Gpu, gpu
from fastnn.runtime.cuda.memory import CudaMemory, DeviceControl
from fastnn.runtime.cuda.place import Launch, Piece
from fastnn.runtime.cuda.ring import Slot
from fastnn.runtime.cuda.single import CudaSingle
from fastnn.runtime.cuda.stream import Stream, wake
from fastnn.runtime.cuda.weights import Copies
from fastnn.runtime.interface import Poll, Store
from fastnn.runtime.kept import Kept
from fastnn.runtime.orders import Orders
from fastnn.runtime.segment import Segment
from fastnn.weak import weakly

#: seconds of work that are sent before the control block is read back
CHUNK = 0.02
#: steps sent at most between two looks
MOST_STEPS = 4096
#: the same where other GPUs take part: all have to send as many, so time must not decide
STEPS_TOGETHER = 64
#: how much of the free memory data may take; what is larger is streamed
SHARE = 0.75
#: seconds between two calls of `poll`
EVERY = 0.05


class CudaRuntime:
    """Runs the programs of a session on one device.

    Args:
        device: "cuda:N".
        store: the parameters' memory.
        slots: names of the optimiser's slots.
        totals: how many running totals.
        graphs: whether programs are replayed as CUDA graphs.
    """

    kind, ahead, orders = "cuda", True, Orders

    def __init__(self, device: str, store: Store, slots: Sequence[str], totals: int, graphs: bool):
        self.device, self.graphs, self.store, self.gpu = device, graphs, store, gpu(device)
        self.device_control = DeviceControl(self.gpu, totals)
        self.control, self.totals = self.device_control.control, self.device_control.totals
        self.memory = CudaMemory(self.gpu, store, slots, self.device_control)
        self.functions: list[Callable[[Any], None]] = []
        self.exchanges: dict[int, Exchange] = {}
        self._bound: Kept[CudaProgram] = Kept()
        self._saved: Any = None
        self.copies = Copies()
        self._run: _Run | None = None  # that is going on, or was left behind
        self._acquired: tuple[CudaProgram, ...] = ()  # for the last run or step
        self._stream: Stream | None = None
        self.slots: list[Slot] = []  # of the streams, kept from one to the next
        self.memory.synchronize = weakly(self._between)

    def use_device_all_reduce(self, number: int, partners: Partners) -> bool:
        if partners.device != self.device:
            raise OptionError(
                "device: expected the device that parallel.run has given to the process, "
                f"group.device ({partners.device!r}), got {self.device!r}"
            )
        if _cuda.simulated():
            return False
        if partners.link is None:
            partners.link = Exchange(cast(Gpu, self.gpu), partners)
        self.exchanges[number] = partners.link
        return True

    def provide(self, name: str, array: Any) -> None:
        self.memory[name] = array

    def let_go(self) -> None:
        if self._run is None:
            self.memory.let_go(self._bound)

    def changed(self, name: str) -> None:
        self.memory.segments[name].current = {None}

    def read(self, name: str) -> np.ndarray:
        self._between()
        if name in ("control", "totals"):
            return self.memory[name]
        return self.memory.segments[name].for_reading()

    def give(self, name: str) -> Any:
        """A segment's array on the device, for somebody else to keep."""
        from fastnn.runtime.cuda.array import DeviceArray

        segment = self.memory.segments[name]
        piece = segment.on(self.gpu)
        segment.foreign = True  # the next segment of this name gets memory of its own
        host = segment.host
        return DeviceArray(piece.address, host.shape, host.dtype, piece, self.gpu.number)

    def saved_buffers(self, buffers: Segment) -> Any:
        """Memory for a copy of the buffers."""
        if self._saved is None:
            self._saved = self.gpu.allocate(buffers.host.nbytes, "buffers")
        return self._saved

    def bind_again(self, program: Program) -> CudaProgram:
        return self.bind(program)

    def bind(self, program: Program) -> CudaProgram:
        self._between()
        larger = self._bound.get(id(program.within)) if program.within is not None else None
        segments = self.memory.make_room(program, larger)
        known = self._bound.get(id(program))
        if known is None or any(
            segments[name] is not known.segments[name] for name in known.used - {"constant"}
        ):
            self._bound[id(program)] = known = CudaProgram(program, self, segments, larger)
        return known

    def bind_like(self, bound: CudaProgram, program: Program) -> CudaProgram:
        formula = getattr(program, "formula", None)
        within = None if formula is None else self._bound.get(id(bound.program.within))
        alike: dict[Any, CudaProgram] = {} if within is None else within.alike
        found = CudaProgram(program, self, bound.segments, alike.get(formula))
        alike.setdefault(formula, found)
        return found

    def save(self, names: Sequence[str]) -> list[tuple[Segment, Any]]:
        self._between()
        kept = []
        for name in names:
            segment = self.memory.segments[name]
            copy = self.gpu.allocate(segment.host.nbytes, f"copy of {name}")
            self.gpu.duplicate(segment.on(self.gpu), copy, segment.host.nbytes)
            kept.append((segment, copy))
        self._note_away()
        return kept

    def restore(self, saved: list[tuple[Segment, Any]]) -> None:
        self._between()
        for segment, copy in saved:
            target = segment.on(self.gpu, writes=True)
            self.gpu.duplicate(copy, target, segment.host.nbytes)
        self._note_away()

    def put_back(self) -> bool:
        """What updates of the last run have saved; the buffers were put back when it ended."""
        guard = self.memory["guard"]
        broken, saved = bool(guard[control_block.BROKEN]), bool(guard[control_block.SAVED])
        guard[:] = 0
        guard[control_block.DOUBT] = 1
        if broken and saved:
            spans = (span for bound in self._acquired for span in bound.saved_spans())
            for name, begin, size in dict.fromkeys(spans):
                copy = self.memory.segments[f"saved/{name}"].on(self.gpu)
                source = Piece(copy.address + begin, size, copy)
                target = self.memory.segments[name].on(self.gpu, writes=True)
                self.gpu.duplicate(source, target, size, begin)
            self._note_away()
            self.gpu.sync()
        return saved or not broken

    def note(self, program: Program) -> str:
        launches = f"{program.launch_count} launches a step"
        graphs = "as CUDA graphs" if self.graphs else "one by one"
        return f"{self.device} ({self.gpu.name}), {launches}, {graphs}"

    def _note_away(self) -> None:
        self.store.away = not all(s.on_host for s in self.store.segments.values())

    def acquire(self, bounds: Sequence[CudaProgram]) -> None:
        """Bring to the device what the programs use and what the host has changed.

        From here on it is the calling thread's device: launches and events need that.
        """
        self.gpu.use()
        self._acquired = tuple(bounds)
        self.copies.forget()
        for bound in bounds:
            bound.acquire()
        self._note_away()
        self.device_control.send()

    # ---------------------------------------------------------------- many steps

    def run(
        self, segments: Sequence[tuple[Any, int]], poll: Poll, meanwhile: Poll | None = None
    ) -> None:
        """Steps are sent by a thread of their own, so that Ctrl-C cannot cut one in half. Functions
        of the host are called in this one."""
        self.synchronize()
        self._run = run = _Run(self, segments)
        try:
            _thread.start_new_thread(run.work, ())
            if meanwhile is not None:
                meanwhile()
            due = time.monotonic() + EVERY
            while not run.wait(EVERY):
                if not run.answer() or time.monotonic() >= due:
                    poll()
                    due = time.monotonic() + EVERY
        finally:
            run.finish()
            self._run = None
        if run.error is not None:
            raise run.error

    def synchronize(self) -> None:
        """End a run that exceptions, one upon another, have left behind."""
        if self._run is not None:
            self._run.finish()
            self._run = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    # ---------------------------------------------------------------- steps that the host feeds

    def holds(self, nbytes: int) -> bool:
        """Whether so many bytes of data fit, those of this session's last run being replaced."""
        own = sum(
            segment.host.nbytes
            for name, segment in self.memory.segments.items()
            if name.startswith("data/") and self.gpu in segment.copies and not segment.foreign
        )
        free, total = machine.memory_info(self.gpu.number)
        if total and nbytes > SHARE * (free + own):  # perhaps the driver's pool has more
            self.gpu.trim()
            free, total = machine.memory_info(self.gpu.number)
        return not total or nbytes <= SHARE * (free + own)

    def stream(self, held: Callable[[], bool]) -> Stream:
        self.synchronize()
        self._stream = Stream(self, held)
        return self._stream

    def undoes(self, bound: CudaProgram) -> None:
        """What `put_back` puts back is what this program's step has saved."""
        self._acquired = (bound,)

    def _between(self) -> None:
        """Wait for steps on their way before the thread that feeds them looks at the memory."""
        stream = self._stream
        if stream is not None and stream.caller == _thread.get_ident() and not stream.ended:
            stream.synchronize()

    def single(
        self, bounds: Sequence[Any], names: Sequence[str], arrays: Sequence[Any]
    ) -> CudaSingle:
        return CudaSingle(self, bounds, names)


class _Cut(Exception):
    """A step ends before its updates: a function of the host has failed, or the run is to end."""


class _Run:
    """One run: sends steps in chunks, a chunk ahead, and reads the control block after each.

    The thread that gets signals waits for it on a lock that wakes it, no more: `done` and `asks`
    say how things stand, whatever an exception has left the lock as. Where the step calls a
    function of the host, nothing is sent ahead: all that was sent is done before the call.
    """

    def __init__(self, runtime: CudaRuntime, segments: Sequence[tuple[CudaProgram, int]]):
        self.runtime, self.segments = runtime, segments
        self.done = self.stop = False
        #: the function of the host that is to be called, and the program that it is for
        self.asks: tuple[int, CudaProgram] | None = None
        self._begun, self._woken = _thread.allocate_lock(), _thread.allocate_lock()
        self._answered = _thread.allocate_lock()
        self._woken.acquire()
        self._answered.acquire()
        self.error: BaseException | None = None

    def work(self) -> None:
        if not self._begun.acquire(False):  # given up before it began
            return
        try:
            self._steps()
        except Exception as error:
            self.error = self.runtime.gpu.failure(error)
        finally:
            self.done = True
            wake(self._woken)

    def _steps(self) -> None:
        runtime, device_control = self.runtime, self.runtime.device_control
        bounds = [bound for bound, _ in self.segments]
        runtime.acquire(bounds)
        sent: list[tuple[Launch, np.ndarray, int]] = []  # chunks on their way
        chunk, since, cut = 1, time.perf_counter(), False
        if runtime.exchanges:
            chunk = STEPS_TOGETHER

        def receive() -> None:
            nonlocal chunk, since
            wait, answer, count = sent.pop(0)
            wait()
            device_control.take(answer)
            now = time.perf_counter()
            step = max(now - since, 1e-7) / count
            chunk, since = max(1, min(int(CHUNK / step), 2 * chunk, MOST_STEPS)), now
            if runtime.exchanges:
                chunk = STEPS_TOGETHER

        def call_host(bound: CudaProgram, number: int) -> None:
            while sent:
                receive()
            answer = device_control.ask()
            runtime.gpu.sync()
            device_control.take(answer)
            if not device_control.control[control_block.STOP]:
                self._ask(number, bound)

        try:
            for bound, steps in self.segments:
                left, waits = steps, bool(bound.hosts)
                while left and not self.stop and not device_control.control[control_block.STOP]:
                    count = 1 if waits else min(chunk, left)
                    for _ in range(count):
                        bound.launch(call_host)
                    left -= count
                    if waits and left:
                        continue  # the next step looks before it calls the host
                    answer = device_control.ask()
                    sent.append((runtime.gpu.mark(), answer, count))
                    if len(sent) > 1:
                        receive()
        except _Cut:
            cut = True
        while sent:
            receive()
        if cut or device_control.control[control_block.STOP]:
            for bound in bounds:
                bound.put_back()
        runtime.gpu.sync()

    def _ask(self, number: int, bound: CudaProgram) -> None:
        """Have a function of the host called by the thread that has begun the run."""
        self.asks = number, bound
        wake(self._woken)
        while self.asks is not None:
            if self.stop:
                raise _Cut
            self._answered.acquire(timeout=EVERY)

    def answer(self) -> bool:
        """Call the function of the host that is asked for; returns whether one is."""
        if self.asks is None:
            return False
        number, bound = self.asks
        self.runtime.functions[number](bound)
        self.runtime.copies.forget()
        bound.take()  # it may have looked at what the program writes
        self.runtime._note_away()
        self.asks = None
        wake(self._answered)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait so long at most, or until something is asked; returns whether the run has ended."""
        if not self.done:
            self._woken.acquire(timeout=seconds)
        return self.done

    def finish(self) -> None:
        """Stop at the end of a step (or before its updates, if it asks for the host), and wait for
        that, through any number of interrupts."""
        self.stop = True
        wake(self._answered)
        if self._begun.acquire(False):  # its thread was not started, or will do nothing
            self.done = True
        while not self.done:
            with contextlib.suppress(KeyboardInterrupt):  # it is stopping already
                self.wait(EVERY)
