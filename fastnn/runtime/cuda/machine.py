"""The CUDA devices of this machine: how many, their names and memory."""

from __future__ import annotations

from fastnn.runtime import _cuda


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
