"""A program that is bound: its operands' places on a device, its launches, a step at a time."""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.cached import cached
from fastnn.errors import ProgramError
from fastnn.graph.fold import fold
from fastnn.graph.sizes import at
from fastnn.kernels import control_block, types
from fastnn.kernels.declare import CUDA_KERNELS, CudaKernel, kernel_of
from fastnn.plan.branches import END, MOST_LAUNCHES, Touch, touches_of
from fastnn.plan.formula import Formula, SizedProgram, filled
from fastnn.plan.program import Operand, PlannedCall, PlannedRepeat, Program, calls_of
from fastnn.runtime import _cuda, poison
from fastnn.runtime.cuda import again
from fastnn.runtime.cuda.made import Before, Made, made
from fastnn.runtime.cuda.order import (
    Again,
    Leaves,
    Other,
    Part,
    Sent,
    Steps,
    calls_host,
    ends_early,
    host_number,
    marked,
)
from fastnn.runtime.cuda.place import Launch, Place
from fastnn.runtime.cuda.sized import SizedLaunches, launches_at
from fastnn.runtime.cuda.weights import copying
from fastnn.runtime.segment import Segment
from fastnn.weak import weak

if TYPE_CHECKING:
    from fastnn.runtime.cuda.exchange import Exchange
    from fastnn.runtime.cuda.execute import CudaRuntime


