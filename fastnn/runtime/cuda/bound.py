"""A program that is bound: its operands' places on a device, its launches, a step at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.errors import ProgramError
from fastnn.graph.fold import fold
from fastnn.kernels import control_block, types
from fastnn.kernels.cuda import joined
from fastnn.kernels.declare import CUDA_KERNELS, Array, CudaKernel, kernel_of
from fastnn.plan.branches import END, Touch, branches, touches_of
from fastnn.plan.program import Operand, PlannedCall, Program
from fastnn.runtime import _cuda, poison
from fastnn.runtime.cuda import ahead, counterpart
from fastnn.runtime.cuda.place import Launch, Place
from fastnn.runtime.segment import Segment

if TYPE_CHECKING:
    from fastnn.runtime.cuda.execute import CudaRuntime


class CudaProgram:
    """A program with its memory on a device, ready to be launched."""

    def __init__(self, program: Program, runtime: CudaRuntime, segments: dict[str, Segment]):
        self.program, self.runtime = program, runtime
        #: the calls of a step, loops unrolled: their launches are recorded in one graph
        self.planned = [call for _, call, _ in program.steps()]
        self.gpu, self.device_control = runtime.gpu, runtime.device_control
        self.segments = segments
        uses = [(o, p.writes) for call in self.planned for _, p, o in call.arrays()]
        self.written = {o.segment for o, writes in uses if writes} - {"control", "totals"}
        self.used = {o.segment for o, _ in uses} - {"control", "totals"}
        for name in self.used - set(segments):
            raise ProgramError(f"no memory for {name!r}")
        groups = program.launches()
        numbers = [self._host_number(group) for group in groups]
        #: what takes the place of functions of the host, by the first call of its launch
        exchanges = {
            group[0]: runtime.exchanges[number]
            for group, number in zip(groups, numbers, strict=True)
            if number in runtime.exchanges
        }
        self.exchanges = list(exchanges.values())
        numbers = [None if number in runtime.exchanges else number for number in numbers]
        #: the functions of the host that are called between the parts of a step
        self.hosts = [number for number in numbers if number is not None]
        own = [group for group, number in zip(groups, numbers, strict=True) if number is None]
        found = [self._launch(group) for group in own if group[0] not in exchanges]
        if not _cuda.simulated():
            ahead.compile_missing((k, program.dtype, data, self.gpu.cc) for k, data, _ in found)
        kernels = iter(found)
        launches = [
            self._exchange(group[0], exchanges[group[0]])
            if group[0] in exchanges
            else self._prepared(*next(kernels))
            for group in own
        ]
        marks = _cuda.ranges()
        if marks is not None:
            launches = [
                _marked(marks, launch, [self.planned[n] for n in group])
                for group, launch in zip(own, launches, strict=True)
            ]
        #: numbers of the calls that each launch makes, and the launch
        self._launches = list(zip(own, launches, strict=True))
        #: launches of single calls, by number
        self._single = {
            group[0]: launch for group, launch in zip(own, launches, strict=True) if len(group) == 1
        }
        self.saved: Any = None
        checks = any(kernel_of(call.kernel).traits.checks for call in self.planned)
        if "buffers" in self.written and (checks or self.hosts or exchanges):
            self.saved = runtime.saved_buffers(segments["buffers"])
            launches.append(self._keep())
        poisons, touches = self._poison() if poison.enabled() else ([], [])
        #: the launches of a step, in the parts between which functions of the host are called
        self.parts: list[list[Launch]] = [poisons]
        #: what each of them touches
        self.touches: list[list[list[Touch]]] = [touches]
        rest, groups_left = iter(launches), iter(own)
        for number in numbers:
            if number is None:
                self.parts[-1].append(next(rest))
                group = next(groups_left)
                calls = (self.planned[k] for k in group)
                touched = [t for c in calls for t in touches_of(program, c)]
                if group[0] in exchanges:  # a stop is exchanged, too
                    touched.append(Touch("control", 0, END, "w"))
                self.touches[-1].append(touched)
            else:
                self.parts.append([])
                self.touches.append([])
        for keep in rest:
            self.parts[-1].append(keep)
            self.touches[-1].append([Touch("buffers", 0, END, "r"), Touch("control", 0, END, "r")])
        #: what replays them, as a graph each
        self.replays: list[Launch | None] = [None] * len(self.parts)
        # a graph that is replayed has no ranges
        self.runs, self.graphs = 0, runtime.graphs and marks is None

    # ---------------------------------------------------------------- preparation

    def _dtype(self, operand: Operand) -> str:
        kind = types.storage(operand.dtype, self.program.dtype)
        return kind or self.segments[operand.segment].host.dtype.name

    def place(self, operand: Operand, rank: int | None = None) -> Place:
        """Where an operand lies on the device."""
        dtype, dims, offset = self._dtype(operand), operand.dims, operand.offset
        if operand.segment in ("control", "totals"):
            at = 0 if operand.segment == "control" else 8 * control_block.LENGTH
            return Place(self.device_control.piece, at + offset, dims, dtype)
        segment = self.segments[operand.segment]
        if operand.external:
            dims = fold(segment.host.shape, rank or len(dims))
        return Place(segment.place(self.gpu), offset, dims, dtype)

    def _operands(self, call: PlannedCall) -> tuple[CudaKernel, str, dict[str, Any]]:
        """A call's kernel, the element type of the data that it reads, and its operands."""
        kernel = counterpart.find(call.kernel, call.scope)
        operands: dict[str, Any] = {}
        data_dtype = ""
        for (name, parameter), operand in zip(kernel.params.items(), call.operands, strict=True):
            if isinstance(parameter, Array) and isinstance(operand, Operand):
                operands[name] = self.place(operand, len(parameter.dims))
                if parameter.dtype == "d":
                    data_dtype = operands[name].dtype
            else:
                operands[name] = operand
        return kernel, data_dtype, operands

    def _host_number(self, numbers: Sequence[int]) -> int | None:
        """Which function of the host a launch stands for; None for one of the device."""
        call = self.planned[numbers[0]]
        return int(call.operands[0]) if kernel_of(call.kernel).traits.host else None  # type: ignore

    def _prepared(self, kernel: CudaKernel, data: str, operands: dict[str, Any]) -> Launch:
        return self.gpu.prepared(kernel, self.program.dtype, data, operands)

    def _exchange(self, number: int, exchange: Any) -> Launch:
        """What stands for a call of the host that takes the mean over other processes."""
        operands = [o for _, _, o in self.planned[number].arrays()]
        stop = self.place(Operand("control", 0, (control_block.LENGTH,), "i"))
        launch: Launch = exchange.launch([self.place(o) for o in operands], stop)
        return launch

    def _launch(self, numbers: Sequence[int]) -> tuple[CudaKernel, str, dict[str, Any]]:
        """`_operands` of a launch that makes so many calls."""
        found = [self._operands(self.planned[number]) for number in numbers]
        if len(found) == 1:
            return found[0]
        kernels = [kernel for kernel, _, _ in found]
        operands = {
            own: mine[name]
            for k, (kernel, _, mine) in enumerate(found)
            for name, own in joined.named(kernel, k).items()
        }
        return joined.joined(kernels), "", operands

    def _keep(self) -> Launch:
        size = self.segments["buffers"].host.size
        own = Operand("buffers", 0, (size,), "f")
        control = Operand("control", 0, (control_block.LENGTH,), "i")
        saved = Place(self.saved, 0, (size,), self.program.dtype)
        operands = {"x": self.place(own), "control": self.place(control), "saved": saved}
        return self.gpu.prepared(CUDA_KERNELS["keep"], self.program.dtype, "", operands)

    def _poison(self) -> tuple[list[Launch], list[list[Touch]]]:
        """Launches that fill memory before a step (see `fastnn/runtime/poison.py`), and where."""
        found, touches = [], []
        for segment, begin, size in poison.spans(self.program):
            memory = self.place(Operand(segment, begin, (size // 8,), "i"))
            operands: dict[str, Any] = {"memory": memory, "word": poison.WORD}
            found.append(self.gpu.prepared(CUDA_KERNELS["fill"], self.program.dtype, "", operands))
            touches.append([Touch(segment, begin, begin + size, "w")])
        return found, touches

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
        self.runs += 1
        for exchange in self.exchanges:
            exchange.begin()
        for number, part in enumerate(self.parts):
            if number and call_host is not None:
                call_host(self, self.hosts[number - 1])
            if self.graphs and self.runs == 2:
                self.replays[number] = self.gpu.capture(part, branches(self.touches[number]))
            replay = self.replays[number]
            if replay is not None:
                replay()
            else:
                _launch_all(part)

    def put_back(self) -> None:
        """After a stop: the buffers as they were after the last good step."""
        if self.saved is not None:
            buffers = self.segments["buffers"]
            self.gpu.duplicate(self.saved, buffers.on(self.gpu, writes=True), buffers.host.nbytes)

    def saved_spans(self) -> list[tuple[str, int, int]]:
        """What updates copy in a doubtful step: segment, first byte, bytes."""
        return [
            (o.segment.removeprefix("saved/"), o.offset, self.place(o).nbytes)
            for call in self.planned
            for _, parameter, o in call.arrays()
            if parameter.writes and o.segment.startswith("saved/")
        ]

    def run_call(self, number: int) -> None:
        self.runtime.acquire([self])
        if number not in self._single:
            kernel, data, operands = self._launch([number])
            self._single[number] = self.gpu.prepared(kernel, self.program.dtype, data, operands)
        self._single[number]()

    def timed(self) -> Iterator[tuple[Sequence[int], float]]:
        self.runtime.acquire([self])
        for numbers, launch in self._launches:
            yield numbers, self.gpu.seconds(launch)

    def segment_sizes(self) -> dict[str, int]:
        sizes = self.program.sizes
        return {
            name: sizes.get(name) or self.segments[name].host.nbytes for name in sorted(self.used)
        }

    # ---------------------------------------------------------------- contents

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
        return self.program.nbytes + 1000 * sum(map(len, self.parts))

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


def _marked(marks: Any, launch: Launch, calls: Sequence[PlannedCall]) -> Launch:
    """A launch within NVTX ranges: the layer's name, and in it the kernel's."""
    layer = " + ".join(dict.fromkeys(call.scope for call in calls if call.scope)) or "(step)"
    kernel = joined.AND.join(call.kernel for call in calls)

    def within() -> None:
        marks.push_range(layer, domain="fastnn")
        marks.push_range(kernel, domain="fastnn")
        try:
            launch()
        finally:
            marks.pop_range(domain="fastnn")
            marks.pop_range(domain="fastnn")

    return within


def _launch_all(launches: Sequence[Launch]) -> None:
    for launch in launches:
        launch()
