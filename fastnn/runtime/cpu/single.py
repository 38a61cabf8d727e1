"""Programs that run once at a time, with inputs from the caller: steps and single predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.errors import DataError
from fastnn.kernels import control_block
from fastnn.runtime.cpu.team import own_team, prepare

if TYPE_CHECKING:
    from fastnn.runtime.cpu.runtime import CpuRuntime

#: arrays of at least this many bytes are read where they are; copying a smaller one costs less
BY_REFERENCE = 8192


class CpuSingle:
    """Programs that run once at a time, in the caller's thread and helpers that wait awake."""

    def __init__(
        self, runtime: CpuRuntime, bounds: Sequence[Any], names: Sequence[str],
        arrays: Sequence[Any],
    ):  # fmt: skip
        main = bounds[-1]
        self.store, self.runtime, self.control = runtime.store, runtime, runtime.control
        self.keeps = main.keeps
        self.buffers, self.saved = (runtime.memory[n] for n in ("buffers", "saved/buffers"))
        self.loss = main.view("loss").reshape(1) if "loss" in main.program.places else np.zeros(1)
        self.description = runtime.describe([(b, 1) for b in bounds], again=True)
        self.execute = self._start if self.description.asks else prepare(self.description, True)
        self.writes = [
            _Input(bounds, name, array).write for name, array in zip(names, arrays, strict=True)
        ]

    def run(self, arrays: Sequence[Any]) -> None:
        if self.store.away:
            self.store.bring_to_host()
        for write, array in zip(self.writes, arrays, strict=True):
            write(array)
        self.runtime.kept = self.keeps
        if self.keeps:  # as `begin` does
            self.saved[...] = self.buffers
        self.execute()
        if self.control[control_block.STOP] == control_block.KERNEL_FAILED:
            self.runtime.fail(self.description.segments)

    def _start(self) -> None:
        """Run in threads, while this one calls functions of the host."""
        runtime = self.runtime
        runtime.synchronize()
        self.control[[control_block.STOP_REQUEST, control_block.STOP]] = 0
        runtime.start(own_team(self.description.workers), self.description, lambda: None)


class _Input:
    """Where an input's numbers go: into the program's own memory, or by reference.

    By reference means that the array's address is written into the records of the kernels that
    read it.
    """

    def __init__(self, bounds: Sequence[Any], name: str, example: Any):
        main, self.name = bounds[-1], name
        place = main.program.places[name]
        self.own = main.view(name)
        self.own_address = int(self.own.ctypes.data)
        self.address, self.fed = self.own_address, main.fed
        self.small = example.nbytes < BY_REFERENCE or example.dtype != self.own.dtype
        #: numbers that the program's float type may not hold
        self.wider = example.dtype.kind == "f" and example.itemsize > self.own.itemsize
        #: list of records, number in it, word: for more workers a record is replaced
        self.places = [
            (bound.records, number, slot)
            for bound in bounds
            for number, slot in bound.base.readers(place.segment, place.offset)
        ]

    def write(self, array: np.ndarray) -> None:
        if self.wider:
            try:
                with np.errstate(over="raise"):
                    self.own[...] = array
            except FloatingPointError:
                raise DataError(
                    f"{self.name}: expected numbers within {self.own.dtype}'s range, "
                    f"+-{np.finfo(self.own.dtype).max:.3g}; scale the data, or use float64"
                ) from None
            address = self.own_address
        elif self.small or not array.flags.c_contiguous:
            self.own[...] = array
            address = self.own_address
        else:
            address = array.ctypes.data
        if address != self.address or self.fed.get(self.name) is not self:
            self.fed[self.name] = self
            self.address = 0  # until all places are written, whatever comes between
            for records, number, slot in self.places:
                records[number][:, slot] = address
            self.address = address
