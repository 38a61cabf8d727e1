"""A device of Numba's simulator: everything above it runs, and is tested, without a GPU."""

from __future__ import annotations

import ctypes
import functools
import time
import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from fastnn.kernels import types
from fastnn.kernels.declare import Array, CudaKernel
from fastnn.plan.branches import Place as Branch
from fastnn.runtime.cuda import guards
from fastnn.runtime.cuda.device import Device
from fastnn.runtime.cuda.place import (
    Launch,
    Operands,
    Piece,
    Place,
    moving_of,
    nothing,
    sizes_of,
)


class SimulatedGpu(Device):
    """A device of Numba's simulator: kernels run as plain Python, memory is the host's."""

    def use(self) -> None:
        """Nothing to do."""

    synchronize = use

    def sync(self) -> None:
        """Everything is done already."""
        if guards.mode():
            self.guards.check()

    def _allocate(self, size: int) -> Piece:
        raw = np.zeros(size, np.uint8)
        return Piece(raw.ctypes.data, size, raw)

    def trim(self) -> None:
        """Nothing is kept."""

    def pinned(self, size: int) -> np.ndarray:
        return np.zeros(size, np.uint8)

    def upload(self, host: np.ndarray, copy: Piece, offset: int = 0) -> None:
        if host.nbytes:
            host = np.ascontiguousarray(host)
            ctypes.memmove(copy.address + offset, host.ctypes.data, host.nbytes)

    def download(self, copy: Piece, host: np.ndarray, offset: int = 0) -> None:
        if host.nbytes:
            ctypes.memmove(host.ctypes.data, copy.address + offset, host.nbytes)

    start_download = fetch = download

    def duplicate(self, source: Piece, target: Piece, size: int, offset: int = 0) -> None:
        ctypes.memmove(target.address + offset, source.address, size)

    def forwarding(self, host: np.ndarray, staging: Piece, target: Piece, size: int) -> Launch:
        def forward() -> None:
            ctypes.memmove(staging.address, host.ctypes.data, size)
            ctypes.memmove(target.address, staging.address, size)

        return forward

    def look(self, piece: Piece, answer: np.ndarray) -> tuple[Launch, Launch]:
        return functools.partial(self.download, piece, answer), nothing

    def prepared(
        self, kernel: CudaKernel, dtype: str, data_dtype: str, operands: Operands,
        like: Launch | None = None, changed: Collection[str] = (),
    ) -> Launch:  # fmt: skip
        from fastnn.runtime.cuda import compiler, simulator

        how = compiler.launch_of(kernel, sizes_of(kernel, operands), dtype)
        if how.empty:
            return nothing
        number: dict[str, Any] = {"real": np.dtype(dtype).type, "double": np.float64, "int": int}

        def argument(name: str, value: Any) -> Any:
            parameter = kernel.params[name]
            if not isinstance(parameter, Array):
                return number[parameter.kind](value)
            if isinstance(value, Place):
                return array_of(value)
            kind = types.storage(parameter.dtype, dtype, data_dtype)
            return np.empty((0,) * len(parameter.dims), kind)

        moving = moving_of(operands)
        arguments = {n: None if n in moving else argument(n, operands[n]) for n in kernel.params}

        def launch(*steps: int) -> None:
            own = {name: argument(name, value.at(steps)) for name, value in moving.items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # overflow and the like are results
                given = list({**arguments, **own}.values())
                simulator.run(kernel.function, how, given, kernel.cooperative)

        return launch

    def has(self, kernel: CudaKernel, dtype: str, data_dtype: str) -> bool:
        """Yes: kernels are plain Python."""
        return True

    def capture(self, launches: Iterable[Launch], places: Sequence[Branch]) -> Launch | None:
        """None: there is nothing to gain."""
        return None

    def seconds(self, launch: Launch) -> float:
        begin = time.perf_counter()
        launch()
        return time.perf_counter() - begin

    def mark(self) -> Launch:
        return lambda: None


def array_of(place: Place) -> np.ndarray:
    """The NumPy array at a place of a simulated device."""
    raw: Any = (ctypes.c_uint8 * max(place.nbytes, 1)).from_address(place.address)
    raw.owner = place.piece.owner  # keeps the memory alive
    array = np.frombuffer(raw, np.uint8, place.nbytes).view(place.dtype)
    return array.reshape(place.dims)
