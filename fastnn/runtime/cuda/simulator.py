"""Runs CUDA kernels as plain Python: a Python thread for each CUDA thread, of which one runs at a
time.

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
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnn.kernels.cuda import device

#: turns that threads may give way to each other without anyone getting ahead
PATIENCE = 100_000
#: share of the turns that a thread is passed over; of these, the share in which it is so for `LATE`
#: turns: others may come to the next barrier but one, in other blocks too
PASSED_OVER, FAR_BEHIND, LATE = 0.1, 0.1, 8
#: launches so far: each has an order of its own
_launches = itertools.count()


class SimulatedError(RuntimeError):
    """A fault of a kernel that the simulator found."""


class _Checked(np.ndarray):
    """An array that takes no negative indices: compiled code would leave the array."""

    def __getitem__(self, index: Any) -> Any:
        _check_index(index)
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        _check_index(index)
        super().__setitem__(index, value)


def _check_index(index: Any) -> None:
    for i in index if isinstance(index, tuple) else (index,):
        if isinstance(i, (int, np.integer)) and i < 0:
            raise IndexError(f"negative index {index}")


class _Stopped(BaseException):
    """Ends the threads of a launch in which another one failed."""


class _Carrier(threading.Thread):
    """A Python thread that runs CUDA threads, one after the other; one that waits keeps its
    carrier until it ends. The names in mixed case are what Numba's simulator asks for."""

    idle: ClassVar[list[_Carrier]] = []

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.turn, self.back = threading.Lock(), threading.Lock()
        self.turn.acquire()
        self.back.acquire()
        self.task: Any = None
        self.start()

    def resume(self) -> None:
        """Let the carrier run until its CUDA thread waits or ends."""
        self.turn.release()
        self.back.acquire()

    def run(self) -> None:
        while True:
            self.turn.acquire()
            self.task.run()
            self.back.release()

    def wait(self) -> None:
        """Give control back until the next turn."""
        self.back.release()
        self.turn.acquire()
        if self.task.launch.failed:
            raise _Stopped

    def carry(self, task: _Thread) -> None:
        self.task, task.carrier = task, self
        self.threadIdx, self.blockIdx, self.thread_id = task.index, task.block.index, task.number
        self.given = task.block.given

    def syncthreads(self) -> None:
        frame: Any = sys._getframe(1)
        while frame.f_code.co_filename.endswith(("kernelapi.py", "simulator.py")):
            frame = frame.f_back
        self.meet((frame.f_code.co_filename, frame.f_lineno))

    def meet(self, place: tuple[str, int]) -> None:
        """Wait for the block's other threads at this place."""
        self.task.place = place
        self.task.launch.progress += 1
        while self.task.place is not None:
            self.wait()

    def _vote(self, value: Any) -> np.ndarray:
        votes = self.task.block.votes
        votes[self.thread_id] = bool(value)
        self.syncthreads()
        result = votes.copy()
        self.syncthreads()
        return result

    def syncthreads_count(self, value: Any) -> int:
        return int(np.count_nonzero(self._vote(value)))

    def syncthreads_and(self, value: Any) -> int:
        return int(np.all(self._vote(value)))

    def syncthreads_or(self, value: Any) -> int:
        return int(np.any(self._vote(value)))


class _Thread:
    """A CUDA thread."""

    def __init__(self, launch: _Launch, block: _Block, index: tuple[int, int, int]) -> None:
        self.launch, self.block, self.index = launch, block, launch.dim3(*index)
        x, y, z = index
        self.number = x + launch.threads[0] * (y + launch.threads[1] * z)
        self.carrier: _Carrier | None = None
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

    def turn(self) -> None:
        """Run until it waits or ends."""
        if self.carrier is None:
            if self.launch.failed:
                self.ended = True
                return
            (_Carrier.idle.pop() if _Carrier.idle else _Carrier()).carry(self)
        carrier: Any = self.carrier
        carrier.resume()
        if self.ended:
            _Carrier.idle.append(carrier)


class _Block:
    def __init__(self, launch: _Launch, index: tuple[int, int, int]) -> None:
        self.index = launch.dim3(*index)
        x, y, z = launch.threads
        self.votes = np.zeros(x * y * z, np.bool_)
        self.given: dict[int, Any] = {}  # what threads exchange
        self.threads = [
            _Thread(launch, self, (i, j, k)) for k in range(z) for j in range(y) for i in range(x)
        ]

    def release(self) -> None:
        """Let the threads go on if all of them wait."""
        places = {t.place for t in self.threads}
        if places == {None}:
            if all(t.ended for t in self.threads):
                device.cuda.shared.close(tuple(self.index))
            return
        if any(t.ended for t in self.threads):
            raise SimulatedError(f"some threads of a block ended, others wait at {places - {None}}")
        if None not in places:
            if len(places) > 1:
                raise SimulatedError(f"the threads of a block wait at different places: {places}")
            for thread in self.threads:
                thread.place = None


class _Launch:
    """One launch of a kernel."""

    def __init__(self, function: Callable[..., None], launch: Any, arguments: list[Any]) -> None:
        from numba.cuda.simulator.kernelapi import Dim3

        self.dim3 = Dim3
        self.function, self.arguments, self.threads = function, arguments, launch.threads
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
            idle = idle + 1 if self.progress == before and not any(t.ended for t in running) else 0
            running = [t for t in running if not t.ended]
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
    from numba.cuda.simulator import kernel
    from numba.cuda.simulator.kernelapi import FakeCUDAModule

    module = FakeCUDAModule(launch.grid, launch.threads, launch.shared)
    device.provide(lambda: module)
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
