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
        #: what does the run; None: it has to be started
        self.execute = None if self.description.asks else prepare(self.description, True)
        inputs = [_Input(bounds, *given) for given in zip(names, arrays, strict=True)]
        self.writes = [each.write for each in inputs]
        #: the only input, where it is copied
        self.only = inputs[0] if len(inputs) == 1 and inputs[0].copied else None
        #: why the last run stopped, in a memory that Python reads more quickly than an array
        self.stop = self.control.data[control_block.STOP : control_block.STOP + 1]

    def run(self, arrays: Sequence[Any]) -> None:
        store, runtime, keeps = self.store, self.runtime, self.keeps
        if store.away:
            store.bring_to_host()
        only = self.only
        if only is not None and only.fed[only.name] is only.mark:  # the records have its address
            only.own[...] = arrays[0]
        else:
            for write, array in zip(self.writes, arrays, strict=True):
                write(array)
        runtime.kept = keeps
        if keeps:  # as `begin` does
            self.saved[...] = self.buffers
        if self.execute is not None:
            self.execute()
        else:
            self._start()
        if self.stop[0] == control_block.KERNEL_FAILED:
            runtime.fail(self.description.segments)

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
        main, self.name, self.mark = bounds[-1], name, object()
        place = main.program.places[name]
        self.own = main.view(name)
        self.own_address = int(self.own.ctypes.data)
        self.address, self.fed = self.own_address, main.fed
        self.small = example.nbytes < BY_REFERENCE or example.dtype != self.own.dtype
        #: numbers that the program's float type may not hold
        self.wider = example.dtype.kind == "f" and example.itemsize > self.own.itemsize
        self.copied = self.small and not self.wider
        self.fed.setdefault(name, None)  # what has written to the records last
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
        if address != self.address or self.fed.get(self.name) is not self.mark:
            self.fed[self.name] = None  # until all places are written, whatever comes between
            for records, number, slot in self.places:
                records[number][:, slot] = address
            self.address, self.fed[self.name] = address, self.mark
