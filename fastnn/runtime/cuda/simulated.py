"""A device of Numba's simulator: everything above it runs, and is tested, without a GPU."""

from __future__ import annotations

import ctypes
import functools
import time
import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from fastnn.cached import cached
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
from fastnn.runtime.cuda.prepared import arguments_of, words_of


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
        from fastnn.runtime.cuda import compiler

        how = compiler.launch_of(kernel, sizes_of(kernel, operands), dtype)
        if how.empty:
            return nothing
        return Simulated((kernel, dtype, data_dtype), how, operands)

    def has(self, kernel: CudaKernel, dtype: str, data_dtype: str, row: bool = False) -> bool:
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


class Simulated:
    """A launch in the simulator; as `Prepared`."""

    def __init__(self, variant: tuple[CudaKernel, str, str], how: Any, operands: Operands):
        self.variant, self.how, self.operands = variant, how, operands
        self.moving = moving_of(operands)
        self.fixed = {
            name: None if name in self.moving else self._argument(name, operands[name])
            for name in variant[0].params
        }

    def __call__(self, *steps: int) -> None:
        own = {name: self._argument(name, value.at(steps)) for name, value in self.moving.items()}
        self._run({**self.fixed, **own})

    def _run(self, given: dict[str, Any]) -> None:
        from fastnn.runtime.cuda import simulator

        kernel = self.variant[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # overflow and the like are results
            simulator.run(kernel.function, self.how, list(given.values()), kernel.cooperative)

    def _argument(self, name: str, value: Any) -> Any:
        kernel, dtype, data_dtype = self.variant
        parameter = kernel.params[name]
        if not isinstance(parameter, Array):
            number: dict[str, Any] = {
                "real": np.dtype(dtype).type, "double": np.float64, "int": int,
            }  # fmt: skip
            return number[parameter.kind](value)
        if isinstance(value, Place):
            return array_of(value)
        kind = types.storage(parameter.dtype, dtype, data_dtype)
        return np.empty((0,) * len(parameter.dims), kind)

    # ---------------------------------------------------------------- with arguments in memory

    @cached
    def arguments(self) -> list[Any]:
        """As of `Prepared`."""
        kernel, dtype, _ = self.variant
        return arguments_of(kernel, dtype, self.operands)

    @property
    def words(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """As of `Prepared`."""
        return words_of(self.variant[0], self.operands, self.arguments)

    def from_row(self, address: int) -> Launch:
        """As of `Prepared`."""
        kernel, dtype, data_dtype = self.variant
        size = len(self.arguments)

        def launch() -> None:
            row = array_of(Place(Piece(address, 8 * size, None), 0, (size,), "int64"))
            numbers, given = iter(range(size)), {}
            for name, parameter in kernel.params.items():
                word = row[(k := next(numbers)) : k + 1]
                if not isinstance(parameter, Array):
                    kind = types.scalar(parameter.kind, dtype)
                    given[name] = self._argument(name, word.view(kind)[0])
                    continue
                dims = tuple(int(row[next(numbers)]) for _ in parameter.dims)
                piece = Piece(int(word[0]), 0, None)
                data = types.storage(parameter.dtype, dtype, data_dtype)
                absent = not word[0]
                given[name] = self._argument(name, None if absent else Place(piece, 0, dims, data))
            self._run(given)

        return launch


def array_of(place: Place) -> np.ndarray:
    """The NumPy array at a place of a simulated device."""
    raw: Any = (ctypes.c_uint8 * max(place.nbytes, 1)).from_address(place.address)
    raw.owner = place.piece.owner  # keeps the memory alive
    array = np.frombuffer(raw, np.uint8, place.nbytes).view(place.dtype)
    return array.reshape(place.dims)
