"""Runs CUDA kernels as plain Python: a coroutine (greenlet) for each CUDA thread.

Threads pass control on where they wait (`syncthreads`, `device.give_way`), and a block whose
threads wait at different places, or some of them not at all, is an error here (Numba's own
simulator lets both pass), as is a negative index. Blocks run one after the other; those of a
cooperative launch or of a cluster run together, so that they can wait for each other. What `cuda`
offers besides (atomics, `grid`, ...) comes from Numba's simulator.

Blocks and threads take their turns in an order drawn from a seed, and now and then one is passed
over: what a missing barrier would let be read too early, is. `FASTNN_SIMULATOR_SEED` draws other
orders; the same seed gives the same run.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.cuda.simulator import kernel
from numba.cuda.simulator.kernelapi import FakeCUDAModule

from fastnn.errors import DeviceError
from fastnn.kernels.cuda import device

try:
    from greenlet import getcurrent, greenlet
except ImportError as error:
    raise DeviceError(
        "kernels for CUDA run in Numba's simulator by means of the package greenlet, which is not "
        "installed: pip install greenlet"
    ) from error

#: turns that threads may give way to each other without anyone getting ahead
PATIENCE = 100_000
#: share of the turns that a thread is passed over; of these, the share in which it is so for `LATE`
#: turns: others may come to the next barrier but one, in other blocks too
PASSED_OVER, FAR_BEHIND, LATE = 0.1, 0.1, 8
#: launches so far: each has an order of its own
_launches = itertools.count()


class SimulatedError(RuntimeError):
    """A fault of a kernel that the simulator found."""


_get, _set = np.ndarray.__getitem__, np.ndarray.__setitem__


class _Checked(np.ndarray):
    """An array that takes no negative indices: compiled code would leave the array."""

    def __getitem__(self, index: Any) -> Any:
        if type(index) is not int or index < 0:
            _check_index(index)
        return _get(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        if type(index) is not int or index < 0:
            _check_index(index)
        _set(self, index, value)


def _check_index(index: Any) -> None:
    for i in index if type(index) is tuple else (index,):
        if type(i) is int or isinstance(i, np.integer):
            below = i < 0
        else:
            below = type(i) is np.ndarray and i.dtype.kind == "i" and (i < 0).any()
        if below:
            raise IndexError(f"negative index {index}")


class _Stopped(BaseException):
    """Ends the threads of a launch in which another one failed."""


class _Dim3(NamedTuple):
    x: int
    y: int
    z: int


class _Thread:
    """A CUDA thread."""

    def __init__(self, launch: _Launch, block: _Block, index: _Dim3) -> None:
        self.launch, self.block, self.index = launch, block, index
        x, y, z = index
        self.number = x + launch.threads[0] * (y + launch.threads[1] * z)
        self.given = block.given
        self.own: dict[str, Any] = {}  # what functions of `device` and the like keep of it
        self.body: Any = None
        self.place: Any = None  # where it waits for the others
        self.late = 0  # turns that it is still passed over
        self.ended = False

    def run(self) -> None:
        try:
            self.launch.function(*self.launch.arguments)
        except _Stopped:
            pass
        except Exception as error:
            error.add_note(f"in thread {tuple(self.index)} of block {tuple(self.block.index)}")
            self.launch.failed = self.launch.failed or error
        self.ended = True
        self.block.ended += 1

    def turn(self) -> None:
        """Run until it waits or ends."""
        if self.body is None:
            if self.launch.failed:
                self.ended = True
                self.block.ended += 1
                return
            self.body = greenlet(self.run)
        device.take_turn(self)
        self.body.switch()

    def wait(self) -> None:
        """Give control back until the next turn."""
        self.launch.scheduler.switch()
        if self.launch.failed:
            raise _Stopped

    def meet(self, place: tuple[str, int]) -> None:
        """Wait for the block's other threads at this place."""
        self.place = place
        self.block.waiting += 1
        self.launch.progress += 1
        while self.place is not None:
            self.wait()

    def vote(self, value: Any, place: tuple[str, int]) -> np.ndarray:
        """What all threads of the block say to a question."""
        votes = self.block.votes
        votes[self.number] = bool(value)
        self.meet(place)
        result = votes.copy()
        self.meet(place)
        return result


