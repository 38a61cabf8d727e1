"""Calls of the driver whose arguments are known beforehand: what every step of a stream does.

The bindings make an object of each argument and of each answer, in every call. Here the driver's C
functions are called as they are, with arguments that are made once. None of them waits, so they
keep Python's lock: a thread that gave it up would have to wait for it again each time.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.runtime import _cuda
from fastnn.runtime.cuda.place import Launch, Piece

if TYPE_CHECKING:
    from fastnn.runtime.cuda.gpu import Gpu


def forwarding(gpu: Gpu, host: np.ndarray, staging: Piece, target: Piece, size: int) -> Launch:
    """What `Gpu.forwarding` returns."""
    lane, copied = gpu.lane
    stream, beside, event = gpu.stream.handle, lane.handle, copied.handle
    send = _prepared("cuMemcpyHtoDAsync_v2", staging.address, host.ctypes.data, size, beside)
    note = _prepared("cuEventRecord", event, beside)
    wait = _prepared("cuStreamWaitEvent", stream, event, 0)
    copy = _prepared("cuMemcpyDtoDAsync_v2", target.address, staging.address, size, stream)
    kept = host, staging, target, copied

    def forward() -> None:
        status = send() or note() or wait() or copy()
        if status:
            _fail(gpu, status, kept)

    return forward


def look(gpu: Gpu, piece: Piece, answer: np.ndarray) -> tuple[Launch, Launch]:
    """What `Gpu.look` returns."""
    stream = gpu.stream.handle
    event = gpu.stream.record(options=gpu.core.EventOptions(blocking_sync=True))
    fetch = _prepared(
        "cuMemcpyDtoHAsync_v2", answer.ctypes.data, piece.address, answer.nbytes, stream
    )
    note = _prepared("cuEventRecord", event.handle, stream)
    kept = piece, answer

    def send() -> None:
        status = fetch() or note()
        if status:
            _fail(gpu, status, kept)

    def wait() -> None:
        try:
            event.sync()
        except Exception as error:
            raise gpu.failure(error) from error

    return send, wait


def _prepared(name: str, *arguments: Any) -> Callable[[], int]:
    """A call of a function of the driver: addresses, handles and sizes are words of 64 bits."""
    words = [ctypes.c_uint64(int(argument)) for argument in arguments]
    return functools.partial(getattr(_cuda.functions(), name), *words)


def _fail(gpu: Gpu, status: int, kept: object) -> None:
    """Raise for a status of the driver."""
    raise gpu.failure(RuntimeError(_cuda.driver().CUresult(status).name))
