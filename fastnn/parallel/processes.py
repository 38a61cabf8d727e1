"""Processes of one machine: how they are started, meet, and end together.

Numbers lie in memory that all share; who may read them when is settled by messages to the process
that has started them, one to say "I am there", one back to say "all are". Whoever dies, at whatever
moment, closes his end, and nothing that he held stays locked.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ProcessError, check_whole
from fastnn.parallel.group import AVERAGE, CHUNK, GATHER, LEAVE, PLAN, Group
from fastnn.parallel.meeting import Meeting
from fastnn.parallel.messages import END, GO, HERE, MESSAGE
from fastnn.runtime import devices

#: what is said where the process that has started the others is not there any more
GONE = "parallel: the process that has called parallel.run has ended"


class LocalGroup(Group):
    """Processes of this machine, which exchange arrays in shared memory, or from GPU to GPU.

    Args:
        rank, size: which one it is, of how many.
        device: see `Group`.
        shared: memory for what is exchanged.
        begun: memory for the numbers of exchanges that GPUs have begun, by rank.
        end: to the process that has started them.
    """

    def __init__(self, rank: int, size: int, device: str, shared: Any, begun: Any, end: Any):
        self.rank, self.size, self.device, self._end = rank, size, device, end
        # two places, in turn: nobody writes the next numbers where somebody may still read these
        self._rows = np.frombuffer(shared, np.uint8).reshape(2, size, CHUNK)
        self.begun = np.frombuffer(begun, np.int64)
        #: what exchanges numbers from GPU to GPU, once there is something
        self.link: Any = None
        self._turn = 0
        self._announced: tuple[int, int] | None = None

    def gather(self, mine: np.ndarray) -> np.ndarray:
        """The arrays of all processes, by rank."""
        return self._gather(mine).copy()

    def same(self, numbers: int) -> None:
        """See that all processes are to exchange so many numbers in a step."""
        self._wait(PLAN, numbers)

    def lost(self, alarm: Any) -> None:
        """Wait until the others can't go on, and free what waits for them on a GPU."""
        try:
            why = alarm.recv_bytes().decode()
        except (EOFError, OSError):
            why = GONE
        if self.link is not None:
            self.link.abort(why)

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
            answer = GONE.encode()
        if answer != GO:
            raise ProcessError(answer.decode())


def run(
    work: Callable[[Group], Any], processes: int, method: str = "spawn",
    device: str = devices.HOST,
) -> list[Any]:  # fmt: skip
    """Call a function in so many processes of this machine, each with its `Group`.

    If one fails or is killed, the others end at their next exchange; those that reach none within
    ten seconds are terminated. So they do at Ctrl-C, which is raised here.

    Args:
        work: a function at the top level of a module (the processes import it). Its result must be
            picklable.
        processes: how many, at least 1.
        method: how processes are started, as `multiprocessing.get_context` has it.
        device: "cuda" gives each process a GPU of its own, `group.device`, for the `device` of its
            `Trainer`. With ``on_gradients=group.average`` gradients then go from GPU to GPU by
            NCCL, within the step; everything else that is exchanged goes through the host.

    Returns:
        What each process's call returned, by rank.

    Raises:
        OptionError: `processes` is not a whole number >= 1, there are fewer GPUs, NCCL is not
            installed, or `work` can't be imported.
        ProcessError: a process has failed, which ends all of them.
    """
    check_whole("parallel.run", 1, processes=processes)
    own = devices.each(device, processes)
    alone = devices.on_host(device)
    if method == "fork" and not alone:
        raise OptionError(
            f"parallel.run: expected method='spawn' with device={device!r}, got 'fork': a forked "
            "process can't use a GPU that its parent has looked at"
        )
    try:
        pickle.dumps(work)
    except Exception as error:  # of whatever kind of function it is
        raise OptionError(
            f"parallel.run: expected work to be a function at the top of a module, which the "
            f"processes can import, got {work!r} ({error})"
        ) from None
    context: Any = multiprocessing.get_context(method)
    shared = context.RawArray("B", 2 * processes * CHUNK)
    begun = context.RawArray("q", processes)
    meeting = Meeting(np.frombuffer(begun, np.int64))
    try:
        for rank in range(processes):
            with _interrupts_wait(context):
                mine, theirs = context.Pipe()
                heard, alarm = (None, None) if alone else context.Pipe(duplex=False)
                # what a forked process has of its parent's ends would keep them open when that dies
                inherited = [*meeting.ends, mine] if method == "fork" else []
                memory = own[rank], shared, begun
                arguments = (work, rank, processes, memory, theirs, heard, inherited)
                child = context.Process(target=_call, args=arguments)
                child.start()
                theirs.close()
                if heard is not None:
                    heard.close()
                meeting.add(mine, alarm, child)
        return meeting.results()
    finally:
        meeting.close()


@contextlib.contextmanager
def _interrupts_wait(context: Any) -> Iterator[None]:
    """Ctrl-C waits for the end of this context, and in a process that is started in it for `_call`:
    while that reads modules, nobody is told of what it fails by."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    if context.get_start_method() != "fork":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # or it is started below, and changes the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call(
    work: Callable[[Group], Any], rank: int, size: int, memory: tuple[str, Any, Any], end: Any,
    alarm: Any, inherited: list[Any],
) -> None:  # fmt: skip
    """What a process does."""
    for other in inherited:
        other.close()
    group = LocalGroup(rank, size, *memory, end)
    if alarm is not None:
        threading.Thread(target=group.lost, args=(alarm,), daemon=True).start()
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        value = work(group)
        if group.link is not None:
            group.link.finish()
        group._meet(LEAVE, 0)
        group.link = None  # nothing waits for others any more
        answer = pickle.dumps((True, value, False))
    except BaseException as error:  # Ctrl-C, too: the others must not wait
        follows = isinstance(error, ProcessError) and "another process" in str(error)
        answer = pickle.dumps((False, f"{type(error).__name__}: {error}", follows))
        if group.link is not None:
            group.link.abort("parallel: this process has failed")
    with contextlib.suppress(OSError):
        end.send_bytes(END + answer)
        end.close()
