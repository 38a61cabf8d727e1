"""Processes of one machine: how they are started, meet, and end together.

Numbers lie in memory that all share; who may read them when is settled by messages to the process
that has started them, one to say "I am there", one back to say "all are". Whoever dies, at whatever
moment, closes his end, and nothing that he held stays locked.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ProcessError, check_whole
from fastnn.parallel.group import AVERAGE, CHUNK, GATHER, LEAVE, Group
from fastnn.parallel.meeting import Meeting
from fastnn.parallel.messages import END, GO, HERE, MESSAGE


class LocalGroup(Group):
    """Processes of this machine, which exchange arrays in shared memory."""

    def __init__(self, rank: int, size: int, shared: Any, end: Any):
        self.rank, self.size, self._end = rank, size, end
        # two places, in turn: nobody writes the next numbers where somebody may still read these
        self._rows = np.frombuffer(shared, np.uint8).reshape(2, size, CHUNK)
        self._turn = 0
        self._announced: tuple[int, int] | None = None

    def _gather(self, mine: np.ndarray) -> np.ndarray:
        rows = self._rows[self._turn]
        self._turn ^= 1
        rows[self.rank, : mine.nbytes] = np.ascontiguousarray(mine).view(np.uint8)
        purpose, number = self._announced or (GATHER, mine.nbytes)
        self._announced = None
        self._wait(purpose, number)
        return rows[:, : mine.nbytes].view(mine.dtype)

    def _meet(self, purpose: int, number: int) -> None:
        if purpose == AVERAGE and number:  # the first numbers are handed over in the same meeting
            self._announced = purpose, number
        else:
            self._wait(purpose, number)

    def _wait(self, purpose: int, number: int) -> None:
        try:
            self._end.send_bytes(MESSAGE.pack(HERE, purpose, number))
            answer = self._end.recv_bytes()
        except (OSError, EOFError):
            answer = b"parallel: the process that has called parallel.run has ended"
        if answer != GO:
            raise ProcessError(answer.decode())


def run(work: Callable[[Group], Any], processes: int, method: str = "spawn") -> list[Any]:
    """Call a function in so many processes of this machine, each with its `Group`.

    Where one fails, or is killed, the others end with it at their next exchange; those that come to
    none within ten seconds are terminated.

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
    shared = context.RawArray("B", 2 * processes * CHUNK)
    meeting = Meeting(processes)
    try:
        for rank in range(processes):
            mine, theirs = context.Pipe()
            # what a forked process has of its parent's ends would keep them open when that dies
            inherited = [*meeting.ends, mine] if method == "fork" else []
            arguments = (work, rank, processes, shared, theirs, inherited)
            child = context.Process(target=_call, args=arguments)
            child.start()
            theirs.close()
            meeting.add(mine, child)
        return meeting.results()
    finally:
        meeting.close()


def _call(
    work: Callable[[Group], Any], rank: int, size: int, shared: Any, end: Any, inherited: list[Any]
) -> None:
    """What a process does."""
    for other in inherited:
        other.close()
    group = LocalGroup(rank, size, shared, end)
    try:
        value = work(group)
        group._meet(LEAVE, 0)
        answer = pickle.dumps((True, value, False))
    except BaseException as error:  # Ctrl-C, too: the others must not wait
        follows = isinstance(error, ProcessError) and "another process" in str(error)
        answer = pickle.dumps((False, f"{type(error).__name__}: {error}", follows))
    with contextlib.suppress(OSError):
        end.send_bytes(END + answer)
        end.close()
