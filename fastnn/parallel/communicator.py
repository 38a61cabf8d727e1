"""Groups of processes that MPI has started."""

from __future__ import annotations

import atexit
import struct
import sys
import time
from types import TracebackType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ProcessError
from fastnn.parallel.group import LEAVE, Group


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

    A process that ends by an exception ends them all (``MPI_Abort``), after its traceback: the
    others would wait for it for ever. So does one that comes to its end while others train.

    Args:
        communicator: mpi4py's; all processes (``MPI.COMM_WORLD``) if None. With one of your own,
            ends are yours, too: run ``python -m mpi4py program.py``.

    Raises:
        OptionError: mpi4py is not installed, or finds no MPI library.
    """
    if communicator is not None:
        return MPIGroup(communicator)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise OptionError(
            f"parallel.mpi: mpi4py cannot be used ({error}); install it with an MPI library "
            "(pip install mpi4py mpich), or use parallel.run on one machine"
        ) from None
    return _world(MPI.COMM_WORLD)


#: seconds that the launcher has for a message before it is told to end all; the shorter ones are
#: for the way from its process on this machine to the one that was called
LONGEST, MOMENT = 5.0, 0.3

_all: list[MPIGroup] = []


def _until_read() -> None:
    """Wait until what was written to stderr is on its way: `Abort` ends the processes that pass it
    on, too, and the reason would be lost with them."""
    sys.stderr.flush()
    until = time.monotonic() + LONGEST
    try:
        import fcntl
        import termios

        while time.monotonic() < until:
            left = fcntl.ioctl(sys.stderr.fileno(), termios.FIONREAD, struct.pack("i", 0))
            if not struct.unpack("i", left)[0]:
                break
            time.sleep(0.01)
    except (ImportError, OSError, ValueError):  # no pipe: a file or a terminal has it already
        pass
    time.sleep(MOMENT)


def _world(communicator: Any) -> Group:
    """The group of all processes, whose ends are looked after; made once."""
    if _all:
        return _all[0]
    group = MPIGroup(communicator)
    before = sys.excepthook

    def end_all(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        before(kind, error, trace)
        _until_read()
        communicator.Abort(1)

    def leave() -> None:
        try:
            group._meet(LEAVE, 0)
        except ProcessError as error:
            sys.stderr.write(f"{error}\n")
            _until_read()
            communicator.Abort(1)

    if group.size > 1:
        sys.excepthook = end_all
        atexit.register(leave)  # before MPI's own end, which was registered before
    _all.append(group)
    return group
