"""A device: its memory, copies, launches and captured graphs; nothing of programs.

`Gpu` is a real one, through `cuda.core` and the driver. `SimulatedGpu` runs kernels in Numba's
simulator on arrays of the host, so that everything above runs, and is tested, without a device.
All work of a device goes through one stream, in order.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.errors import DeviceError, FastnnError, OutOfMemoryError
from fastnn.kernels import types
from fastnn.kernels.declare import Array, CudaKernel
from fastnn.runtime import _cuda

#: arrays that copies on their way may read, at most; then they are waited for
MOST_SOURCES = 256
#: shared memory of a block that needs no asking, static and dynamic together
FREE_SHARED = 48 * 1024
#: every piece of memory begins at a multiple of this many bytes
ALIGNMENT = 256
WHAT_TO_LOWER = {
    "work": "lower batch_size, or the length of sequences",
    "params": "use a smaller model, or dtype='float32'",
    "data": "train on a part of the data at a time, or pass batches from an iterable",
    "result": "predict fewer samples at a time",
}


@dataclass(frozen=True)
class Piece:
    """Memory on a device: an address, a size in bytes, and whoever keeps it alive."""

    address: int
    size: int
    owner: Any


@dataclass(frozen=True)
class Place:
    """An array on a device: where it begins in a piece, its sizes and NumPy type name."""

    piece: Piece
    offset: int
    dims: tuple[int, ...]
    dtype: str

    @property
    def address(self) -> int:
        return self.piece.address + self.offset

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.dims, dtype=np.int64)) * np.dtype(self.dtype).itemsize


#: operands by parameter: an array's place, a number, or None for an absent array
Operands = Mapping[str, Place | float | int | None]
Launch = Callable[[], None]


def sizes_of(kernel: CudaKernel, operands: Operands) -> dict[str, int]:
    """What a kernel's `launch` is told: dimension letters and integer parameters."""
    sizes: dict[str, int] = {}
    for name, parameter in kernel.params.items():
        value = operands[name]
        if not isinstance(parameter, Array):
            if parameter.kind == "int":
                sizes[name] = int(value)  # type: ignore[arg-type]
        elif isinstance(value, Place):
            sizes.update(zip(parameter.dims, value.dims, strict=True))
        else:
            for letter in parameter.dims:
                sizes.setdefault(letter, 0)
    return sizes


class _Device:
    """What both kinds of device share."""

    def __init__(self, number: int):
        self.number, self.device = number, f"cuda:{number}"
        self.name = device_name(number)
        self.cc = _cuda.compute_capability(number)

    def allocate(self, size: int, name: str) -> Piece:
        """So many bytes, all zero; `name` says what for."""
        size = -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        try:
            return self._allocate(size)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise self.failure(error) from error
        self.trim()  # what was freed lies in the driver's pool, perhaps in pieces
        try:
            return self._allocate(size)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise self.failure(error) from error
            free, total = memory_info(self.number)
            advice = WHAT_TO_LOWER.get(name.split("/")[0], "lower batch_size")
            raise OutOfMemoryError(
                f"{self.device} ({self.name}) is out of memory: {_amount(size)} were asked for "
                f"{name!r}, {_amount(free)} of {_amount(total)} are free; {advice}, free what else "
                "is on the device, or use device='cpu'"
            ) from None

    def _allocate(self, size: int) -> Piece:
        raise NotImplementedError

    def trim(self) -> None:
        """Give freed memory that is kept for later back to the device."""

    def works(self) -> bool:
        """Whether the device still does what it is asked for."""
        return True

    def failure(self, error: Exception, during: str = "") -> Exception:
        """What to raise for an error that came up in the middle of something.

        A fault of a kernel, or a device that has gone, is the end of the process's context: every
        later call fails, too. What the driver only refused leaves the device as it was.
        """
        if isinstance(error, FastnnError):
            return error
        what = f"{self.device} ({self.name}) failed{during}: {error}. "
        if self.works():
            return DeviceError(
                what + "It was refused before anything was computed; the process can go on with "
                "the device: make the layer or the batch smaller, or use device='cpu'"
            )
        return DeviceError(
            what + "What was computed since the last checkpoint is lost, and this process can't "
            "use the device any more: start it anew and go on from a checkpoint "
            "(fit(resume=...)), on this device or with device='cpu'"
        )


