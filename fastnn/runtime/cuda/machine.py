"""The CUDA devices of this machine: how many, their names, memory, and what a block may have."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from fastnn.errors import DeviceError
from fastnn.kernels.declare import CLUSTERS
from fastnn.runtime import _cuda

#: threads of a block of a cluster, at most: with their registers one fills a multiprocessor
THREADS = 512
#: a kernel that does nothing, which the driver compiles
NOTHING = """
.version 7.8
.target sm_90
.address_size 64
.visible .entry fastnn_entry_nothing() { ret; }
"""


def reason() -> str:
    """Why CUDA cannot be used here; empty if at least one device can."""
    found = _cuda.reason()
    return found if found or _cuda.simulated() else _driver_too_old()


@functools.cache
def _driver_too_old() -> str:
    """Why the driver can't load what the packages compile; empty if it can: it takes code for its
    own major version of CUDA, and for earlier ones."""
    from importlib import metadata

    version = int(_cuda.check(_cuda.driver().cuDriverGetVersion()))
    compiled_for = int(metadata.version("cuda-bindings").split(".")[0])
    if version // 1000 >= compiled_for:
        return ""
    return (
        f"the NVIDIA driver is one of CUDA {version // 1000}.{version % 1000 // 10}, and the "
        f"installed packages compile for CUDA {compiled_for}: install a newer driver, or packages "
        f"for this one, {_cuda.INSTALL}"
    )


def device_count() -> int:
    """How many devices there are, where CUDA can be used."""
    return 1 if _cuda.simulated() else len(_cuda.core().Device.get_all_devices())


def device_name(number: int) -> str:
    return "Numba's simulator" if _cuda.simulated() else str(_cuda.core().Device(number).name)


def opened(number: int) -> Any:
    """`cuda.core`'s device, made this thread's. Raises DeviceError where it can't be had now."""
    device = _cuda.core().Device(number)
    with usable(number):
        device.set_current()
    return device


@contextlib.contextmanager
def usable(number: int) -> Iterator[None]:
    """Errors in here mean that the device can't be had now: DeviceError with the remedy."""
    try:
        yield
    except Exception as error:
        raise DeviceError(
            f"cuda:{number} ({device_name(number)}) cannot be used now: {error} Other processes "
            "may have it, or all of its memory: wait until they end (nvidia-smi lists them), "
            "choose another device, or use device='cpu'"
        ) from error


def memory_info(number: int) -> tuple[int, int]:
    """Bytes that are free, and in all."""
    if _cuda.simulated():
        return 0, 0
    _cuda.core().Device(number).set_current()
    error, free, total = _cuda.driver().cuMemGetInfo()
    return (int(free), int(total)) if int(error) == 0 else (0, 0)


@functools.cache
def block_limits() -> tuple[int, int, int, int]:
    """Multiprocessors, bytes of shared memory that a block may have, blocks of a cluster (1: there
    are none), and how many such clusters run at once: the least of all devices that kernels can
    run on; an H200's where there is none, few multiprocessors in the simulator."""
    if _cuda.simulated():
        return 4, 232_448, _cuda.MOST_CLUSTER, 0
    if reason():
        return 132, 232_448, _cuda.MOST_CLUSTER, 7
    library = _cuda.driver()
    wanted = library.CUdevice_attribute
    count = int(_cuda.check(library.cuDeviceGetCount()))
    numbers = [n for n in range(count) if not _cuda.too_old(n)]
    processors, shared = (
        min(int(_cuda.check(library.cuDeviceGetAttribute(attribute, n))) for n in numbers)
        for attribute in (
            wanted.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
            wanted.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )
    )
    for blocks in (_cuda.MOST_CLUSTER, _cuda.PORTABLE_CLUSTER):
        at_once = min(clusters_at_once(n, blocks, shared) for n in numbers)
        if at_once:
            return processors, shared, blocks, at_once
    return processors, shared, 1, 0


def clusters_at_once(number: int, blocks: int, shared: int) -> int:
    """How many clusters of so many blocks run on a device at once, where a block has so much shared
    memory to itself: parts of multiprocessors, and of devices, may have none side by side."""
    if _cuda.compute_capability(number) < CLUSTERS:
        return 0
    core, driver = _cuda.core(), _cuda.driver()
    device = opened(number)
    with usable(number):  # the first kernel that a device gets: there may be no memory for it
        kernel = core.ObjectCode.from_ptx(NOTHING.encode()).get_kernel("fastnn_entry_nothing")
    attribute = driver.CUfunction_attribute
    for kind, value in (
        (attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
        (attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared),
    ):
        if int(driver.cuKernelSetAttribute(kind, value, kernel.handle, number)[0]) != 0:
            return 0
    cluster = core.LaunchConfig(
        grid=(1, 1, 1), cluster=(blocks, 1, 1), block=THREADS, shmem_size=shared
    )
    try:
        return int(kernel.occupancy.max_active_clusters(cluster, stream=device.default_stream))
    except Exception:  # whatever the bindings raise where the driver refuses such a cluster
        return 0
