"""The mean of gradients over the GPUs of one machine, by NCCL, as a part of a step's graph.

Each process has a GPU of its own. What NCCL enqueues waits on the device for the other GPUs, and
the host for none of them; so whoever has lost its partners is freed by `abort`, from a thread that
hears of it. What is computed afterwards is worth nothing: `Device.check_partners` raises the error
wherever the host has waited for the device.

A loss that is not finite on one GPU has to stop all: the reason of a stop is exchanged together
with the gradients, before the updates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fastnn.errors import ProcessError
from fastnn.kernels import control_block
from fastnn.runtime import _cuda
from fastnn.runtime.cuda.gpu import Gpu
from fastnn.runtime.cuda.place import Launch, Place

#: bytes that name a communicator
IDENTITY = 128


class Partners(Protocol):
    """The processes that train one model, as a runtime sees them."""

    device: str
    rank: int
    size: int
    #: exchanges that this process has begun: others see it
    begun: np.ndarray
    #: what the runtime has made of them, in this process
    link: Any

    def gather(self, mine: np.ndarray) -> np.ndarray:
        """The arrays of all processes, by rank."""

    def same(self, numbers: int) -> None:
        """See that all processes exchange so many numbers in a step."""


class Exchange:
    """A communicator of NCCL's: this process's GPU, and those of the others."""

    def __init__(self, gpu: Gpu, partners: Partners):
        self.gpu, self.partners, self.nccl = gpu, partners, _cuda.nccl()
        first = np.zeros(IDENTITY, np.uint8)
        if partners.rank == 0:
            first[:] = np.frombuffer(bytes(self.nccl.get_unique_id()), np.uint8)
        identity = self.nccl.UniqueId.from_buffer(partners.gather(first)[0].tobytes())
        gpu.use()
        try:
            made = self.nccl.comm_init_rank(partners.size, identity.ptr, partners.rank)
        except Exception as error:
            raise ProcessError(
                f"parallel: NCCL can't connect {gpu.device} with the other processes' devices "
                f"({error}); give each process a device of its own, and see NCCL_DEBUG=INFO"
            ) from error
        self.communicator = made

    def launch(self, places: Sequence[Place], stop: Place) -> Launch:
        """What enqueues the exchange of a step: arrays become their mean, a reason to stop that of
        any."""
        spans = joined(places)
        self.partners.same(sum(count for _, count, _ in spans))
        kinds, how = self.nccl.DataType, self.nccl.RedOp
        types = {"float32": kinds.Float32, "float64": kinds.Float64, "float16": kinds.Float16}
        calls = [(at, count, int(types[dtype]), int(how.Avg)) for at, count, dtype in spans]
        calls.append((stop.address + 8 * control_block.STOP, 1, int(kinds.Int64), int(how.Max)))
        nccl, gpu = self.nccl, self.gpu

        def launch() -> None:
            stream = gpu.current_stream()
            nccl.group_start()
            try:
                for at, count, kind, operation in calls:
                    nccl.all_reduce(at, at, count, kind, operation, self.communicator, stream)
            finally:
                nccl.group_end()

        return launch

    def begin(self) -> None:
        """Note that one more exchange is enqueued."""
        self.gpu.check_partners()
        self.partners.begun[self.partners.rank] += 1

    def abort(self, why: str) -> None:
        """Free what waits on the device for others; `why` is what is raised, in any thread."""
        if not self.gpu.lost:
            self.gpu.lost = why
            with contextlib.suppress(Exception):  # its devices may have gone, too
                self.gpu.use()
                self.nccl.comm_abort(self.communicator)

    def finish(self) -> None:
        """Wait until the last exchange is done. The communicator is left to the process's end: its
        own end would wait for the graphs that it is part of."""
        self.gpu.sync()
        self.gpu.check_partners()


def joined(places: Sequence[Place]) -> list[tuple[int, int, str]]:
    """Address, number of items and type of arrays, neighbours taken together."""
    found: list[tuple[int, int, str]] = []
    for place in sorted(places, key=lambda place: place.address):
        size = np.dtype(place.dtype).itemsize
        count = place.nbytes // size
        if found and found[-1][2] == place.dtype:
            begin, before, _ = found[-1]
            if begin + before * size == place.address:
                found[-1] = begin, before + count, place.dtype
                continue
        found.append((place.address, count, place.dtype))
    return found
