"""Choice of device, and the runtime for it."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastnn.errors import DeviceError, OptionError
from fastnn.runtime import _cuda
from fastnn.runtime.cuda import machine

if TYPE_CHECKING:
    from fastnn.runtime.interface import Runtime, Store

log = logging.getLogger("fastnn")
#: further devices: the class of the runtime by name, which is made as the CPU's is
RUNTIMES: dict[str, str] = {
    # "name": "module.Class",
}
#: the device that has the host's memory
HOST = "cpu"


def on_host(device: str) -> bool:
    """Whether a device's memory is the host's."""
    return device == HOST


def number_of(device: str) -> int:
    """The number of a GPU: 1 of "cuda:1"."""
    return int(device.removeprefix("cuda:"))


def cuda_reason() -> str:
    """Why CUDA can't be used here; "" if it can."""
    return machine.reason()


def each(kind: str, count: int) -> list[str]:
    """Devices for so many processes: the host's for all, or with "cuda" a GPU for each.

    Raises OptionError where there are fewer GPUs, or nothing that connects them.
    """
    if kind == HOST:
        return [HOST] * count
    if kind != "cuda":
        raise OptionError(f"device: expected 'cpu' or 'cuda', got {kind!r}")
    if reason := cuda_reason() or ("" if _cuda.simulated() else _cuda.without_nccl()):
        raise OptionError(f"device='cuda' cannot be used: {reason}; use device='cpu'")
    found = [k for k in range(machine.device_count()) if not _cuda.too_old(k)]
    if len(found) < count:
        raise OptionError(
            f"processes: expected at most {len(found)}, as many as there are GPUs that kernels can "
            f"run on, got {count}; use fewer, or device='cpu'"
        )
    return [f"cuda:{k}" for k in found[:count]]


def choose(device: str = "auto") -> str:
    """The device that "auto", "cpu", "cuda" or "cuda:N" means here: "cpu", "cuda:0", ...

    `FASTNN_DEVICE` replaces "auto". Asking for CUDA where it can't be had is an error saying why;
    "auto" takes the CPU then, and says so once (a warning of the logger "fastnn" where the machine
    has an NVIDIA driver, else only at its level INFO). It passes over devices that are busy.
    """
    given, asked = device, "device"
    if device == "auto" and os.environ.get("FASTNN_DEVICE"):
        given, asked = os.environ["FASTNN_DEVICE"], "FASTNN_DEVICE"
    if given == "cpu" or given in list(RUNTIMES):
        return given
    if given == "auto":
        return _automatic()
    match = re.fullmatch(r"cuda(?::(\d+))?", given) if isinstance(given, str) else None
    if match is None:
        raise OptionError(f"{asked}: expected 'auto', 'cpu', 'cuda' or 'cuda:1', got {given!r}")
    if reason := cuda_reason():
        raise OptionError(f"{asked}={given!r} cannot be used: {reason}; use device='cpu' or 'auto'")
    number, count = int(match[1] or 0), machine.device_count()
    if number >= count:
        found = ", ".join(f"cuda:{k} ({machine.device_name(k)})" for k in range(count))
        raise OptionError(f"{asked}={given!r}: there is no such device; expected one of {found}")
    if match[1] is None:
        number = _first()
    elif reason := _cuda.too_old(number):
        raise OptionError(f"{asked}={given!r} cannot be used: {reason}; use device='cpu' or 'auto'")
    return f"cuda:{number}"


def _first() -> int:
    """The first device that kernels can run on."""
    return next(k for k in range(machine.device_count()) if not _cuda.too_old(k))


def _available() -> tuple[int, str]:
    """The first device that kernels can run on and that can be had now; why there is none."""
    reason = ""
    for number in range(machine.device_count()):
        if not _cuda.too_old(number):
            try:
                machine.opened(number)
            except DeviceError as error:
                reason = reason or str(error)
            else:
                return number, ""
    return 0, reason


@functools.cache
def _automatic() -> str:
    """What "auto" means; said once."""
    reason = cuda_reason()
    if not reason and _cuda.simulated():
        reason = "kernels for CUDA run in Numba's simulator here (device='cuda' takes it)"
    number = 0
    if not reason:
        number, reason = _available()
    if reason:
        seen = os.path.exists("/proc/driver/nvidia/version") or os.path.exists("/dev/dxg")
        log.log(
            logging.WARNING if seen else logging.INFO, "fastnn runs on the CPU, because %s", reason
        )
        return "cpu"
    log.info("fastnn runs on cuda:%d, %s", number, machine.device_name(number))
    return f"cuda:{number}"


def block_limits(kind: str) -> tuple[int, ...]:
    """What a plan for this kind of device depends on: multiprocessors, bytes of shared memory that
    a block may have, blocks of a cluster, and how many clusters run at once. (A plan for the CPU
    depends on none of them.)"""
    return (0, 0, 1) if kind == "cpu" else machine.block_limits()


def runtime(
    device: str, store: Store, slots: Sequence[str], totals: int, workers: int | str,
    graphs: bool,
) -> Runtime:  # fmt: skip
    """A session's runtime on a device that `choose` gave."""
    if device in RUNTIMES:
        module, _, name = RUNTIMES[device].rpartition(".")
        made: Runtime = getattr(importlib.import_module(module), name)(
            store, slots, totals, workers
        )
        return made
    if device == "cpu":
        from fastnn.runtime.cpu.runtime import CpuRuntime

        return CpuRuntime(store, slots, totals, workers)
    from fastnn.runtime.cuda.execute import CudaRuntime

    return CudaRuntime(device, store, slots, totals, graphs)