class Gpu(_Device):
    """A real device."""

    def __init__(self, number: int):
        super().__init__(number)
        core = _cuda.core()
        self.core, self.driver = core, _cuda.driver()
        self.stream = self.use().create_stream()
        self._capture = threading.local()  # a thread's launches go into its graph in capture
        self._kernels: dict[Any, Any] = {}
        self._sources: list[np.ndarray] = []  # what copies that are on their way read

    def use(self) -> Any:
        """Make it this thread's device, which others may have changed; returns `cuda.core`'s."""
        device = self.core.Device(self.number)  # an object of this thread
        device.set_current()
        return device

    def settle(self) -> None:
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
        buffer = self.use().allocate(size, stream=self.stream)
        buffer.fill(0, stream=self.stream)
        return Piece(int(buffer.handle), size, buffer)

    def pinned(self, size: int) -> np.ndarray:
        """Bytes of the host that copies can use without the CPU: page-locked memory."""
        self.use()
        address = int(self._check(self.driver.cuMemHostAlloc(size, 0)))
        raw: Any = (ctypes.c_uint8 * size).from_address(address)
        array = np.frombuffer(raw, np.uint8)
        array[:] = 0
        weakref.finalize(raw, _free_pinned, self.core, self.driver, self.number, address)
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

    # ---------------------------------------------------------------- launches

    def prepared(
        self, kernel: CudaKernel, dtype: str, data_dtype: str, operands: Operands
    ) -> Launch:
        """A function that launches a kernel; compiles it if need be."""
        from fastnn.runtime.cuda import compiler

        how = compiler.launch_of(kernel, sizes_of(kernel, operands), dtype)
        if how.empty:
            return _nothing
        code = self._kernel(kernel, dtype, data_dtype, how.shared)
        config = self.core.LaunchConfig(
            grid=how.grid, block=how.threads, shmem_size=how.shared,
            is_cooperative=kernel.cooperative,
        )  # fmt: skip
        values = {
            n: (v.address, v.dims)
            if isinstance(v, Place)
            else (0, (0,) * len(kernel.arrays[n].dims))
            if v is None
            else v
            for n, v in operands.items()
        }
        arguments = compiler.arguments(kernel, dtype, values)
        start, capture, stream = self.core.launch, self._capture, self.stream

        def launch() -> None:
            try:
                start(getattr(capture, "graph", stream), config, code, *arguments)
            except Exception as error:
                raise self.failure(error, f" to launch {kernel.name!r}, {how}") from error

        return launch

    def _kernel(self, kernel: CudaKernel, dtype: str, data_dtype: str, shared: int) -> Any:
        from fastnn.runtime.cuda import compiler

        key = (kernel, dtype, data_dtype)
        if key not in self._kernels:
            self.use()
            cubin = compiler.code(kernel, dtype, data_dtype, self.cc).cubin
            module = self.core.ObjectCode.from_cubin(cubin)
            entry = module.get_kernel(compiler.ENTRY)
            static = self._check(
                self.driver.cuKernelGetAttribute(
                    self.driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
                    entry.handle, self.number,
                )
            )  # fmt: skip
            self._kernels[key] = [entry, FREE_SHARED - int(static)]
        found = self._kernels[key]
        if shared > found[1]:  # beyond that the driver wants to be asked
            attribute = self.driver.CUfunction_attribute
            self._check(
                self.driver.cuKernelSetAttribute(
                    attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared,
                    found[0].handle, self.number,
                )
            )  # fmt: skip
            found[1] = shared
        return found[0]

    def capture(self, launches: Callable[[], None]) -> Launch | None:
        """A function that replays, as one graph, what `launches()` launches (without running it
        now)."""
        builder = self.use().create_graph_builder().begin_building()
        self._capture.graph = builder
        try:
            launches()
        finally:
            del self._capture.graph
            builder.end_building()
        graph = builder.complete()
        graph.upload(self.stream)
        return functools.partial(graph.launch, self.stream)

    def mark(self) -> Launch:
        """A function that waits until everything before this moment is done."""
        event = self.stream.record(options=self.core.EventOptions(blocking_sync=True))

        def wait() -> None:
            try:
                event.sync()
            except Exception as error:
                raise self.failure(error) from error

        return wait


