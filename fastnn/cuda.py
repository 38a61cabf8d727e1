"""What there is of CUDA on this machine: `fastnn.cuda.is_available()` and why not.

>>> import fastnn as fnn
>>> fnn.cuda.is_available() == (fnn.cuda.reason() == "")
True
"""

from __future__ import annotations

from fastnn.runtime.cuda import gpu, machine
from fastnn.runtime.cuda.array import DeviceArray

__all__ = [
    "DeviceArray",
    "device_count",
    "device_name",
    "empty_cache",
    "is_available",
    "memory",
    "reason",
]


def is_available() -> bool:
    """Whether models can be trained with ``device="cuda"``.

    >>> fnn.cuda.is_available() == (fnn.cuda.device_count() > 0)
    True
    """
    return not reason()


def reason() -> str:
    """Why CUDA can't be used, with what to do about it; "" where it can.

    >>> fnn.cuda.is_available() or len(fnn.cuda.reason()) > 0
    True
    """
    return machine.reason()


def device_count() -> int:
    """How many CUDA devices there are: "cuda:0", "cuda:1", ...

    >>> fnn.cuda.device_count() >= 0
    True
    """
    return 0 if reason() else machine.device_count()


def device_name(number: int = 0) -> str:
    """The name of device `number`, such as "NVIDIA H200".

    >>> names = [fnn.cuda.device_name(k) for k in range(fnn.cuda.device_count())]
    """
    return machine.device_name(number)


def memory(number: int = 0) -> tuple[int, int]:
    """Bytes of the memory of device `number` that are free, and in all.

    >>> free = [fnn.cuda.memory(k)[0] for k in range(fnn.cuda.device_count())]
    """
    return machine.memory_info(number)


def empty_cache() -> None:
    """Give freed memory that is kept for later use back to the devices, for other programs.

    fastnn does so itself before it reports that a device is full.

    >>> fnn.cuda.empty_cache()
    """
    if not reason():
        gpu.trim_all()