class _Module(FakeCUDAModule):
    """What the name `cuda` stands for in a launch, as seen by the thread that has its turn. The
    names in mixed case are Numba's."""

    @property
    def threadIdx(self) -> Any:
        return device.running().index

    @property
    def blockIdx(self) -> Any:
        return device.running().block.index

    @property
    def laneid(self) -> int:
        return int(device.running().number % 32)

    def syncthreads(self) -> None:
        device.running().meet(_caller())

    def syncthreads_count(self, value: Any) -> int:
        return int(np.count_nonzero(device.running().vote(value, _caller())))

    def syncthreads_and(self, value: Any) -> int:
        return int(np.all(device.running().vote(value, _caller())))

    def syncthreads_or(self, value: Any) -> int:
        return int(np.any(device.running().vote(value, _caller())))


def _caller() -> tuple[str, int]:
    """File and line of whoever called the caller of this function."""
    frame = sys._getframe(2)
    return frame.f_code.co_filename, frame.f_lineno


class _Block:
    def __init__(self, launch: _Launch, index: tuple[int, int, int]) -> None:
        self.index = _Dim3(*index)
        x, y, z = launch.threads
        self.votes = np.zeros(x * y * z, np.bool_)
        self.waiting = self.ended = 0  # how many of the threads
        self.given: dict[int, Any] = {}  # what threads exchange
        places = itertools.product(range(z), range(y), range(x))
        self.threads = [_Thread(launch, self, _Dim3(i, j, k)) for k, j, i in places]

    def release(self) -> None:
        """Let the threads go on if all of them wait."""
        count = len(self.threads)
        if self.ended == count:
            device.cuda.shared.close(tuple(self.index))
        if self.waiting == 0 or (self.ended == 0 and self.waiting < count):
            return
        places = {t.place for t in self.threads} - {None}
        if self.ended:
            raise SimulatedError(f"some threads of a block ended, others wait at {places}")
        if len(places) > 1:
            raise SimulatedError(f"the threads of a block wait at different places: {places}")
        self.waiting = 0
        for thread in self.threads:
            thread.place = None


class _Launch:
    """One launch of a kernel."""

    def __init__(self, function: Callable[..., None], launch: Any, arguments: list[Any]) -> None:
        self.function, self.arguments, self.threads = function, arguments, launch.threads
        self.scheduler = getcurrent()
        self.failed: Any = None
        self.progress = 0
        seed = os.environ.get("FASTNN_SIMULATOR_SEED", "0")
        self.random = random.Random(f"{seed}/{next(_launches)}")

    def run(self, indices: list[tuple[int, int, int]]) -> None:
        """Run the blocks of these indices together."""
        blocks = [_Block(self, index) for index in indices]
        running = [t for b in blocks for t in b.threads]
        idle = 0
        while running:
            before = self.progress
            ready = [t for t in running if t.place is None or self.failed]
            self.random.shuffle(ready)
            for thread in ready:
                if not self.failed:
                    if thread.late == 0 and self.random.random() < PASSED_OVER:
                        thread.late = LATE if self.random.random() < FAR_BEHIND else 1
                    if thread.late > 0:
                        thread.late -= 1
                        continue
                thread.turn()
            left = [t for t in running if not t.ended]
            idle = idle + 1 if self.progress == before and len(left) == len(running) else 0
            running = left
            if not self.failed:
                try:
                    for block in blocks:
                        block.release()
                    if idle > PATIENCE:
                        raise SimulatedError("all threads wait for each other")
                except SimulatedError as error:
                    self.failed = error
        if self.failed:
            raise self.failed


def run(
    function: Callable[..., None], launch: Any, arguments: list[Any], cooperative: bool = False
) -> None:
    """Run all blocks of a launch; arrays are changed in place."""
    module = _Module(launch.grid, launch.threads, launch.shared)
    device.provide(module)
    arguments = [a.view(_Checked) if isinstance(a, np.ndarray) else a for a in arguments]
    x, y, z = launch.grid
    indices = [(i, j, k) for k, j, i in itertools.product(range(z), range(y), range(x))]
    with kernel._push_kernel_context(module):
        made = _Launch(function, launch, arguments)
        made.random.shuffle(indices)
        groups: dict[Any, list[tuple[int, int, int]]] = {}
        for index in indices:
            cluster = index[0] // launch.cluster
            groups.setdefault(0 if cooperative else (cluster, *index[1:]), []).append(index)
        for together in groups.values():
            made.run(together)