class SimulatedGpu(_Device):
    """A device of Numba's simulator: kernels run as plain Python, memory is the host's."""

    def use(self) -> None:
        """Nothing to do."""

    sync = settle = use

    def _allocate(self, size: int) -> Piece:
        raw = np.zeros(size, np.uint8)
        return Piece(raw.ctypes.data, size, raw)

    def pinned(self, size: int) -> np.ndarray:
        return np.zeros(size, np.uint8)

    def upload(self, host: np.ndarray, copy: Piece, offset: int = 0) -> None:
        if host.nbytes:
            host = np.ascontiguousarray(host)
            ctypes.memmove(copy.address + offset, host.ctypes.data, host.nbytes)

    def download(self, copy: Piece, host: np.ndarray, offset: int = 0) -> None:
        if host.nbytes:
            ctypes.memmove(host.ctypes.data, copy.address + offset, host.nbytes)

    start_download = download

    def duplicate(self, source: Piece, target: Piece, size: int, offset: int = 0) -> None:
        ctypes.memmove(target.address + offset, source.address, size)

    def prepared(
        self, kernel: CudaKernel, dtype: str, data_dtype: str, operands: Operands
    ) -> Launch:
        from fastnn.runtime.cuda import compiler, simulator

        how = compiler.launch_of(kernel, sizes_of(kernel, operands), dtype)
        if how.empty:
            return _nothing
        number: dict[str, Any] = {"real": np.dtype(dtype).type, "double": np.float64, "int": int}
        arguments: list[Any] = []
        for name, parameter in kernel.params.items():
            value = operands[name]
            if not isinstance(parameter, Array):
                arguments.append(number[parameter.kind](value))
            elif isinstance(value, Place):
                arguments.append(array_of(value))
            else:
                kind = types.storage(parameter.dtype, dtype, data_dtype)
                arguments.append(np.empty((0,) * len(parameter.dims), kind))

        def launch() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # overflow and the like are results
                simulator.run(kernel.function, how, arguments, kernel.cooperative)

        return launch

    def capture(self, launches: Callable[[], None]) -> Launch | None:
        """None: there is nothing to gain."""
        return None

    def mark(self) -> Launch:
        return lambda: None


def _nothing() -> None:
    """The launch of a kernel over no items."""


def _free_pinned(core: Any, driver: Any, number: int, address: int) -> None:
    """Free page-locked memory, in whichever thread it is dropped."""
    core.Device(number).set_current()
    driver.cuMemFreeHost(address)


def array_of(place: Place) -> np.ndarray:
    """The NumPy array at a place of a simulated device."""
    raw: Any = (ctypes.c_uint8 * max(place.nbytes, 1)).from_address(place.address)
    raw.owner = place.piece.owner  # keeps the memory alive
    array = np.frombuffer(raw, np.uint8, place.nbytes).view(place.dtype)
    return array.reshape(place.dims)


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


def device_count() -> int:
    """How many devices there are, where CUDA can be used."""
    return 1 if _cuda.simulated() else len(_cuda.core().Device.get_all_devices())


def device_name(number: int) -> str:
    return "Numba's simulator" if _cuda.simulated() else str(_cuda.core().Device(number).name)


def memory_info(number: int) -> tuple[int, int]:
    """Bytes that are free, and in all."""
    if _cuda.simulated():
        return 0, 0
    _cuda.core().Device(number).set_current()
    error, free, total = _cuda.driver().cuMemGetInfo()
    return (int(free), int(total)) if int(error) == 0 else (0, 0)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "OUT_OF_MEMORY" in str(error)


def _amount(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
