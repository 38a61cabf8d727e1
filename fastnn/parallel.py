"""One model trained by several processes, each on its share of the data.

Every process has the same model from the same seed. Between the gradients and the update of each
step the processes exchange their gradients, and each goes on with the mean over all of them. It is
summed in the order of the processes, whatever carries the numbers, so all models stay the same to
the last bit, and two runs with as many processes give the same bits.

    def work(group):
        trainer = fnn.Trainer(net(), "cross_entropy", on_gradients=group.average, workers=1)
        mine = group.share(len(x))
        trainer.fit(x[mine], y[mine], epochs=5, batch_size=32 // group.size)
        return trainer.get_parameters() if group.rank == 0 else None

    parameters, *_ = fnn.parallel.run(work, processes=4)     # on this machine

Between machines the same `work` runs under MPI (``pip install mpi4py``, and Open MPI or MPICH):

    mpirun -n 4 python program.py          # which calls work(fnn.parallel.mpi())

The mean of the processes' gradients is that of the whole batch where each has as many samples in a
step, which `Group.share` sees to (with `drop_last`, or a batch size that divides the share). What a
layer computes over its batch (batch normalisation) is that of the process's own samples.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ProcessError, check_whole

__all__ = ["Group", "mpi", "run"]

#: bytes of each process that are exchanged at once
CHUNK = 1 << 22
#: what a process comes to a meeting for
_LEAVE, _AVERAGE = 0, 1


class Group(ABC):
    """The processes that train one model together, as one of them sees it.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    def share(self, samples: int) -> slice:
        """This process's samples: every `size`-th, as many for each process.

        Raises:
            OptionError: there are fewer samples than processes.
        """
        each = samples // self.size
        if not each:
            raise OptionError(
                f"parallel: expected at least one sample for each of {self.size} processes, got "
                f"{samples}; use fewer processes"
            )
        return slice(self.rank, each * self.size, self.size)

    def average(self, gradients: Mapping[str, np.ndarray]) -> None:
        """Put the mean over all processes in each gradient's place: for `on_gradients`.

        Args:
            gradients: arrays by name, of the same names and shapes in every process.

        Raises:
            ProcessError: another process has ended, or computes another model.
        """
        self._meet(_AVERAGE, sum(g.size for g in gradients.values()))
        for kind in sorted({g.dtype.char for g in gradients.values()}):
            arrays = [g for g in gradients.values() if g.dtype.char == kind]
            flat = np.concatenate([g.reshape(-1) for g in arrays])
            step = max(1, CHUNK // flat.itemsize)
            for begin in range(0, len(flat), step):
                part = flat[begin : begin + step]
                rows = self._gather(part)
                part[:] = rows[0]
                for row in rows[1:]:
                    part += row
                part /= self.size
            begin = 0
            for g in arrays:
                g[...] = flat[begin : begin + g.size].reshape(g.shape)
                begin += g.size

    def _meet(self, purpose: int, numbers: int) -> None:
        """Wait for all processes, and see that they have come for the same."""
        rows = self._gather(np.array([purpose, numbers], np.int64))
        left = [r for r, row in enumerate(rows) if row[0] == _LEAVE]
        if 0 < len(left) < self.size:
            raise ProcessError(
                f"parallel: process {left[0]} has ended while others were in the middle of a "
                "training; give all processes as many steps (group.share, one batch size)"
            )
        if len({int(row[1]) for row in rows}) > 1:
            raise ProcessError(
                "parallel: expected gradients of one model in all processes, got "
                f"{[int(row[1]) for row in rows]} numbers; build the same model in each"
            )

    @abstractmethod
    def _gather(self, mine: np.ndarray) -> np.ndarray:
        """The arrays of all processes, by rank: shape (size, len(mine))."""


# -------------------------------------------------------------------- MPI


class MPIGroup(Group):
    """The processes of an MPI communicator."""

    def __init__(self, communicator: Any):
        self.communicator = communicator
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()

    def _gather(self, mine: np.ndarray) -> np.ndarray:
        found = np.empty((self.size, len(mine)), mine.dtype)
        self.communicator.Allgather(np.ascontiguousarray(mine), found)
        return found


def mpi(communicator: Any = None) -> Group:
    """The group of the processes that ``mpirun`` has started.

    Args:
        communicator: mpi4py's; all processes (``MPI.COMM_WORLD``) if None.

    Raises:
        OptionError: mpi4py is not installed, or finds no MPI library.
    """
    if communicator is None:
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise OptionError(
                f"parallel.mpi: mpi4py cannot be used ({error}); install it with an MPI library "
                "(pip install mpi4py; apt install libopenmpi-dev), or use parallel.run on one "
                "machine"
            ) from None
        communicator = MPI.COMM_WORLD
    return MPIGroup(communicator)


# -------------------------------------------------------------------- processes of one machine


class LocalGroup(Group):
    """Processes of this machine, which exchange arrays in shared memory."""

    def __init__(self, rank: int, size: int, shared: Any, barrier: Any):
        self.rank, self.size, self.barrier = rank, size, barrier
        self._rows = np.frombuffer(shared, np.uint8).reshape(size, -1)

    def _gather(self, mine: np.ndarray) -> np.ndarray:
        self._rows[self.rank, : mine.nbytes] = np.ascontiguousarray(mine).view(np.uint8)
        self._wait()
        found = self._rows[:, : mine.nbytes].copy().view(mine.dtype)
        self._wait()  # nobody writes the next numbers before all have these
        return found

    def _wait(self) -> None:
        try:
            self.barrier.wait()
        except threading.BrokenBarrierError:
            raise ProcessError(
                "parallel: another process has failed; its error says why, and parallel.run "
                "raises it"
            ) from None


def run(work: Callable[[Group], Any], processes: int, method: str = "spawn") -> list[Any]:
    """Call a function in so many processes of this machine, each with its `Group`.

    Args:
        work: a function at the top of a module (the processes import it). What it returns has to
            be picklable.
        processes: how many, at least 1.
        method: how processes are started, as `multiprocessing.get_context` has it.

    Returns:
        What each process's call returned, by rank.

    Raises:
        OptionError: `processes` is no whole number from 1 on, or `work` can't be imported.
        ProcessError: a process has failed, and with it all of them.
    """
    check_whole("parallel.run", 1, processes=processes)
    try:
        pickle.dumps(work)
    except Exception as error:  # of whatever kind of function it is
        raise OptionError(
            f"parallel.run: expected work to be a function at the top of a module, which the "
            f"processes can import, got {work!r} ({error})"
        ) from None
    context: Any = multiprocessing.get_context(method)
    shared = context.RawArray("B", processes * CHUNK)
    barrier = context.Barrier(processes)
    ends, children = [], []
    try:
        for rank in range(processes):
            mine, theirs = context.Pipe(duplex=False)
            arguments = (work, rank, processes, shared, barrier, theirs)
            child = context.Process(target=_call, args=arguments)
            child.start()
            theirs.close()
            ends.append(mine)
            children.append(child)
        return _results(ends, barrier)
    finally:
        barrier.abort()  # nobody waits for those that are gone
        until = time.monotonic() + 10
        for child in children:
            child.join(max(0.0, until - time.monotonic()))
            if child.is_alive():
                child.terminate()
                child.join()


def _results(ends: list[Any], barrier: Any) -> list[Any]:
    """What all processes return; as soon as one fails, no other waits for it."""
    found: dict[int, Any] = {}
    failed: list[tuple[bool, int, str]] = []
    left: list[Any] = list(ends)
    while left:
        ready: list[Any] = wait(left)
        for end in ready:
            left.remove(end)
            rank = ends.index(end)
            try:
                good, value, follows = end.recv()
            except (EOFError, OSError):
                good, value, follows = False, "ended without a word (killed?)", False
            if good:
                found[rank] = value
            else:
                failed.append((bool(follows), rank, str(value)))
                barrier.abort()
    if failed:
        _, rank, text = min(failed)  # the first cause, not those that waited for it
        raise ProcessError(f"parallel.run: process {rank} of {len(ends)} failed: {text}")
    return [found[rank] for rank in range(len(ends))]


def _call(
    work: Callable[[Group], Any], rank: int, size: int, shared: Any, barrier: Any, end: Any
) -> None:
    """What a process does."""
    group = LocalGroup(rank, size, shared, barrier)
    try:
        value = work(group)
        group._meet(_LEAVE, 0)
        end.send((True, value, False))
    except BaseException as error:  # Ctrl-C, too: the others must not wait
        follows = isinstance(error, ProcessError) and "another process" in str(error)
        with contextlib.suppress(OSError):
            end.send((False, f"{type(error).__name__}: {error}", follows))
        barrier.abort()
    finally:
        end.close()
