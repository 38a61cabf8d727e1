"""A device: its memory, copies, launches and captured graphs; nothing of programs.

`Gpu` is a real one, through `cuda.core` and the driver; `gpu` gives it, or the simulated one
(`simulated.py`). All work of a device goes through one stream, in order.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from fastnn.kernels.declare import CudaKernel
from fastnn.plan.branches import Place as Branch
from fastnn.runtime import _cuda
from fastnn.runtime.cuda import direct, guards, machine
from fastnn.runtime.cuda.device import Device
from fastnn.runtime.cuda.place import Launch, Operands, Piece
from fastnn.runtime.cuda.prepared import prepare
from fastnn.runtime.cuda.simulated import SimulatedGpu
from fastnn.runtime.cuda.streams import Streams

#: arrays that copies on their way may read, at most; then they are waited for
MOST_SOURCES = 256
#: shared memory of a block that needs no asking, static and dynamic together
FREE_SHARED = 48 * 1024


class Gpu(Device):
    """A real device."""

    def __init__(self, number: int):
        super().__init__(number)
        core = _cuda.core()
        self.core, self.driver = core, _cuda.driver()
        self.stream = machine.opened(number).create_stream()
        self.captures = threading.local()  # where a thread's launches go while they are captured
        self.idle_streams: list[Any] = []  # for further branches of a capture
        self._kernels: dict[Any, Any] = {}
        self._sources: list[np.ndarray] = []  # what copies that are on their way read
        self._lane: tuple[Any, Any] | None = None

    def use(self) -> Any:
        """Make it this thread's device, which others may have changed; returns `cuda.core`'s."""
        device = self.core.Device(self.number)  # an object of this thread
        device.set_current()
        return device

    def synchronize(self) -> None:
        """Wait for the work of all streams, those of other libraries included."""
        self.use().sync()

    def sync(self) -> None:
        """Wait until everything that was sent is done."""
        self.use()
        sources, self._sources = self._sources, []
        try:
            self.stream.sync()
        except Exception as error:
            raise self.failure(error) from error
        finally:
            del sources
        if guards.mode():
            self.guards.check()

    def works(self) -> bool:
        status = int(self.driver.cuStreamQuery(self.stream.handle)[0])
        return status in (0, 600)  # success, not ready

    def _check(self, result: tuple[Any, ...]) -> Any:
        """The value of a driver's function, or an error."""
        error, *values = result
        if int(error) != 0:
            raise self.failure(RuntimeError(error.name))
        return values[0] if values else None

    # ---------------------------------------------------------------- memory

    def _allocate(self, size: int) -> Piece:
        if guards.mode():
            return self._allocate_alone(size)
        buffer = self.use().allocate(size, stream=self.stream)
        buffer.fill(0, stream=self.stream)
        return Piece(int(buffer.handle), size, buffer)

    def _allocate_alone(self, size: int) -> Piece:
        """Memory that is no part of a pool, of exactly this size."""
        core, driver = self.core, self.driver
        self.use()
        address = int(self._check(driver.cuMemAlloc(size)))
        piece = Piece(address, size, Owner())
        weakref.finalize(piece.owner, _free, core, driver.cuMemFree, self.number, address)
        self._check(driver.cuMemsetD8Async(address, 0, size, self.stream.handle))
        return piece

    def pinned(self, size: int) -> np.ndarray:
        """Bytes of the host that copies can use without the CPU: page-locked memory."""
        self.use()
        address = int(self._check(self.driver.cuMemHostAlloc(size, 0)))
        raw: Any = (ctypes.c_uint8 * size).from_address(address)
        array = np.frombuffer(raw, np.uint8)
        array[:] = 0
        weakref.finalize(raw, _free, self.core, self.driver.cuMemFreeHost, self.number, address)
        return array

    def trim(self) -> None:
        self.sync()
        pool = self._check(self.driver.cuDeviceGetMemPool(self.number))
        self._check(self.driver.cuMemPoolTrimTo(pool, 0))

    def upload(self, host: np.ndarray, copy: Piece, offset: int = 0) -> None:
        """Host to device; `host` (unless it is pinned) may be written to when this returns.

        An array that was made for the copy lives until the next `sync`: where the device reads
        pageable memory by itself, the copy may be under way when the call returns.
        """
        if host.nbytes:
            self.use()
            source = np.ascontiguousarray(host)
            self._check(
                self.driver.cuMemcpyHtoDAsync(
                    copy.address + offset, source.ctypes.data, source.nbytes, self.stream.handle
                )
            )
            self._sources.append(source)
            if len(self._sources) > MOST_SOURCES:
                self.sync()

    def download(self, copy: Piece, host: np.ndarray, offset: int = 0) -> None:
        """Device to host, once everything before is done."""
        self.start_download(copy, host, offset)
        self.sync()

    def fetch(self, copy: Piece, host: np.ndarray, offset: int = 0) -> None:
        self.start_download(copy, host, offset)
        self.stream.sync()

    def start_download(self, copy: Piece, host: np.ndarray, offset: int = 0) -> None:
        """Like `download`, without waiting if `host` is pinned."""
        if host.nbytes:
            self.use()
            self._check(
                self.driver.cuMemcpyDtoHAsync(
                    host.ctypes.data, copy.address + offset, host.nbytes, self.stream.handle
                )
            )

    def duplicate(self, source: Piece, target: Piece, size: int, offset: int = 0) -> None:
        """Device to device."""
        self.use()
        self._check(
            self.driver.cuMemcpyDtoDAsync(
                target.address + offset, source.address, size, self.stream.handle
            )
        )

    @property
    def lane(self) -> tuple[Any, Any]:
        """The stream of copies beside the work, and the event after the last of them."""
        if self._lane is None:
            stream = self.use().create_stream()
            self._lane = stream, stream.record()
        return self._lane

    def forwarding(self, host: np.ndarray, staging: Piece, target: Piece, size: int) -> Launch:
        """A function that copies pinned bytes of the host to `staging`, beside the work of the
        stream, and from there to `target`, in the stream's turn. (Its thread says `use` before.)"""
        return direct.forwarding(self, host, staging, target, size)

    def look(self, piece: Piece, answer: np.ndarray) -> tuple[Launch, Launch]:
        """A function that has a piece copied to pinned bytes, and one that waits until the last
        such copy is there. (Their thread says `use` before.)"""
        self.use()
        return direct.look(self, piece, answer)

    # ---------------------------------------------------------------- launches

    def prepared(
        self, kernel: CudaKernel, dtype: str, data_dtype: str, operands: Operands,
        like: Launch | None = None, changed: Collection[str] = (),
    ) -> Launch:  # fmt: skip
        """A function that launches a kernel; compiles it if need be.

        All is prepared once. In a step of loops only the words of operands that move differ.

        Args:
            kernel, dtype, data_dtype: what is launched.
            operands: on what.
            like: a launch of it, prepared before, on operands that are the same but for `changed`.
        """
        return prepare(self, kernel, dtype, data_dtype, operands, like, changed)

    def config(self, how: Any, cooperative: bool) -> Any:
        """A launch's grid, threads and shared memory for `cuda.core`."""
        grid, cluster = how.grid, None
        if how.cluster > 1:  # then the grid is one of clusters
            grid, cluster = (grid[0] // how.cluster, 1, 1), (how.cluster, 1, 1)
        return self.core.LaunchConfig(
            grid=grid, cluster=cluster, block=how.threads, shmem_size=how.shared,
            is_cooperative=cooperative,
        )  # fmt: skip

    def current_stream(self) -> int:
        """The handle of the stream on which this thread's launches go."""
        return int(getattr(self.captures, "stream", self.stream).handle)

    def has(self, kernel: CudaKernel, dtype: str, data_dtype: str, row: bool = False) -> bool:
        """Whether a kernel's code has been loaded; with `row` as of `code`."""
        variant = (kernel, dtype, data_dtype)
        return ((*variant, "row") if row else variant) in self._kernels

    def code(
        self, kernel: CudaKernel, dtype: str, data_dtype: str, shared: int, cluster: int,
        row: bool = False,
    ) -> Any:  # fmt: skip
        """A kernel that is loaded, with leave for so much shared memory and such clusters; with
        `row` the one that reads its arguments from a row (`rows.py`)."""
        from fastnn.runtime.cuda import compiler, rows

        variant = (kernel, dtype, data_dtype)
        key = (*variant, "row") if row else variant
        if key not in self._kernels:
            self.use()
            own = *variant, self.cc
            cubin = rows.code(*own) if row else compiler.code(*own).cubin
            module = self.core.ObjectCode.from_cubin(cubin)
            entry = module.get_kernel(compiler.entry_name(kernel))
            static = self._check(
                self.driver.cuKernelGetAttribute(
                    self.driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
                    entry.handle, self.number,
                )
            )  # fmt: skip
            self._kernels[key] = [entry, FREE_SHARED - int(static), _cuda.PORTABLE_CLUSTER]
        found, attribute = self._kernels[key], self.driver.CUfunction_attribute
        # beyond these the driver wants to be asked
        for place, wanted, kind, value in (
            (1, shared, attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared),
            (2, cluster, attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
        ):
            if wanted > found[place]:
                self._check(
                    self.driver.cuKernelSetAttribute(kind, value, found[0].handle, self.number)
                )
                found[place] = wanted
        return found[0]

    def capture(self, launches: Iterable[Launch], places: Sequence[Branch]) -> Launch | None:
        """A function that replays launches as one graph (nothing runs now), each where its place
        says; without places in one branch."""
        builder = self.use().create_graph_builder().begin_building()
        streams = Streams(self, builder.stream, places)
        try:
            for number, launch in enumerate(launches):
                self.captures.stream = streams.begin(number)
                launch()
                streams.end(number)
            streams.join()
        finally:
            self.captures.stream = self.stream
            builder.end_building()
            streams.close()
        graph = builder.complete()
        graph.upload(self.stream)
        return functools.partial(graph.launch, self.stream)

    def seconds(self, launch: Launch) -> float:
        """How long the device takes for a launch."""
        options = self.core.EventOptions(timing_enabled=True)
        begin = self.stream.record(options=options)
        launch()
        end = self.stream.record(options=options)
        self.sync()
        return float(end - begin) / 1e3

    def mark(self) -> Launch:
        """A function that waits until everything before this moment is done."""
        event = self.stream.record(options=self.core.EventOptions(blocking_sync=True))

        def wait() -> None:
            try:
                event.sync()
            except Exception as error:
                raise self.failure(error) from error

        return wait


class Owner:
    """Memory that is freed with it."""


def _free(core: Any, free: Callable[[int], Any], number: int, address: int) -> None:
    """Free memory in whichever thread it is dropped."""
    core.Device(number).set_current()
    free(address)


# -------------------------------------------------------------------- devices of this machine

_lock = threading.Lock()
_opened: dict[int, Gpu | SimulatedGpu] = {}


def gpu(device: str) -> Gpu | SimulatedGpu:
    """The device "cuda:N"; always the same object."""
    number = int(device.removeprefix("cuda:"))
    with _lock:
        if number not in _opened:
            _opened[number] = SimulatedGpu(number) if _cuda.simulated() else Gpu(number)
        return _opened[number]


def trim_all() -> None:
    """Give back what the pools of the devices in use keep of freed memory."""
    for found in list(_opened.values()):
        found.trim()
