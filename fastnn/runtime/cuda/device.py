"""What a real device and a simulated one have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from fastnn.errors import DeviceError, FastnnError, OutOfMemoryError, ProcessError
from fastnn.runtime import _cuda
from fastnn.runtime.cuda import guards, machine
from fastnn.runtime.cuda.guards import Guards
from fastnn.runtime.cuda.place import Piece

#: every piece of memory begins at a multiple of this many bytes
ALIGNMENT = 256
SMALLER_MODEL = "use a smaller model, or dtype='float32'"
#: by what a segment's name begins with; what no option makes smaller (the control block, totals,
#: the order of the data) is not in it
WHAT_TO_LOWER = {
    "work": "lower batch_size, or the length of sequences",
    "input": "lower batch_size, or the length of sequences",
    "data": "train on a part of the data at a time, or pass batches from an iterable",
    "result": "predict fewer samples at a time",
    "constant": "use smaller constants in the model",
    "slots": f"choose an optimizer that keeps less (optim.SGD keeps nothing), or {SMALLER_MODEL}",
    **dict.fromkeys(("params", "grads", "buffers", "saved", "halves", "copy of "), SMALLER_MODEL),
}


class Device(ABC):
    """A CUDA device, real or simulated."""

    def __init__(self, number: int):
        self.number, self.device = number, f"cuda:{number}"
        self.name = machine.device_name(number)
        self.cc = _cuda.compute_capability(number)
        self.guards = Guards(self)
        #: why the GPUs of other processes, which this one trains with, are not there any more
        self.lost = ""

    def allocate(self, size: int, name: str) -> Piece:
        """So many bytes, all zero; `name` says what for."""
        guarded = guards.mode()
        if guarded == "1":
            return self.guards.around(self._take(size + 2 * guards.ZONE, name), size, name)
        if guarded == "exact":
            return self._take(max(size, 1), name)
        return self._take(-(-max(size, 1) // ALIGNMENT) * ALIGNMENT, name)

    def _take(self, size: int, name: str) -> Piece:
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
            free, total = machine.memory_info(self.number)
            found = (f"{less}, " for key, less in WHAT_TO_LOWER.items() if name.startswith(key))
            raise OutOfMemoryError(
                f"{self.device} ({self.name}) is out of memory: {_amount(size)} were requested for "
                f"{name!r}, {_amount(free)} of {_amount(total)} are free; {next(found, '')}free "
                "what else is on the device, or use device='cpu'"
            ) from None

    @abstractmethod
    def _allocate(self, size: int) -> Piece:
        """So many bytes, all zero; raises what the driver raises."""

    @abstractmethod
    def upload(self, host: np.ndarray, copy: Piece, offset: int = 0) -> None:
        """Host to device; `host` (unless it is pinned) may be written to when this returns."""

    @abstractmethod
    def fetch(self, copy: Piece, host: np.ndarray, offset: int = 0) -> None:
        """Device to host, at once: whatever was sent has been waited for."""

    @abstractmethod
    def trim(self) -> None:
        """Give freed memory that is kept for later back to the device."""

    def check_partners(self) -> None:
        """Raise ProcessError where what was computed lacks the numbers of other processes."""
        if self.lost:
            raise ProcessError(self.lost)

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
        if self.lost:
            return ProcessError(self.lost)
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


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "OUT_OF_MEMORY" in str(error)


def _amount(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