class CudaProgram:
    """A program with its memory on a device, ready to be launched.

    Each call is prepared once, those of loops too: steps differ in the words that move.

    Args:
        program: the program.
        runtime: the device's.
        segments: its memory, by name.
        larger: the program whose phases and memory this one has: launches of calls that are the
            same serve again, and others are prepared from those.
    """

    runtime: weak[CudaRuntime] = weak()  # which keeps it

    def __init__(
        self, program: Program, runtime: CudaRuntime, segments: dict[str, Segment],
        larger: CudaProgram | None = None,
    ):  # fmt: skip
        self.program, self.runtime = program, runtime
        self.gpu, self.device_control = runtime.gpu, runtime.device_control
        self.segments = segments
        if larger is None:
            uses = [(o, p.writes) for call in self.calls for _, p, o in call.arrays()]
            self.written = {o.segment for o, writes in uses if writes} - {"control", "totals"}
            self.used = {o.segment for o, _ in uses} - {"control", "totals"}
        else:
            self.written, self.used = larger.written, larger.used
        for name in self.used - set(segments):
            raise ProgramError(f"no memory for {name!r}")
        #: what takes the place of functions of the host
        self.exchanges: list[Exchange] = []
        #: what is launched for each phase, for programs of other sizes within this one, and the
        #: launches of those that follow from formulas
        self.sent: list[Made] = []
        #: of programs that follow from formulas, in the memory of one within this one: one for each
        self.alike: dict[Formula, CudaProgram] = {}
        self.sized: weakref.WeakKeyDictionary[Formula, SizedLaunches] = weakref.WeakKeyDictionary()
        # a graph that is replayed has no ranges
        self.graphs = runtime.graphs and _cuda.ranges() is None
        #: whether bodies of loops are launched again and again, and those of programs of all sizes
        self.repeats: bool
        self.bodies: again.Bodies
        if larger is not None and self._has_segments_of(larger):
            self.repeats, self.bodies = larger.repeats, larger.bodies
        else:
            self.repeats = (
                self.graphs
                and program.launch_count > MOST_LAUNCHES
                and (larger is None or larger.repeats)  # its kernels can't where that one's can't
            )
            self.bodies = weakref.WeakValueDictionary()
        #: launches of single calls, by number
        self._single: dict[int, Launch] = {}
        self.saved: Any = None
        self.keep: Other | None = None
        #: the launches of a step, in parts
        self.parts = self._prepared_parts(larger)
        if larger is not None and larger.keep and self._has_segments_of(larger):
            self.saved, self.keep = larger.saved, larger.keep
        elif "buffers" in self.written and (
            self.hosts
            or self.exchanges
            or any(kernel_of(call.kernel).traits.checks for call in self.calls)
        ):
            self.saved = runtime.saved_buffers(segments["buffers"])
            self.keep = self._keep()
        if self.keep:
            self.parts[-1].items.append(self.keep)
        #: what copies weights in 16 bits that the updates keep; whether it changes others
        self.copies = copying(self)
        self.spoils_copies = "params" in self.written and not self.copies
        if poison.enabled():
            self.parts[0].items[:0] = self._poison()

    # ---------------------------------------------------------------- preparation

    @property
    def hosts(self) -> list[int]:
        """The functions of the host that are called between parts of a step."""
        return [part.host for part in self.parts if part.host is not None]

    @cached
    def calls(self) -> list[PlannedCall]:
        """The program's calls, those of loops once."""
        return self.program.calls()

    def _has_segments_of(self, larger: CudaProgram) -> bool:
        """Whether all its memory but for constants is that of the program within which it is."""
        others = self.used - {"constant"}
        return all(self.segments[name] is larger.segments[name] for name in others)

    def _prepared_parts(self, larger: CudaProgram | None) -> list[Part]:
        """The launches of a step, in parts between which the host does something; notes exchanges
        with other processes."""
        leaves, marks = Leaves(self.program), _cuda.ranges()
        launches: Sequence[Launch | None] | None = None
        phases: Sequence[Any] = ()
        values: Sequence[int] = ()
        if larger is not None and marks is None and self._has_segments_of(larger):
            launches = launches_at(larger, self)
        if launches is None:
            called, phases = leaves.calls, self.program.phases
            launches = self._launches(called, larger)
        elif larger is not None and isinstance(self.program, SizedProgram) and self.program.formula:
            called = [one.calls for one in larger.sent]  # the same but for numbers
            phases, values = self.program.formula.program.phases, self.program.values
        numbers, leaf_numbers = itertools.count(), itertools.count()

        def launched(
            phase: Any, loops: tuple[PlannedRepeat, ...], inner: Any
        ) -> Sent | Again | int:
            """What stands for a phase; the number of a function of the host. `inner` is this one,
            which does not refer to itself: it would stay, with this program."""
            if isinstance(phase, PlannedRepeat):
                body: Any = tuple(inner(one, (*loops, phase), inner) for one in phase.body)
                return Again(at(phase.length, values), body)
            k = next(leaf_numbers)
            first, *more = [next(numbers) for _ in called[k]]
            launch = launches[k]
            if launch is None:
                return host_number(called[k])
            if marks is not None:
                launch = marked(marks, launch, called[k], loops)
            if not more:
                self._single[first] = launch
            return Sent(launch, leaves, k, 1 + len(more))

        parts = [Part(self.program, [])]
        for number, phase in enumerate(phases):
            one = launched(phase, (), launched)
            if isinstance(one, Again):
                running = filled(phase.running, values)
                whole = replace(phase, length=one.length, body=(), running=running)
                if self.repeats or ends_early(whole):
                    given = self.gpu, one.body, self.bodies, number
                    parts += again.parts_of(
                        self.program, whole, one.body, self.place,
                        again.Loop(*given) if self.repeats else None,
                    )  # fmt: skip
                    continue
            if not isinstance(one, int):
                parts[-1].items.append(one)
                continue
            exchange = self.runtime.exchanges.get(one)
            if exchange is None:
                parts.append(Part(self.program, [], one))
            else:
                self.exchanges.append(exchange)
                (call,) = calls_of([phase])
                parts[-1].items.append(self._exchange(call, exchange))
        return parts

    def _launches(
        self, called: Sequence[tuple[PlannedCall, ...]], larger: CudaProgram | None
    ) -> list[Launch | None]:
        """What is launched for each phase; None for a function of the host."""
        sent, theirs = ((), {}) if larger is None else (larger.sent, larger.segments)
        before, dtype = Before(sent, theirs, self.segments), self.program.dtype
        found = [None if calls_host(calls) else before.made(calls, self.place) for calls in called]
        repeated = set(again.in_loops(self.program)) if self.repeats else ()
        named = [(one, k in repeated) for k, one in enumerate(found) if one is not None]
        new = [each for each in named if each[0].launch is None]
        self.repeats = again.compile_missing(self.gpu, dtype, new) and self.repeats
        if larger is None:
            self.sent = [one for one in found if one is not None]
        return [None if one is None else one.prepare(self.gpu, dtype) for one in found]

    def _dtype(self, operand: Operand) -> str:
        kind = types.storage(operand.dtype, self.program.dtype)
        return kind or self.segments[operand.segment].host.dtype.name

    def place(self, operand: Operand, rank: int | None = None) -> Place:
        """Where an operand lies on the device."""
        dtype, dims, offset = self._dtype(operand), operand.dims, operand.offset
        strides = operand.strides
        if operand.segment in ("control", "totals"):
            at = 0 if operand.segment == "control" else 8 * control_block.LENGTH
            return Place(self.device_control.piece, at + offset, dims, dtype, strides)
        segment = self.segments[operand.segment]
        if operand.external:
            dims = fold(segment.host.shape, rank or len(dims))
        return Place(segment.place(self.gpu), offset, dims, dtype, strides)

    def _prepared(self, kernel: CudaKernel, data: str, operands: dict[str, Any]) -> Launch:
        return self.gpu.prepared(kernel, self.program.dtype, data, operands)

    def prepared(self, kernel: CudaKernel, operands: dict[str, Any]) -> Launch:
        """A launch beside those of the program's calls."""
        return self._prepared(kernel, "", operands)

    def _exchange(self, call: PlannedCall, exchange: Exchange) -> Other:
        """What stands for a call of the host that takes the mean over other processes."""
        operands = [o for _, _, o in call.arrays()]
        stop = self.place(Operand("control", 0, (control_block.LENGTH,), "i"))
        launch = exchange.launch([self.place(o) for o in operands], stop)
        if (marks := _cuda.ranges()) is not None:
            launch = marked(marks, launch, [call], ())
        # a stop is exchanged, too
        touched = (*touches_of(self.program, call), Touch("control", 0, END, "w"))
        return Other(launch, touched, 1)

    def _keep(self) -> Other:
        size = self.segments["buffers"].host.size
        own = Operand("buffers", 0, (size,), "f")
        control = Operand("control", 0, (control_block.LENGTH,), "i")
        saved = Place(self.saved, 0, (size,), self.program.dtype)
        operands = {"x": self.place(own), "control": self.place(control), "saved": saved}
        launch = self._prepared(CUDA_KERNELS["keep"], "", operands)
        return Other(launch, (Touch("buffers", 0, END, "r"), Touch("control", 0, END, "r")))

    def _poison(self) -> list[Other]:
        """What fills memory before a step (see `fastnn/runtime/poison.py`)."""
        found = []
        for segment, begin, size in poison.spans(self.program):
            memory = self.place(Operand(segment, begin, (size // 8,), "i"))
            launch = self._prepared(
                CUDA_KERNELS["fill"], "", {"memory": memory, "word": poison.WORD}
            )
            found.append(Other(launch, (Touch(segment, begin, begin + size, "w"),)))
        return found

    # ---------------------------------------------------------------- running

    def take(self) -> None:
        """Bring all that the program uses to the device; what it writes belongs to it then."""
        for name in self.used:
            self.segments[name].on(self.gpu, writes=name in self.written)

    def acquire(self) -> None:
        """Make ready to run: the same, and a copy of the buffers."""
        self.take()
        if self.saved is not None:
            buffers = self.segments["buffers"]
            self.gpu.duplicate(buffers.on(self.gpu), self.saved, buffers.host.nbytes)

    def launch(self, call_host: Callable[[CudaProgram, int], None] | None = None) -> None:
        """Send one step: as graphs from the second time on. `call_host` calls functions of the
        host for a program."""
        self.runtime.copies.before(self)
        for exchange in self.exchanges:
            exchange.begin()
        for part in self.parts:
            if part.host is not None and call_host is not None:
                call_host(self, part.host)
            if part.wanted is not None and not self._contents(part.wanted).any():
                continue
            if self.graphs and part.sent + 1 == part.since and len(part):
                part.replay = part.captured(self.gpu)  # if that fails, the next step does it
            part.sent += 1
            if part.replay is not None:
                part.replay()
            else:
                part.send()

    def put_back(self) -> None:
        """After a stop: the buffers as they were after the last good step."""
        if self.saved is not None:
            buffers = self.segments["buffers"]
            self.gpu.duplicate(self.saved, buffers.on(self.gpu, writes=True), buffers.host.nbytes)

    def saved_spans(self) -> list[tuple[str, int, int]]:
        """What updates copy in a doubtful step: segment, first byte, bytes."""
        return [
            (o.segment.removeprefix("saved/"), o.offset, self.place(o).nbytes)
            for call in self.calls
            for _, parameter, o in call.arrays()
            if parameter.writes and o.segment.startswith("saved/")
        ]

    @cached
    def _order(self) -> list[tuple[int, PlannedCall, Steps]]:
        """The calls of a step as they are made, those of loops in each of theirs."""
        return list(self.program.steps())

    @property
    def planned(self) -> list[PlannedCall]:
        return [call for _, call, _ in self._order]

    def run_call(self, number: int) -> None:
        self.runtime.acquire([self])
        self.runtime.copies.before(self)
        which, _, steps = self._order[number]
        if which not in self._single:
            one = made((self.calls[which],), self.place)
            self._single[which] = one.prepare(self.gpu, self.program.dtype)
        self._single[which](*steps)

    def timed(self) -> Iterator[tuple[Sequence[int], float]]:
        self.runtime.acquire([self])
        self.runtime.copies.before(self)
        begin = 0
        for part in self.parts:
            begin += part.host is not None
            for one, steps in part.each():
                if one.count:
                    seconds = self.gpu.seconds(functools.partial(one.launch, *steps))
                    yield range(begin, begin + one.count), seconds
                    begin += one.count

    def segment_sizes(self) -> dict[str, int]:
        sizes = self.program.sizes
        return {
            name: sizes.get(name) or self.segments[name].host.nbytes for name in sorted(self.used)
        }

    # ---------------------------------------------------------------- contents

    def _contents(self, place: Place) -> np.ndarray:
        """What lies on the device, when all that was sent is done."""
        found = np.empty(place.dims, place.dtype)
        self.gpu.fetch(place.piece, found, place.offset)
        return found

    def read(self, operand: Operand) -> np.ndarray:
        place = self.place(operand)
        if operand.segment in ("control", "totals"):
            raw = np.empty(place.nbytes, np.uint8)
            self.gpu.download(place.piece, raw, place.offset)
        else:
            segment = self.segments[operand.segment]
            raw = segment.read(self.gpu, place.offset, place.nbytes)
        return raw.view(place.dtype).reshape(place.dims)

    @contextlib.contextmanager
    def edit(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        self.gpu.use()
        arrays = {name: self.view(name) for name in names}
        yield arrays
        for name, array in arrays.items():
            self.write(name, array)

    @property
    def nbytes(self) -> int:
        """About how much memory it holds alone, on the host."""
        return self.program.nbytes + 1000 * sum(part.nodes for part in self.parts)

    def view(self, name: str) -> np.ndarray:
        return self.read(self.program.places[name])

    def write(self, name: str, array: Any) -> None:
        operand = self.program.places[name]
        place = self.place(operand)
        segment = self.segments[operand.segment]
        if hasattr(array, "copy_to"):  # on a device already
            array.copy_to(self.gpu, segment.on(self.gpu, writes=True), place)
            return
        contents = np.ascontiguousarray(np.broadcast_to(array, place.dims), place.dtype)
        segment.write(self.gpu, place.offset, contents)
